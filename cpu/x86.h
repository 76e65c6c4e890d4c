/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The architecture's numbers: flags, control registers, vectors, segment attributes, MSRs (SDM 3A,
 * 4). */
#ifndef UMBRA_CPU_X86_H
#define UMBRA_CPU_X86_H

#include "base/types.h"

enum {
	X86_RAX,
	X86_RCX,
	X86_RDX,
	X86_RBX,
	X86_RSP,
	X86_RBP,
	X86_RSI,
	X86_RDI,
	X86_R8,
	X86_R9,
	X86_R10,
	X86_R11,
	X86_R12,
	X86_R13,
	X86_R14,
	X86_R15,
};
enum { X86_ES, X86_CS, X86_SS, X86_DS, X86_FS, X86_GS };

#define X86_FLAG_CF   BIT(0)
#define X86_FLAG_ONE  BIT(1) /* always set */
#define X86_FLAG_PF   BIT(2)
#define X86_FLAG_AF   BIT(4)
#define X86_FLAG_ZF   BIT(6)
#define X86_FLAG_SF   BIT(7)
#define X86_FLAG_TF   BIT(8)
#define X86_FLAG_IF   BIT(9)
#define X86_FLAG_DF   BIT(10)
#define X86_FLAG_OF   BIT(11)
#define X86_FLAG_IOPL (BIT(12) | BIT(13))
#define X86_FLAG_NT   BIT(14)
#define X86_FLAG_RF   BIT(16)
#define X86_FLAG_VM   BIT(17)
#define X86_FLAG_AC   BIT(18)
#define X86_FLAG_VIF  BIT(19)
#define X86_FLAG_VIP  BIT(20)
#define X86_FLAG_ID   BIT(21)
#define X86_FLAGS_ARITH                                                                            \
	(X86_FLAG_CF | X86_FLAG_PF | X86_FLAG_AF | X86_FLAG_ZF | X86_FLAG_SF | X86_FLAG_OF)

#define X86_CR0_PE BIT(0)
#define X86_CR0_MP BIT(1)
#define X86_CR0_EM BIT(2)
#define X86_CR0_TS BIT(3)
#define X86_CR0_ET BIT(4)
#define X86_CR0_NE BIT(5)
#define X86_CR0_WP BIT(16)
#define X86_CR0_AM BIT(18)
#define X86_CR0_NW BIT(29)
#define X86_CR0_CD BIT(30)
#define X86_CR0_PG BIT(31)

#define X86_CR3_PCID_MASK 0xfffull
#define X86_CR3_NOFLUSH	  BIT(63)

#define X86_CR4_VME	   BIT(0)
#define X86_CR4_PVI	   BIT(1)
#define X86_CR4_TSD	   BIT(2)
#define X86_CR4_DE	   BIT(3)
#define X86_CR4_PSE	   BIT(4)
#define X86_CR4_PAE	   BIT(5)
#define X86_CR4_MCE	   BIT(6)
#define X86_CR4_PGE	   BIT(7)
#define X86_CR4_PCE	   BIT(8)
#define X86_CR4_OSFXSR	   BIT(9)
#define X86_CR4_OSXMMEXCPT BIT(10)
#define X86_CR4_UMIP	   BIT(11)
#define X86_CR4_LA57	   BIT(12)
#define X86_CR4_VMXE	   BIT(13)
#define X86_CR4_SMXE	   BIT(14)
#define X86_CR4_FSGSBASE   BIT(16)
#define X86_CR4_PCIDE	   BIT(17)
#define X86_CR4_OSXSAVE	   BIT(18)
#define X86_CR4_SMEP	   BIT(20)
#define X86_CR4_SMAP	   BIT(21)
#define X86_CR4_PKE	   BIT(22)

#define X86_EFER_SCE BIT(0)
#define X86_EFER_LME BIT(8)
#define X86_EFER_LMA BIT(10)
#define X86_EFER_NXE BIT(11)

#define X86_XCR0_X87  BIT(0)
#define X86_XCR0_SSE  BIT(1)
#define X86_XCR0_AVX  BIT(2)
#define X86_XCR0_PKRU BIT(9)

enum {
	X86_VEC_DE = 0,
	X86_VEC_DB = 1,
	X86_VEC_NMI = 2,
	X86_VEC_BP = 3,
	X86_VEC_OF = 4,
	X86_VEC_BR = 5,
	X86_VEC_UD = 6,
	X86_VEC_NM = 7,
	X86_VEC_DF = 8,
	X86_VEC_TS = 10,
	X86_VEC_NP = 11,
	X86_VEC_SS = 12,
	X86_VEC_GP = 13,
	X86_VEC_PF = 14,
	X86_VEC_MF = 16,
	X86_VEC_AC = 17,
	X86_VEC_MC = 18,
	X86_VEC_XM = 19,
};

/* #PF error code */
#define X86_PF_P    BIT(0)
#define X86_PF_W    BIT(1)
#define X86_PF_U    BIT(2)
#define X86_PF_RSVD BIT(3)
#define X86_PF_I    BIT(4)
#define X86_PF_PK   BIT(5)

/* struct cpu_seg.attr */
#define X86_ATTR_TYPE	   0xfu
#define X86_ATTR_A	   0x1u /* accessed */
#define X86_ATTR_RW	   0x2u /* data: writable; code: readable */
#define X86_ATTR_EC	   0x4u /* data: expand-down; code: conforming */
#define X86_ATTR_CODE	   0x8u
#define X86_ATTR_S	   0x10u
#define X86_ATTR_DPL	   0x60u
#define X86_ATTR_DPL_SHIFT 5
#define X86_ATTR_P	   0x80u
#define X86_ATTR_AVL	   0x1000u
#define X86_ATTR_L	   0x2000u
#define X86_ATTR_DB	   0x4000u
#define X86_ATTR_G	   0x8000u
#define X86_ATTR_UNUSABLE  0x10000u

#define X86_DR6_FIXED 0xffff0ff0ull
#define X86_DR6_BS    BIT(14)
#define X86_DR6_BT    BIT(15)
#define X86_DR6_BD    BIT(13)
#define X86_DR7_FIXED 0x400ull
#define X86_DR7_GD    BIT(13)

#define X86_MSR_TSC		  0x10u
#define X86_MSR_PLATFORM_ID	  0x17u
#define X86_MSR_APIC_BASE	  0x1bu
#define X86_MSR_FEATURE_CONTROL	  0x3au
#define X86_MSR_TSC_ADJUST	  0x3bu
#define X86_MSR_SPEC_CTRL	  0x48u
#define X86_MSR_PRED_CMD	  0x49u
#define X86_MSR_BIOS_SIGN_ID	  0x8bu
#define X86_MSR_MTRRCAP		  0xfeu
#define X86_MSR_ARCH_CAPABILITIES 0x10au
#define X86_MSR_SYSENTER_CS	  0x174u
#define X86_MSR_SYSENTER_ESP	  0x175u
#define X86_MSR_SYSENTER_EIP	  0x176u
#define X86_MSR_MCG_CAP		  0x179u
#define X86_MSR_MCG_STATUS	  0x17au
#define X86_MSR_MISC_ENABLE	  0x1a0u
#define X86_MSR_DEBUGCTL	  0x1d9u
#define X86_MSR_MTRR_PHYSBASE0	  0x200u
#define X86_MSR_MTRR_FIX64K	  0x250u
#define X86_MSR_MTRR_FIX16K_0	  0x258u
#define X86_MSR_MTRR_FIX4K_0	  0x268u
#define X86_MSR_PAT		  0x277u
#define X86_MSR_MTRR_DEF_TYPE	  0x2ffu
#define X86_MSR_TSC_DEADLINE	  0x6e0u
#define X86_MSR_X2APIC_FIRST	  0x800u
#define X86_MSR_X2APIC_LAST	  0x8ffu
#define X86_MSR_XSS		  0xda0u
#define X86_MSR_EFER		  0xc0000080u
#define X86_MSR_STAR		  0xc0000081u
#define X86_MSR_LSTAR		  0xc0000082u
#define X86_MSR_CSTAR		  0xc0000083u
#define X86_MSR_FMASK		  0xc0000084u
#define X86_MSR_FS_BASE		  0xc0000100u
#define X86_MSR_GS_BASE		  0xc0000101u
#define X86_MSR_KERNEL_GS_BASE	  0xc0000102u
#define X86_MSR_TSC_AUX		  0xc0000103u

#define X86_PAT_RESET 0x0007040600070406ull

#endif
