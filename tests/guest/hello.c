/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* In a guest: a process that says where its string lies, and then runs on. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* Code and read-only data, as a compiler lays them out, and a page that was never touched. */
static const char text[] = "Hello, world";

int main(int argc, char **argv)
{
	volatile unsigned long turns = 0;
	char *heap = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (heap == MAP_FAILED)
		return 1;
	snprintf(heap, 64, "Hello, heap of %d", getpid());
	printf("%s: text %p heap %p untouched %p pid %d\n", text, (const void *)text, (void *)heap,
	       (void *)(heap + 4096), getpid());
	fflush(stdout);
	/* It stays in user mode, so its CR3 is the vCPU's but for interrupts. */
	for (;;)
		turns++;
}
