/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A bzImage's payload, unpacked by the libraries of its formats. The kernel's build appends the
 * unpacked size (gzip has it anyway), so the output is allocated once and every decoder is bounded
 * by it.
 */
#include "vm/image.h"

#include <errno.h>
#include <lz4.h>
#include <lzma.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "base/cleanup.h"
#include "vm/boot_internal.h"

/* The kernel's build takes a dictionary of 32 MiB, xz -9 one of 64. */
#define XZ_MEMLIMIT MIB(256)

struct unpack {
	const uint8_t *in;
	size_t in_len;
	uint8_t *out;
	size_t out_len;
};

/* What a decoder found: exactly out_len bytes, fewer, more, or rubbish. */
enum unpack_result { UNPACK_OK, UNPACK_LESS, UNPACK_MORE, UNPACK_CORRUPT, UNPACK_NOMEM };

static enum unpack_result unpack_gzip(const struct unpack *u)
{
	z_stream z = {
		.next_in = (uint8_t *)u->in,
		.avail_in = (uInt)u->in_len,
		.next_out = u->out,
		.avail_out = (uInt)u->out_len,
	};
	uInt left;
	int r;

	if (inflateInit2(&z, 16 + MAX_WBITS) != Z_OK)
		return UNPACK_NOMEM;
	r = inflate(&z, Z_FINISH);
	left = z.avail_out;
	inflateEnd(&z);
	if (r == Z_STREAM_END)
		return left ? UNPACK_LESS : UNPACK_OK;
	if (r == Z_MEM_ERROR)
		return UNPACK_NOMEM;
	return r == Z_BUF_ERROR && !left ? UNPACK_MORE : UNPACK_CORRUPT;
}

static enum unpack_result lzma_verdict(lzma_ret r, bool full)
{
	switch (r) {
	case LZMA_OK:
	case LZMA_STREAM_END: return full ? UNPACK_OK : UNPACK_LESS;
	case LZMA_MEM_ERROR: return UNPACK_NOMEM;
	case LZMA_BUF_ERROR: return full ? UNPACK_MORE : UNPACK_CORRUPT;
	default: return UNPACK_CORRUPT;
	}
}

static enum unpack_result unpack_xz(const struct unpack *u)
{
	uint64_t memlimit = XZ_MEMLIMIT;
	size_t in_pos = 0, out_pos = 0;
	lzma_ret r = lzma_stream_buffer_decode(&memlimit, 0, NULL, u->in, &in_pos, u->in_len,
					       u->out, &out_pos, u->out_len);

	return lzma_verdict(r, out_pos == u->out_len);
}

/*
 * The form before xz has no one-shot decoder, and its end may be told by the size alone: whether
 * there is more shows only when there is room for more.
 */
static enum unpack_result unpack_lzma(const struct unpack *u)
{
	lzma_stream s = LZMA_STREAM_INIT;
	uint8_t spare;
	bool full;
	lzma_ret r = lzma_alone_decoder(&s, XZ_MEMLIMIT);

	if (r != LZMA_OK)
		return UNPACK_NOMEM;
	s.next_in = u->in;
	s.avail_in = u->in_len;
	s.next_out = u->out;
	s.avail_out = u->out_len;
	do
		r = lzma_code(&s, LZMA_FINISH);
	while (r == LZMA_OK && s.avail_out);
	full = !s.avail_out;
	if (r == LZMA_OK) {
		s.next_out = &spare;
		s.avail_out = 1;
		r = lzma_code(&s, LZMA_FINISH);
		r = !s.avail_out ? LZMA_BUF_ERROR : r == LZMA_BUF_ERROR ? LZMA_OK : r;
	}
	lzma_end(&s);
	return lzma_verdict(r, full);
}

static enum unpack_result unpack_zstd(const struct unpack *u)
{
	size_t r = ZSTD_decompress(u->out, u->out_len, u->in, u->in_len);

	if (!ZSTD_isError(r))
		return r == u->out_len ? UNPACK_OK : UNPACK_LESS;
	switch (ZSTD_getErrorCode(r)) {
	case ZSTD_error_dstSize_tooSmall: return UNPACK_MORE;
	case ZSTD_error_memory_allocation: return UNPACK_NOMEM;
	default: return UNPACK_CORRUPT;
	}
}

/* The legacy frame: a magic, then blocks, each with its packed size before it and at most 8 MiB
 * unpacked. */
static enum unpack_result unpack_lz4(const struct unpack *u)
{
	size_t in = 4, out = 0;

	while (in < u->in_len) {
		uint32_t packed;
		size_t room = MIN(u->out_len - out, (size_t)MIB(8));
		int n;

		if (!range_fits(in, 4, u->in_len))
			return UNPACK_CORRUPT;
		packed = get_u32(u->in + in);
		in += 4;
		if (!range_fits(in, packed, u->in_len) || packed > LZ4_COMPRESSBOUND(MIB(8)))
			return UNPACK_CORRUPT;
		if (!room)
			return UNPACK_MORE;
		n = LZ4_decompress_safe((const char *)u->in + in, (char *)u->out + out, (int)packed,
					(int)room);
		if (n <= 0)
			return UNPACK_CORRUPT;
		in += packed;
		out += (size_t)n;
	}
	return out == u->out_len ? UNPACK_OK : UNPACK_LESS;
}

static const struct format {
	const char *name;
	unsigned magic_len;
	uint8_t magic[6];
	/* The size's four bytes are the format's own, not appended after it. */
	bool own_size;
	enum unpack_result (*unpack)(const struct unpack *u);
} formats[] = {
	{"gzip", 2, {0x1f, 0x8b}, true, unpack_gzip},
	{"xz", 6, {0xfd, '7', 'z', 'X', 'Z', 0}, false, unpack_xz},
	{"zstd", 4, {0x28, 0xb5, 0x2f, 0xfd}, false, unpack_zstd},
	{"lz4", 4, {0x02, 0x21, 0x4c, 0x18}, false, unpack_lz4},
	{"lzma", 3, {0x5d, 0, 0}, false, unpack_lzma},
	{"bzip2", 3, {'B', 'Z', 'h'}, false, NULL},
	{"lzo", 4, {0x89, 'L', 'Z', 'O'}, false, NULL},
};

static const struct format *find_format(const struct boot_blob *file,
					const struct image_bzimage *bz)
{
	const uint8_t *p = (const uint8_t *)file->data + bz->payload;
	size_t i;

	/* Ten bytes are less than any format needs; the longest magic and the size fit in. */
	for (i = 0; i < ARRAY_SIZE(formats) && bz->payload_len > 10; i++)
		if (!memcmp(p, formats[i].magic, formats[i].magic_len))
			return &formats[i];
	return NULL;
}

const char *image_compression(const struct boot_blob *file, const struct image_bzimage *bz)
{
	const struct format *f = find_format(file, bz);

	return f ? f->name : NULL;
}

bool image_can_unpack(const struct boot_blob *file, const struct image_bzimage *bz)
{
	const struct format *f = find_format(file, bz);

	return f && f->unpack;
}

static int explain(const struct boot_blob *file, const struct image_bzimage *bz, const char *format,
		   enum unpack_result r, struct boot_error *err)
{
	const char *why = r == UNPACK_LESS   ? "unpacks to less than its last four bytes state"
			  : r == UNPACK_MORE ? "unpacks to more than its last four bytes state"
					     : "is corrupt";

	if (r == UNPACK_NOMEM) {
		boot_fail(err, BOOT_ERR_SYSTEM, "%.80s: no memory to unpack the %s payload",
			  file->name, format);
		return -ENOMEM;
	}
	return boot_fail(err, BOOT_ERR_COMPRESSION, "%.80s: the %s payload at offset 0x%llx %s",
			 file->name, format, (unsigned long long)bz->payload, why);
}

int image_unpack(const struct boot_blob *file, const struct image_bzimage *bz, size_t max,
		 void **out, size_t *out_len, struct boot_error *err)
{
	const uint8_t *p = (const uint8_t *)file->data + bz->payload;
	const struct format *f = find_format(file, bz);
	_cleanup_free_ uint8_t *data = NULL;
	enum unpack_result r;
	struct unpack u;

	if (!f)
		return boot_fail(err, BOOT_ERR_COMPRESSION,
				 "%.80s: unknown compression of the payload at offset 0x%llx",
				 file->name, (unsigned long long)bz->payload);
	if (!f->unpack)
		return boot_fail(err, BOOT_ERR_COMPRESSION,
				 "%.80s: the payload at offset 0x%llx is packed by %s, which is "
				 "not supported",
				 file->name, (unsigned long long)bz->payload, f->name);
	u.in = p;
	u.in_len = bz->payload_len - (f->own_size ? 0 : 4);
	u.out_len = get_u32(p + bz->payload_len - 4);
	if (!u.out_len || u.out_len > max)
		return boot_fail(err, BOOT_ERR_COMPRESSION,
				 "%.80s: the %s payload at offset 0x%llx would unpack to %zu "
				 "bytes, the limit "
				 "is %zu",
				 file->name, f->name, (unsigned long long)bz->payload, u.out_len,
				 max);
	data = u.out = malloc(u.out_len);
	r = data ? f->unpack(&u) : UNPACK_NOMEM;
	if (r != UNPACK_OK)
		return explain(file, bz, f->name, r, err);
	*out = TAKE_PTR(data);
	*out_len = u.out_len;
	return 0;
}
