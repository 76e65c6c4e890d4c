/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What stdout is: its width, whether it takes colours; and tables that fit it. */
#include "cli/term.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define GAP	  2 /* between columns */
#define CELL_MIN  6 /* a column does not shrink below */
#define CELLS_ADD 64

static unsigned from_environment(const char *name)
{
	const char *text = getenv(name);
	int n = text ? atoi(text) : 0;

	return n > 0 ? (unsigned)n : 0;
}

unsigned term_columns(void)
{
	struct winsize size = {0};

	if (!ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) && size.ws_col)
		return size.ws_col;
	return from_environment("COLUMNS");
}

unsigned term_lines(void)
{
	struct winsize size = {0};

	if (!ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) && size.ws_row)
		return size.ws_row;
	return from_environment("LINES");
}

bool term_colour(int fd)
{
	const char *term = getenv("TERM"), *no = getenv("NO_COLOR");

	return isatty(fd) && term && *term && strcmp(term, "dumb") != 0 && !(no && *no);
}

bool term_utf8(void)
{
	const char *lang = getenv("LC_ALL");

	lang = lang && *lang ? lang : getenv("LC_CTYPE");
	lang = lang && *lang ? lang : getenv("LANG");
	return lang && (strstr(lang, "UTF-8") || strstr(lang, "utf8"));
}

/* ---- tables ---- */

void table_init(struct table *t, const struct column *columns, size_t n)
{
	*t = (struct table){.columns = columns, .n_columns = n};
	assert(n <= TABLE_COLUMNS_MAX);
}

void table_finish(struct table *t)
{
	for (size_t i = 0; i < t->n_rows; i++)
		free(t->cells[i]);
	free(t->cells);
	*t = (struct table){0};
}

void table_add(struct table *t, const char *fmt, ...)
{
	char *text = NULL, **cells = t->cells;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	va_end(ap);
	if (text && !(t->n_rows % CELLS_ADD))
		cells = reallocarray(t->cells, t->n_rows + CELLS_ADD, sizeof(*cells));
	if (!text || !cells) {
		free(text);
		t->failed = true;
		return;
	}
	for (unsigned char *c = (unsigned char *)text; *c; c++)
		if (*c < ' ' || *c == 127)
			*c = '?';
	t->cells = cells;
	t->cells[t->n_rows++] = text;
}

/* Characters, not bytes: what goes on begins with the bits 10. */
static unsigned width_of(const char *text)
{
	unsigned n = 0;

	for (; *text; text++)
		n += ((unsigned char)*text & 0xc0) != 0x80;
	return n;
}

static const char *cell_at(const struct table *t, size_t row, size_t column)
{
	size_t i = row * t->n_columns + column;

	return i < t->n_rows ? t->cells[i] : "";
}

/* The widest column that may shrink, or n_columns. */
static size_t find_widest(const struct table *t, const unsigned *width)
{
	size_t widest = t->n_columns;

	for (size_t i = 0; i < t->n_columns; i++)
		if (t->columns[i].shrinks && width[i] > CELL_MIN &&
		    (widest == t->n_columns || width[i] > width[widest]))
			widest = i;
	return widest;
}

static void fit(const struct table *t, size_t rows, unsigned *width)
{
	unsigned sum = 0, room = term_columns();
	size_t widest;

	for (size_t i = 0; i < t->n_columns; i++) {
		width[i] = width_of(t->columns[i].title);
		for (size_t row = 0; row < rows; row++)
			width[i] = MAX(width[i], width_of(cell_at(t, row, i)));
		sum += width[i] + (i ? GAP : 0);
	}
	while (room && sum > room && (widest = find_widest(t, width)) < t->n_columns) {
		width[widest]--;
		sum--;
	}
}

/* @text in @width characters, cut with a mark where it has more. */
static void print_cell(FILE *to, const char *text, unsigned width, bool right, bool pad)
{
	unsigned has = width_of(text), n = 0;
	const char *end = text;

	if (has <= width) {
		fprintf(to, "%*s%s%*s", right ? (int)(width - has) : 0, "", text,
			!right && pad ? (int)(width - has) : 0, "");
		return;
	}
	for (; *end; end++) {
		if (((unsigned char)*end & 0xc0) != 0x80 && n++ == width - 1)
			break;
	}
	fprintf(to, "%.*s%s", (int)(end - text), text, term_utf8() ? "…" : "~");
}

static void print_row(const struct table *t, FILE *to, size_t row, const unsigned *width,
		      bool colour)
{
	size_t n = t->n_columns;

	while (row && n > 1 && !*cell_at(t, row - 1, n - 1))
		n--; /* no blanks at the end of a line */
	for (size_t i = 0; i < n; i++) {
		const struct column *c = &t->columns[i];
		const char *cell = row ? cell_at(t, row - 1, i) : c->title;
		const char *style = row && c->style ? c->style(cell) : row ? NULL : "1";

		if (i)
			fprintf(to, "%*s", GAP, "");
		if (colour && style)
			fprintf(to, "\033[%sm", style);
		print_cell(to, cell, width[i], c->right, i + 1 < n);
		if (colour && style)
			fputs("\033[0m", to);
	}
	fputc('\n', to);
}

void table_print(const struct table *t, FILE *to, unsigned lines)
{
	size_t rows = t->n_columns ? t->n_rows / t->n_columns : 0;
	unsigned width[TABLE_COLUMNS_MAX];
	bool colour = term_colour(fileno(to));

	if (t->failed) {
		fputs("vmctl: out of memory\n", stderr);
		return;
	}
	fit(t, rows, width);
	if (lines)
		rows = MIN(rows, (size_t)lines - 1);
	for (size_t row = 0; row <= rows; row++)
		print_row(t, to, row, width, colour);
}

/* ---- words ---- */

const char *style_of_state(const char *state)
{
	static const struct {
		const char *state, *style;
	} styles[] = {
		{"running", "32"}, {"paused", "33"}, {"starting", "36"},  {"stopping", "36"},
		{"failed", "31"},  {"done", "32"},   {"cancelled", "33"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(styles); i++)
		if (!strcmp(state, styles[i].state))
			return styles[i].style;
	return NULL;
}

void text_of_bytes(double bytes, char *out, size_t len)
{
	static const char units[] = "KMGTP";
	unsigned u = 0;

	if (bytes < 0) {
		snprintf(out, len, "-");
		return;
	}
	for (bytes /= 1024; bytes >= 1024 && units[u + 1]; u++)
		bytes /= 1024;
	snprintf(out, len, bytes < 10 ? "%.1f%c" : "%.0f%c", bytes, units[u]);
}

void text_of_rate(double rate, char *out, size_t len)
{
	static const char units[] = " kMGT";
	unsigned u = 0;

	if (rate < 0) {
		snprintf(out, len, "-");
		return;
	}
	for (; rate >= 1000 && units[u + 1]; u++)
		rate /= 1000;
	snprintf(out, len, rate < 10 && rate > 0 ? "%.1f%.*s" : "%.0f%.*s", rate, u ? 1 : 0,
		 &units[u]);
}

void text_of_age(double seconds, char *out, size_t len)
{
	static const struct {
		double seconds;
		char unit;
	} units[] = {{86400, 'd'}, {3600, 'h'}, {60, 'm'}, {1, 's'}};
	size_t u = 0;

	while (u + 1 < ARRAY_SIZE(units) && seconds < units[u].seconds)
		u++;
	snprintf(out, len, "%.0f%c", seconds > 0 ? seconds / units[u].seconds : 0.0, units[u].unit);
}
