/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The checksum of all firmware tables. */
#ifndef UMBRA_VM_CHECKSUM_H
#define UMBRA_VM_CHECKSUM_H

#include "base/types.h"

/* The byte that makes the sum of all bytes zero; the checksum's own place holds zero meanwhile. */
static inline uint8_t checksum8(const void *data, size_t len)
{
	const uint8_t *p = data;
	uint8_t sum = 0;

	while (len--)
		sum = (uint8_t)(sum + *p++);
	return (uint8_t)-sum;
}

#endif
