/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The debug console's bytes, which may be gathered on their way, and must neither go nor stay. */
#include "kit/kit.h"

#define DEBUGCON 0xe9
#define BYTES	 20000 /* more than any ring holds */

int payload(const char *cmdline)
{
	for (unsigned n = 0; n < BYTES; n++) {
		char c = n % 64 == 63 ? '\n' : (char)('a' + n % 26);

		asm volatile("outb %0, %1" ::"a"(c), "Nd"((uint16_t)DEBUGCON));
		if (n % 1000 == 0) /* an exit amid them */
			kit_check(kit_in(DEBUGCON) >> 8 == 0xffffff, "the byte is the console's");
	}
	for (const char *c = "and nothing leaves after this\n"; *c; c++)
		asm volatile("outb %0, %1" ::"a"(*c), "Nd"((uint16_t)DEBUGCON));
	for (;;)
		asm volatile("cli; hlt");
}
