/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Names of registers and of their bits (SDM 3A 2.3, 2.5, 2.6, 17.2; SDM 4, EFER; SDM 1 10.2.3). */
#include "vm/reg_names.h"

const char *const reg_gpr_names[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
				       "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
const char *const reg_seg_names[6] = {"es", "cs", "ss", "ds", "fs", "gs"};

const struct reg_bit reg_rflags_bits[] = {
	{"CF", 0},  {"PF", 2},	 {"AF", 4},   {"ZF", 6},  {"SF", 7},  {"TF", 8},
	{"IF", 9},  {"DF", 10},	 {"OF", 11},  {"NT", 14}, {"RF", 16}, {"VM", 17},
	{"AC", 18}, {"VIF", 19}, {"VIP", 20}, {"ID", 21}, {NULL, 0},
};

const struct reg_bit reg_cr0_bits[] = {
	{"PE", 0},  {"MP", 1},	{"EM", 2},  {"TS", 3},	{"ET", 4},  {"NE", 5},
	{"WP", 16}, {"AM", 18}, {"NW", 29}, {"CD", 30}, {"PG", 31}, {NULL, 0},
};

const struct reg_bit reg_cr4_bits[] = {
	{"VME", 0},	    {"PVI", 1},	   {"TSD", 2},	    {"DE", 3},	  {"PSE", 4},
	{"PAE", 5},	    {"MCE", 6},	   {"PGE", 7},	    {"PCE", 8},	  {"OSFXSR", 9},
	{"OSXMMEXCPT", 10}, {"UMIP", 11},  {"LA57", 12},    {"VMXE", 13}, {"SMXE", 14},
	{"FSGSBASE", 16},   {"PCIDE", 17}, {"OSXSAVE", 18}, {"SMEP", 20}, {"SMAP", 21},
	{"PKE", 22},	    {"CET", 23},   {"PKS", 24},	    {NULL, 0},
};

const struct reg_bit reg_efer_bits[] = {
	{"SCE", 0}, {"LME", 8}, {"LMA", 10}, {"NX", 11}, {"SVME", 12}, {"FFXSR", 14}, {NULL, 0},
};

const struct reg_bit reg_xcr0_bits[] = {{"X87", 0}, {"SSE", 1}, {"AVX", 2}, {"PKRU", 9}, {NULL, 0}};

const struct reg_bit reg_dr6_bits[] = {
	{"B0", 0}, {"B1", 1}, {"B2", 2}, {"B3", 3}, {"BD", 13}, {"BS", 14}, {"BT", 15}, {NULL, 0},
};

const struct reg_bit reg_dr7_bits[] = {
	{"L0", 0}, {"G0", 1}, {"L1", 2}, {"G1", 3}, {"L2", 4},	{"G2", 5},
	{"L3", 6}, {"G3", 7}, {"LE", 8}, {"GE", 9}, {"GD", 13}, {NULL, 0},
};

const struct reg_bit reg_mxcsr_bits[] = {
	{"IE", 0}, {"DE", 1}, {"ZE", 2},  {"OE", 3},  {"UE", 4},  {"PE", 5},  {"DAZ", 6}, {"IM", 7},
	{"DM", 8}, {"ZM", 9}, {"OM", 10}, {"UM", 11}, {"PM", 12}, {"FZ", 15}, {NULL, 0},
};
