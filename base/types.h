/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Addresses, and the few macros that every folder uses. */
#ifndef UMBRA_BASE_TYPES_H
#define UMBRA_BASE_TYPES_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The kernel's words (Documentation/virt/kvm/x86/mmu.rst). All are byte addresses, except frames.
 */
typedef uint64_t gva_t; /* guest virtual (linear) */
typedef uint64_t gpa_t; /* guest physical */
typedef uint64_t gfn_t; /* guest frame number: gpa >> 12 */
typedef uint64_t hva_t; /* host virtual, in the VM process */
typedef uint64_t hpa_t; /* what our tables hold; by our convention the hva (see DESIGN.md) */
typedef uint64_t pfn_t; /* hpa >> 12 */

#define PAGE_SHIFT 12
#define PAGE_SIZE  (1ull << PAGE_SHIFT)
#define PAGE_MASK  (~(PAGE_SIZE - 1))

#define BIT(n) (1ull << (n))
/* Bits hi..lo set, both included. */
#define BITS(hi, lo) ((~0ull >> (63 - (hi))) & ~(BIT(lo) - 1))

#define KIB(n) ((uint64_t)(n) << 10)
#define MIB(n) ((uint64_t)(n) << 20)
#define GIB(n) ((uint64_t)(n) << 30)

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)                                                                                  \
	({                                                                                         \
		__typeof__(a) min_a_ = (a);                                                        \
		__typeof__(b) min_b_ = (b);                                                        \
		min_a_ < min_b_ ? min_a_ : min_b_;                                                 \
	})
#define MAX(a, b)                                                                                  \
	({                                                                                         \
		__typeof__(a) max_a_ = (a);                                                        \
		__typeof__(b) max_b_ = (b);                                                        \
		max_a_ > max_b_ ? max_a_ : max_b_;                                                 \
	})
#define ALIGN_DOWN(x, a) ((x) & ~((__typeof__(x))(a)-1))
#define ALIGN_UP(x, a)	 ALIGN_DOWN((x) + (a)-1, a)

#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#endif
