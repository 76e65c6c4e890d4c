/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Leaves through isa-debug-exit with the value 3. */
#include "payload.inc"

main:
	mov $3, %eax
	out %eax, $DEBUG_EXIT
	ud2
