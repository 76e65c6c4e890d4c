/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A generator of ACPI machine language. */
#include "vm/acpi_aml.h"

#include <string.h>

/* Opcodes (ACPI 6.4, 20.3). */
#define OP_NAME	   0x08
#define OP_BYTE	   0x0a
#define OP_WORD	   0x0b
#define OP_DWORD   0x0c
#define OP_QWORD   0x0e
#define OP_SCOPE   0x10
#define OP_BUFFER  0x11
#define OP_PACKAGE 0x12
#define OP_EXT	   0x5b
#define OP_DEVICE  0x82 /* after OP_EXT */

/* Lengths always take the two-byte form: their place is known before their value. */
#define PKG_LENGTH_BYTES 2
#define PKG_LENGTH_MAX	 0xfff

static void byte(struct buf *b, unsigned v)
{
	uint8_t c = (uint8_t)v;

	buf_append(b, &c, 1);
}

static size_t length_begin(struct buf *b)
{
	size_t at = b->len;

	byte(b, 0);
	byte(b, 0);
	return at;
}

void aml_end(struct buf *b, size_t begun)
{
	size_t len = b->len - begun;

	if (b->failed)
		return;
	assert(len <= PKG_LENGTH_MAX);
	b->data[begun] = (char)(0x40 | (len & 0xf));
	b->data[begun + 1] = (char)(len >> 4);
}

size_t aml_scope_begin(struct buf *b, const char *path)
{
	size_t at;

	byte(b, OP_SCOPE);
	at = length_begin(b);
	buf_append(b, path, strlen(path));
	return at;
}

size_t aml_device_begin(struct buf *b, const char *name)
{
	size_t at;

	byte(b, OP_EXT);
	byte(b, OP_DEVICE);
	at = length_begin(b);
	buf_append(b, name, 4);
	return at;
}

size_t aml_package_begin(struct buf *b, uint8_t elements)
{
	size_t at;

	byte(b, OP_PACKAGE);
	at = length_begin(b);
	byte(b, elements);
	return at;
}

/* The buffer's size is an integer of its own after the length: one byte of it, filled in at the
 * end. */
size_t aml_resources_begin(struct buf *b)
{
	size_t at;

	byte(b, OP_BUFFER);
	at = length_begin(b);
	byte(b, OP_BYTE);
	byte(b, 0);
	return at;
}

void aml_resources_end(struct buf *b, size_t begun)
{
	size_t data = begun + PKG_LENGTH_BYTES + 2;

	byte(b, 0x79); /* end tag; its checksum of zero means none */
	byte(b, 0);
	if (b->failed)
		return;
	assert(b->len - data <= 0xff);
	b->data[data - 1] = (char)(b->len - data);
	aml_end(b, begun);
}

void aml_name(struct buf *b, const char *name)
{
	byte(b, OP_NAME);
	buf_append(b, name, 4);
}

void aml_integer(struct buf *b, uint64_t value)
{
	if (value <= 1) {
		byte(b, (unsigned)value); /* ZeroOp, OneOp */
	} else if (value <= 0xff) {
		byte(b, OP_BYTE);
		buf_append(b, &value, 1);
	} else if (value <= 0xffff) {
		byte(b, OP_WORD);
		buf_append(b, &value, 2);
	} else if (value <= 0xffffffff) {
		byte(b, OP_DWORD);
		buf_append(b, &value, 4);
	} else {
		byte(b, OP_QWORD);
		buf_append(b, &value, 8);
	}
}

static unsigned hex_digit(char c)
{
	return (unsigned)(c <= '9' ? c - '0' : c - 'A' + 10);
}

void aml_eisaid(struct buf *b, const char *id)
{
	unsigned vendor = (unsigned)(id[0] & 0x1f) << 10 | (unsigned)(id[1] & 0x1f) << 5 |
			  (unsigned)(id[2] & 0x1f);

	byte(b, OP_DWORD);
	byte(b, vendor >> 8);
	byte(b, vendor);
	byte(b, hex_digit(id[3]) << 4 | hex_digit(id[4]));
	byte(b, hex_digit(id[5]) << 4 | hex_digit(id[6]));
}

void aml_io(struct buf *b, uint16_t port, uint8_t len)
{
	byte(b, 0x47);
	byte(b, 1); /* decodes 16 bits */
	buf_append(b, &port, 2);
	buf_append(b, &port, 2);
	byte(b, 1);
	byte(b, len);
}

void aml_irq(struct buf *b, unsigned irq)
{
	uint16_t mask = (uint16_t)(1u << irq);

	byte(b, 0x22); /* without flags: edge, active high */
	buf_append(b, &mask, 2);
}
