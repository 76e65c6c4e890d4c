/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bytes in JSON: base64 (RFC 4648). */
#ifndef UMBRA_API_BASE64_H
#define UMBRA_API_BASE64_H

#include "base/types.h"

/* A string to free, or NULL: no memory. */
char *base64_encode(const void *data, size_t len);
/* Bytes to free with their count in *@len, or NULL: malformed, or no memory. */
void *base64_decode(const char *text, size_t *len);

#endif
