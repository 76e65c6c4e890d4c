/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bytes in JSON: base64 (RFC 4648). */
#include "api/base64.h"

#include <stdlib.h>
#include <string.h>

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

char *base64_encode(const void *data, size_t len)
{
	char *text = malloc((len + 2) / 3 * 4 + 1), *p = text;
	const uint8_t *in = data;

	if (!text)
		return NULL;
	for (size_t i = 0; i < len; i += 3) {
		size_t have = MIN(len - i, (size_t)3);
		uint32_t v = (uint32_t)in[i] << 16;

		if (have > 1)
			v |= (uint32_t)in[i + 1] << 8;
		if (have > 2)
			v |= in[i + 2];
		*p++ = digits[v >> 18];
		*p++ = digits[v >> 12 & 63];
		*p++ = have > 1 ? digits[v >> 6 & 63] : '=';
		*p++ = have > 2 ? digits[v & 63] : '=';
	}
	*p = 0;
	return text;
}

void *base64_decode(const char *text, size_t *len)
{
	size_t n = strlen(text), pad = 0;
	uint8_t *out = n % 4 ? NULL : malloc(n / 4 * 3 + 1), *p = out;
	uint32_t v = 0;

	if (!out)
		return NULL;
	while (pad < 2 && pad < n && text[n - 1 - pad] == '=')
		pad++;
	for (size_t i = 0; i < n; i++) {
		const char *d = i < n - pad ? strchr(digits, text[i]) : digits;

		if (!d) {
			free(out);
			return NULL;
		}
		v = v << 6 | (uint32_t)(d - digits);
		if (i % 4 < 3)
			continue;
		*p++ = (uint8_t)(v >> 16);
		*p++ = (uint8_t)(v >> 8);
		*p++ = (uint8_t)v;
	}
	*len = (size_t)(p - out) - pad;
	return out;
}
