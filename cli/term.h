/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What stdout is: its width, whether it takes colours; and tables that fit it. */
#ifndef UMBRA_CLI_TERM_H
#define UMBRA_CLI_TERM_H

#include <stdio.h>

#include "base/types.h"

/* The terminal's size; $COLUMNS and $LINES where stdout is none; else 0: no bound. */
unsigned term_columns(void);
unsigned term_lines(void);
/* Only on a terminal that is not dumb, and not with $NO_COLOR. */
bool term_colour(int fd);
bool term_utf8(void);

#define TABLE_COLUMNS_MAX 16

struct column {
	const char *title;
	bool right;   /* numbers */
	bool shrinks; /* where the table is too wide for the terminal; the widest first */
	/* The SGR parameters of a cell ("32"), or NULL; may be NULL. */
	const char *(*style)(const char *cell);
};

/* Cells are copied; bytes that a terminal would obey are shown as '?'. */
struct table {
	const struct column *columns;
	size_t n_columns, n_rows;
	char **cells;
	bool failed; /* no memory: nothing is printed */
};

void table_init(struct table *t, const struct column *columns, size_t n);
void table_finish(struct table *t);
/* The next cell, row by row. */
void table_add(struct table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* At most @lines lines, the title among them; 0: all. */
void table_print(const struct table *t, FILE *to, unsigned lines);

/* A machine's or job's state, coloured. */
const char *style_of_state(const char *state);
/* "1.5G", "12M", "300K"; "-" for less than nothing. */
void text_of_bytes(double bytes, char *out, size_t len);
/* A count a second in at most five characters: "0.3", "12", "1.2k", "15M"; "-" when negative. */
void text_of_rate(double rate, char *out, size_t len);
/* "5s", "3m", "2h", "8d". */
void text_of_age(double seconds, char *out, size_t len);

#endif
