/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The debug console's bytes, amid ones to port 0x80 that may be gathered: none goes, none stays. */
#include "kit/kit.h"

#define DEBUGCON 0xe9
#define POST	 0x80
#define BYTES	 20000 /* more than any ring holds */

int payload(const char *cmdline)
{
	for (unsigned n = 0; n < BYTES; n++) {
		char c = n % 64 == 63 ? '\n' : (char)('a' + n % 26);

		kit_outb(DEBUGCON, (uint8_t)c);
		kit_outb(POST, (uint8_t)c);
		kit_outb(POST, (uint8_t)c);
		if (n % 1000 == 0) /* an exit amid them */
			kit_check(kit_in(DEBUGCON) >> 8 == 0xffffff, "the byte is the console's");
	}
	for (const char *c = "and nothing leaves after this\n"; *c; c++)
		kit_outb(DEBUGCON, (uint8_t)*c);
	for (;;)
		asm volatile("cli; hlt");
}
