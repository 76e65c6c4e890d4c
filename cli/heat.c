/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A picture of where a guest writes: in the terminal, and as a PNG. */
#include "cli/heat.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <json-c/json.h>
#include <png.h>

#include "base/types.h"
#include "cli/term.h"
#include "cli/vmctl.h"

int heat_load(struct heat *h, struct json_object *result)
{
	struct json_object *counts = object_of(result, "counts");
	size_t n = counts ? json_object_array_length(counts) : 0;
	int64_t *count = calloc(n + 1, sizeof(*count));

	if (!count)
		return -ENOMEM;
	heat_finish(h);
	h->count = count;
	for (size_t i = 0; i < n; i++) {
		struct json_object *v = json_object_array_get_idx(counts, i);

		count[i] = v ? json_object_get_int64(v) : -1;
		if (!v)
			continue;
		h->n = i + 1;
		h->pages += (uint64_t)count[i];
	}
	h->bucket_bytes = (uint64_t)int_of(result, "bucket_bytes", 4096);
	h->rounds = (uint64_t)int_of(result, "rounds", 0);
	return 0;
}

void heat_finish(struct heat *h)
{
	free(h->count);
	memset(h, 0, sizeof(*h));
}

/* Of @per buckets from @at on; -1 where none is memory. */
static int64_t heat_sum(const struct heat *h, size_t at, size_t per)
{
	int64_t sum = -1;

	for (size_t i = at; i < at + per && i < h->n; i++)
		if (h->count[i] >= 0)
			sum = MAX(sum, (int64_t)0) + h->count[i];
	return sum;
}

static int64_t heat_peak(const struct heat *h, size_t per, size_t *ret_at)
{
	int64_t peak = 0;

	*ret_at = 0;
	for (size_t i = 0; i < h->n; i += per) {
		int64_t sum = heat_sum(h, i, per);

		if (sum > peak) {
			peak = sum;
			*ret_at = i;
		}
	}
	return peak;
}

/* 0 for nothing, 1 to @steps on a logarithmic scale: a page written now and then is to be seen. */
static unsigned heat_step(int64_t count, int64_t peak, unsigned steps)
{
	if (count <= 0)
		return 0;
	return (unsigned)ceil(log1p((double)count) / log1p((double)peak) * steps);
}

/* ---- the terminal ---- */

#define LABEL 16 /* columns of an address and what is beside it */
#define ROWS  16u

/* Of the 256 colours, from the coldest to the hottest. */
static const unsigned char ramp[] = {17, 54, 90, 126, 161, 196, 202, 208, 214, 220, 226, 230};
static const char letters[] = ":-=+*#%@";

static bool is_colour(void)
{
	return term_colour(STDOUT_FILENO) && term_utf8();
}

/* A power of two, so that rows begin at round addresses. */
static unsigned columns(void)
{
	unsigned width = term_columns(), n = 16;

	width = width ? width : 80;
	while (2 * n + LABEL <= width && n < 256)
		n *= 2;
	return n;
}

static void print_cell(int64_t count, int64_t peak, bool colour)
{
	if (count < 0)
		putchar(' ');
	else if (!count)
		fputs(colour ? "\033[38;5;238m·" : ".", stdout);
	else if (colour)
		printf("\033[38;5;%um█", ramp[heat_step(count, peak, ARRAY_SIZE(ramp)) - 1]);
	else
		putchar(letters[heat_step(count, peak, sizeof(letters) - 1) - 1]);
}

static void print_bytes(uint64_t bytes)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	unsigned u = 0;

	for (; bytes >= 1024 && !(bytes % 1024) && u + 1 < ARRAY_SIZE(units); u++)
		bytes /= 1024;
	printf("%" PRIu64 " %s", bytes, units[u]);
}

void heat_print(const struct heat *h, enum heat_when when)
{
	unsigned cols = columns();
	size_t per = MAX((h->n + cols * ROWS - 1) / (cols * ROWS), (size_t)1), hot;
	int64_t peak = heat_peak(h, per, &hot);
	bool colour = is_colour();
	unsigned lines = 1;

	if (when == HEAT_MORE && !colour)
		return;
	for (size_t at = 0; at < h->n; at += per * cols, lines++) {
		printf("%s0x%012" PRIx64 "  ", colour ? "\033[0m" : "", at * h->bucket_bytes);
		for (size_t i = at; i < at + per * cols && i < h->n; i += per)
			print_cell(heat_sum(h, i, per), peak, colour);
		puts(colour ? "\033[0m\033[K" : "");
	}
	fputs("a cell is ", stdout);
	print_bytes(per * h->bucket_bytes);
	printf(", the hottest at 0x%" PRIx64 "; %" PRIu64 " pages dirtied in %" PRIu64
	       " rounds%s\n",
	       hot * h->bucket_bytes, h->pages, h->rounds, colour ? "\033[K" : "");
	/* The next one is drawn over it. */
	if (when == HEAT_MORE)
		printf("\033[%uA", lines);
	fflush(stdout);
}

/* ---- the PNG ---- */

#define PNG_CELLS 128u /* a row */
#define PNG_CELL  4u   /* pixels of one, both ways */

/* Black is nothing written, grey no memory; then from blue over red and yellow to white. */
static void cell_colour(int64_t count, int64_t peak, uint8_t rgb[3])
{
	static const uint8_t stop[][3] = {
		{24, 24, 96}, {128, 0, 128}, {224, 32, 32}, {255, 192, 0}, {255, 255, 255}};
	unsigned step = heat_step(count, peak, 64), i = step / 16, part = step % 16;

	memset(rgb, count < 0 ? 64 : 0, 3);
	if (!step)
		return;
	for (unsigned k = 0; k < 3; k++) {
		unsigned from = stop[i][k], to = stop[MIN(i + 1, 4u)][k];

		rgb[k] = (uint8_t)((from * (16 - part) + to * part) / 16);
	}
}

static void draw(const struct heat *h, uint8_t *pixels)
{
	size_t hot, stride = (size_t)PNG_CELLS * PNG_CELL * 3;
	int64_t peak = heat_peak(h, 1, &hot);

	for (size_t i = 0; i < h->n; i++) {
		uint8_t *cell =
			pixels + i / PNG_CELLS * PNG_CELL * stride + i % PNG_CELLS * PNG_CELL * 3;

		for (size_t p = 0; p < PNG_CELL * PNG_CELL; p++)
			cell_colour(h->count[i], peak,
				    cell + p / PNG_CELL * stride + p % PNG_CELL * 3);
	}
}

int heat_write_png(const struct heat *h, const char *path, struct api_error *err)
{
	size_t rows = MAX((h->n + PNG_CELLS - 1) / PNG_CELLS, (size_t)1);
	png_image image = {
		.version = PNG_IMAGE_VERSION,
		.width = PNG_CELLS * PNG_CELL,
		.height = (png_uint_32)(rows * PNG_CELL),
		.format = PNG_FORMAT_RGB,
	};
	uint8_t *pixels = calloc(1, PNG_IMAGE_SIZE(image));
	int done = 0;

	if (!pixels)
		return api_error_set(err, API_KIND_INTERNAL, "out of memory");
	draw(h, pixels);
	done = png_image_write_to_file(&image, path, 0, pixels, 0, NULL);
	free(pixels);
	return done ? 0 : api_error_set(err, API_KIND_IO, "%.200s: %s", path, image.message);
}
