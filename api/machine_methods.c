/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The methods about one machine that its umbra-vm serves and umbrad passes on: a row is all they
 * need besides a handler in struct api_machine_ops. */
#include "api/machine_ops.h"

#include "api/api.h"
#include "api/rows.h"

static const struct api_field one_name[] = {FIELD_NAME};
static const struct api_field long_name[] = {FIELD_NAME, FIELD_WAIT};
static const struct api_field any_result[] = {API_FIELD_ANY};

/* ---- memory, registers, a debugger ---- */

#define FIELD_LOOKED_AT                                                                            \
	{                                                                                          \
		.name = "vcpu", .type = API_INT, .min = 0, .max = 63, .dflt = "0",                 \
		.help = "the vCPU whose eyes are used"                                             \
	}
#define FIELD_GPA                                                                                  \
	{                                                                                          \
		.name = "gpa", .type = API_BOOL, .dflt = "false",                                  \
		.help = "the address is guest-physical, not linear"                                \
	}
#define RESULT_FAULT                                                                               \
	{                                                                                          \
		.name = "fault", .type = API_OBJECT,                                               \
		.help = "why it ends before what was asked for: {addr, why}"                       \
	}

static const struct api_field read_params[] = {
	FIELD_NAME,
	{.name = "addr", .type = API_ADDR, .required = true, .help = "the first byte's address"},
	{.name = "length",
	 .type = API_INT,
	 .min = 1,
	 .max = 65536,
	 .dflt = "64",
	 .help = "how many bytes"},
	FIELD_LOOKED_AT,
	FIELD_GPA,
};

static const struct api_field read_result[] = {
	{.name = "addr", .type = API_ADDR, .required = true, .help = "as asked"},
	{.name = "length",
	 .type = API_INT,
	 .min = 0,
	 .max = 65536,
	 .required = true,
	 .help = "how many bytes could be read"},
	{.name = "data", .type = API_STRING, .required = true, .help = "they, in base64"},
	RESULT_FAULT,
};

static const struct api_field disassemble_params[] = {
	FIELD_NAME,
	{.name = "addr",
	 .type = API_ADDR,
	 .required = true,
	 .help = "the first instruction's address"},
	{.name = "count",
	 .type = API_INT,
	 .min = 1,
	 .max = 256,
	 .dflt = "10",
	 .help = "how many instructions"},
	FIELD_LOOKED_AT,
	FIELD_GPA,
};

static const struct api_field disassemble_result[] = {
	{.name = "instructions",
	 .type = API_ANY,
	 .required = true,
	 .help = "an array of {addr, bytes, text}; bytes in hexadecimal"},
	RESULT_FAULT,
};

static const struct api_field registers_params[] = {
	FIELD_NAME,
	{.name = "vcpu",
	 .type = API_INT,
	 .min = 0,
	 .max = 63,
	 .dflt = "0",
	 .help = "the vCPU that is asked"},
	{.name = "all", .type = API_BOOL, .dflt = "false", .help = "every vCPU's"},
	{.name = "fpu", .type = API_BOOL, .dflt = "false", .help = "x87 and vector registers too"},
};

static const struct api_field sandbox_result[] = {
	{.name = "mode", .type = API_STRING, .required = true, .help = "auto, strict or off"},
	{.name = "uid", .type = API_INT, .min = 0, .max = UINT32_MAX, .help = "who its process is"},
	{.name = "parts", .type = API_ANY, .required = true, .help = "an array: what is in force"},
	{.name = "missing",
	 .type = API_ANY,
	 .required = true,
	 .help = "an array of {part, why}: what the host does not allow"},
	{.name = "landlock_abi",
	 .type = API_INT,
	 .min = 1,
	 .max = INT32_MAX,
	 .help = "the version of Landlock in force"},
	{.name = "violations",
	 .type = API_INT,
	 .min = 0,
	 .max = INT64_MAX,
	 .required = true,
	 .help = "system calls that were refused since the start"},
	{.name = "last_violation", .type = API_STRING, .help = "the last of them"},
};

static const struct api_field registers_result[] = {
	{.name = "vcpus",
	 .type = API_ANY,
	 .required = true,
	 .help = "an array of {vcpu, mode, cpl, paging, activity, general, segments, tables, "
		 "control, "
		 "debug, msrs, fpu}: groups of registers; where a register has flags, "
		 "\"NAME_bits\" "
		 "names those set"},
};

static const char *const gdb_archs[] = {"auto", "amd64", "i386", NULL};
static const struct api_field gdb_params[] = {
	FIELD_NAME,
	{.name = "arch",
	 .type = API_ENUM,
	 .choices = gdb_archs,
	 .dflt = "auto",
	 .help = "what gdb is to take the guest for; auto: by the mode its vCPUs are in now"},
};

/* ---- the MMU, inspected ---- */

#define FIELD_VCPU                                                                                 \
	{                                                                                          \
		.name = "vcpu", .type = API_INT, .min = 0, .max = 63, .dflt = "0",                 \
		.help = "the vCPU that is asked"                                                   \
	}
#define FIELD_LIMIT(most, dflt_)                                                                   \
	{                                                                                          \
		.name = "limit", .type = API_INT, .min = 1, .max = (most), .dflt = (dflt_),        \
		.help = "at most so many at once"                                                  \
	}
#define RESULT_VCPU                                                                                \
	{                                                                                          \
		.name = "vcpu", .type = API_INT, .min = 0, .max = 63, .required = true,            \
		.help = "the vCPU"                                                                 \
	}
#define RESULT_POLICY                                                                              \
	{                                                                                          \
		.name = "policy", .type = API_ENUM, .choices = policies_told, .required = true,    \
		.help = "the machine's policy"                                                     \
	}

/* Under kvm the tables below the guest's are the kernel's. */
#define RESULT_UNKNOWN                                                                             \
	{                                                                                          \
		.name = "unknown", .type = API_STRING, .help = "what of it only the kernel knows"  \
	}

static const char *const policies[] = {"shadow", "tdp", NULL};
/* With engine kvm it may be that only the kernel knows. */
static const char *const policies_told[] = {"shadow", "tdp", "unknown", NULL};
static const char *const pagings[] = {"none", "32-bit", "pae", "4-level", "5-level", "ept", NULL};
static const char *const formats[] = {"x86", "ept", "npt", NULL};

static const struct api_field walk_params[] = {
	FIELD_NAME,
	{.name = "addr", .type = API_ADDR, .required = true, .help = "the address to translate"},
	FIELD_VCPU,
	{.name = "gpa",
	 .type = API_BOOL,
	 .dflt = "false",
	 .help = "the address is guest-physical: leave the guest's tables out"},
	{.name = "nested",
	 .type = API_BOOL,
	 .dflt = "false",
	 .help = "the address is one of the guest's guest, which the vCPU runs now"},
};

static const struct api_field walk_result[] = {
	RESULT_VCPU,
	RESULT_POLICY,
	{.name = "addr", .type = API_ADDR, .required = true, .help = "what was asked for"},
	{.name = "kind",
	 .type = API_STRING,
	 .required = true,
	 .help = "what it is: \"gva\", \"gpa\" or \"ngva\""},
	{.name = "guest",
	 .type = API_OBJECT,
	 .help = "the walk of the guest's tables: {paging, cr3, steps: [{level, name, gpa, raw, "
		 "bits}], and gpa, page, access; or fault: {why, level, error_code}}"},
	{.name = "slot",
	 .type = API_OBJECT,
	 .help = "the memslot that the gpa is in: {id, gpa, size, hva, readonly}"},
	{.name = "gpa", .type = API_ADDR, .help = "where it ends in the guest's memory"},
	{.name = "hva", .type = API_ADDR, .help = "…and in umbra-vm's"},
	{.name = "hpa", .type = API_ADDR, .help = "…and in the host's, when that can be known"},
	{.name = "hpa_unknown", .type = API_STRING, .help = "why it cannot"},
	{.name = "tables",
	 .type = API_OBJECT,
	 .required = true,
	 .help = "the same through our tables: {format, root, steps: [{level, name, at, raw, "
		 "bits}], "
		 "state: present|mmio|empty|not-walked|by-gva|no-root|unknown, hva, agrees}"},
	{.name = "verdict", .type = API_STRING, .required = true, .help = "it in one sentence"},
	{.name = "bytes", .type = API_STRING, .help = "what lies there, in base64"},
};

static const struct api_field stat_result[] = {
	RESULT_POLICY,
	{.name = "time",
	 .type = API_NUMBER,
	 .min = 0,
	 .max = INT64_MAX,
	 .required = true,
	 .help = "seconds of the host's clock, for rates"},
	{.name = "schema",
	 .type = API_ANY,
	 .required = true,
	 .help = "an array of {name, type: cumulative|instant|peak|linear_hist|log_hist, unit: "
		 "none|bytes|ns|pages|seconds|cycles|boolean, of: vm|vcpu}; base and exponent "
		 "where the unit is not one but base^exponent, bucket_size of a linear_hist"},
	{.name = "vm", .type = API_OBJECT, .required = true, .help = "the machine's, by name"},
	{.name = "vcpus",
	 .type = API_ANY,
	 .required = true,
	 .help = "an array: each vCPU's, by name, and exits: {reason: count} (with engine kvm to "
		 "umbra-vm; the kernel's own count of exits is kernel_exits)"},
	{.name = "missing",
	 .type = API_STRING,
	 .help = "with engine kvm: why the kernel's counters are not there"},
};

static const char *const contexts[] = {"current", "walk", "root", "guest", "nested", NULL};
static const struct api_field context_params[] = {
	FIELD_NAME,
	FIELD_VCPU,
	{.name = "which",
	 .type = API_ENUM,
	 .choices = contexts,
	 .dflt = "current",
	 .help = "mmu or walk_mmu, as they point now; or root_mmu, guest_mmu or nested_mmu"},
};

static const struct api_field context_result[] = {
	RESULT_VCPU,
	RESULT_POLICY,
	{.name = "which",
	 .type = API_ENUM,
	 .choices = contexts,
	 .required = true,
	 .help = "as asked"},
	{.name = "page_fault", .type = API_STRING, .help = "an operation's name"},
	{.name = "gva_to_gpa", .type = API_STRING, .required = true, .help = "an operation's name"},
	{.name = "paging",
	 .type = API_ENUM,
	 .choices = pagings,
	 .required = true,
	 .help = "how the guest's tables are read"},
	{.name = "format", .type = API_ENUM, .choices = formats, .help = "of our tables"},
	{.name = "direct", .type = API_BOOL, .help = "gpa to host: no guest table"},
	{.name = "root_hpa", .type = API_ADDR, .help = "our topmost table; absent without a root"},
	{.name = "root_level",
	 .type = API_INT,
	 .min = 0,
	 .max = 5,
	 .required = true,
	 .help = "levels of the guest's walk"},
	{.name = "shadow_root_level",
	 .type = API_INT,
	 .min = 0,
	 .max = 5,
	 .help = "levels of our tables"},
	{.name = "root_role", .type = API_OBJECT, .help = "the root's role, decoded, and the word"},
	{.name = "cpu_role",
	 .type = API_OBJECT,
	 .required = true,
	 .help = "what decides on an access beside the tables"},
	{.name = "cr3", .type = API_ADDR, .required = true, .help = "the guest's (or its EPTP)"},
	{.name = "pdptr",
	 .type = API_ANY,
	 .help = "with PAE paging: the four PDPTEs in the registers"},
	{.name = "pae_root", .type = API_ANY, .help = "32-bit guests: our four level-2 tables"},
	{.name = "rsvd_bits",
	 .type = API_ANY,
	 .required = true,
	 .help = "reserved bits of a guest entry: [bit 7 clear: [level 1, …], bit 7 set: […]]"},
	{.name = "needs_load",
	 .type = API_BOOL,
	 .help = "a root is to be found before the next entry"},
	RESULT_UNKNOWN,
};

static const struct api_field slots_result[] = {
	{.name = "slots",
	 .type = API_ANY,
	 .required = true,
	 .help = "an array of {id, gpa, size, hva, readonly, watchers, windows, pages_2m, "
		 "pages_1g: "
		 "{may, all, aligned}, mapped: {4k, 2m, 1g}}"},
	RESULT_UNKNOWN,
};

static const struct api_field roots_params[] = {
	FIELD_NAME,
	{.name = "vcpu", .type = API_INT, .min = 0, .max = 63, .help = "only this vCPU's"},
};

static const struct api_field roots_result[] = {
	{.name = "roots",
	 .type = API_ANY,
	 .required = true,
	 .help = "an array of {vcpu, current, obsolete, of: root_mmu|guest_mmu, cr3, hpa, level, "
		 "role}"},
	RESULT_UNKNOWN,
};

static const struct api_field pages_params[] = {
	FIELD_NAME,
	{.name = "from",
	 .type = API_INT,
	 .min = 0,
	 .max = UINT32_MAX,
	 .dflt = "0",
	 .help = "the first block: \"next\" of the answer before"},
	FIELD_LIMIT(4096, "1024"),
	{.name = "level", .type = API_INT, .min = 1, .max = 5, .help = "only tables of this level"},
	{.name = "gfn", .type = API_ADDR, .help = "only those that stand for this frame"},
	{.name = "paging",
	 .type = API_ENUM,
	 .choices = pagings,
	 .help = "only those whose guest tables are of this form"},
	{.name = "direct", .type = API_BOOL, .help = "only those with (or without) direct"},
	{.name = "unsync", .type = API_BOOL, .help = "only those out of step (or in step)"},
	{.name = "invalid",
	 .type = API_BOOL,
	 .help = "only those zapped and still some root (or not)"},
	{.name = "root", .type = API_BOOL, .help = "only those that are roots (or are not)"},
};

static const struct api_field pages_result[] = {
	{.name = "pages",
	 .type = API_ANY,
	 .required = true,
	 .help = "an array of {block, hpa, gfn, role, roots, parents, present, unsync, "
		 "unsync_children, "
		 "flood, invalid, frame, users, slots}"},
	{.name = "next",
	 .type = API_INT,
	 .min = 0,
	 .max = UINT32_MAX,
	 .help = "the next call's \"from\"; absent at the end"},
	{.name = "total",
	 .type = API_INT,
	 .min = 0,
	 .max = UINT32_MAX,
	 .required = true,
	 .help = "table pages in use, filters aside"},
	RESULT_UNKNOWN,
};

static const struct api_field rmap_params[] = {
	FIELD_NAME,
	{.name = "gfn", .type = API_ADDR, .required = true, .help = "the guest frame's number"},
	{.name = "from",
	 .type = API_INT,
	 .min = 0,
	 .max = INT32_MAX,
	 .dflt = "0",
	 .help = "skip so many"},
	FIELD_LIMIT(4096, "256"),
};

static const struct api_field rmap_result[] = {
	{.name = "gfn", .type = API_ADDR, .required = true, .help = "as asked"},
	{.name = "slot",
	 .type = API_INT,
	 .min = 0,
	 .max = 511,
	 .required = true,
	 .help = "its memslot"},
	{.name = "hva", .type = API_ADDR, .required = true, .help = "the frame in umbra-vm"},
	{.name = "sptes",
	 .type = API_ANY,
	 .required = true,
	 .help = "an array of {level, at, raw, bits, table: {gfn, role}, index}"},
	{.name = "next",
	 .type = API_INT,
	 .min = 0,
	 .max = INT32_MAX,
	 .help = "the next call's \"from\"; absent at the end"},
	RESULT_UNKNOWN,
};

static const struct api_field map_params[] = {
	FIELD_NAME,
	FIELD_VCPU,
	{.name = "from", .type = API_ADDR, .dflt = "0x0", .help = "the first address"},
	FIELD_LIMIT(4096, "512"),
};

static const struct api_field map_result[] = {
	RESULT_VCPU,
	{.name = "cr3", .type = API_ADDR, .required = true, .help = "whose tables these are"},
	{.name = "paging",
	 .type = API_ENUM,
	 .choices = pagings,
	 .required = true,
	 .help = "their form"},
	{.name = "ranges",
	 .type = API_ANY,
	 .required = true,
	 .help = "an array of {start, end, gpa, access, page, memory}; end is the last byte"},
	{.name = "next", .type = API_ADDR, .help = "the next call's \"from\"; absent at the end"},
};

static const char *const trace_what[] = {"off", "faults", "exits", "all", NULL};
static const struct api_field trace_params[] = {
	FIELD_NAME,
	{.name = "what",
	 .type = API_ENUM,
	 .choices = trace_what,
	 .help = "begin to trace that, or stop; absent: go on as it is"},
	{.name = "since",
	 .type = API_INT,
	 .min = 0,
	 .max = INT64_MAX,
	 .help = "events after this number; absent: only what comes from now on"},
	{.name = "max",
	 .type = API_INT,
	 .min = 1,
	 .max = 4096,
	 .dflt = "1024",
	 .help = "at most so many at once"},
	{.name = "vcpu", .type = API_INT, .min = 0, .max = 63, .help = "only this vCPU's"},
	{.name = "result", .type = API_STRING, .max = 32, .help = "only faults with this result"},
	{.name = "reason", .type = API_STRING, .max = 32, .help = "only exits with this reason"},
	{.name = "start", .type = API_ADDR, .dflt = "0x0", .help = "only addresses from here on"},
	{.name = "end", .type = API_ADDR, .help = "…up to here, inclusive"},
};

static const struct api_field trace_result[] = {
	{.name = "what",
	 .type = API_ENUM,
	 .choices = trace_what,
	 .required = true,
	 .help = "traced now"},
	{.name = "events",
	 .type = API_ANY,
	 .required = true,
	 .help = "an array of {seq, kind: fault, vcpu, addr, access, result, gpa, …} and {seq, "
		 "kind: "
		 "exit, vcpu, reason, rip, addr, info, icount}"},
	{.name = "next",
	 .type = API_INT,
	 .min = 0,
	 .max = INT64_MAX,
	 .required = true,
	 .help = "the next call's \"since\""},
	{.name = "lost",
	 .type = API_INT,
	 .min = 0,
	 .max = INT64_MAX,
	 .required = true,
	 .help = "events between \"since\" and the first kept that are gone"},
};

static const struct api_field audit_result[] = {
	{.name = "violations",
	 .type = API_INT,
	 .min = 0,
	 .max = UINT32_MAX,
	 .required = true,
	 .help = "how many invariants do not hold"},
	{.name = "first", .type = API_STRING, .help = "the first of them"},
	{.name = "pages",
	 .type = API_INT,
	 .min = 0,
	 .max = UINT32_MAX,
	 .required = true,
	 .help = "table pages that were looked at"},
	RESULT_UNKNOWN,
};

static const struct api_field policy_params[] = {
	FIELD_NAME,
	{.name = "policy",
	 .type = API_ENUM,
	 .choices = policies,
	 .help = "switch to this one; absent: only tell"},
};

static const struct api_field policy_result[] = {
	RESULT_POLICY,
	{.name = "was",
	 .type = API_ENUM,
	 .choices = policies_told,
	 .required = true,
	 .help = "before"},
	{.name = "kernel",
	 .type = API_OBJECT,
	 .help = "with engine kvm what is known of the kernel's MMU: module, form (shadow, ept, "
		 "npt), nested, tdp_mmu, ad_bits, pml, eager_split, mmio_caching, nx_huge_pages, "
		 "large_pages, spte; \"unknown\" where only the kernel knows"},
};

static const char *const engines[] = {"soft", "kvm", NULL};

static const struct api_field set_engine_params[] = {
	FIELD_NAME,
	{.name = "engine",
	 .type = API_ENUM,
	 .choices = engines,
	 .help = "go on with this one; absent: only tell"},
	{.name = "anyway",
	 .type = API_BOOL,
	 .help = "also where CPUID then shows the guest another processor, or its TSC leaps"},
	FIELD_WAIT,
};

static const struct api_field set_engine_result[] = {
	{.name = "engine",
	 .type = API_ENUM,
	 .choices = engines,
	 .required = true,
	 .help = "what runs its virtual CPUs now"},
	{.name = "was", .type = API_ENUM, .choices = engines, .required = true, .help = "before"},
	{.name = "cpuid",
	 .type = API_STRING,
	 .required = true,
	 .help = "what CPUID shows the guest otherwise now; empty: nothing"},
	{.name = "differences",
	 .type = API_ANY,
	 .required = true,
	 .help = "an array of {what, was, is}: registers and devices that came through otherwise"},
	{.name = "seconds",
	 .type = API_NUMBER,
	 .min = 0,
	 .max = INT32_MAX,
	 .required = true,
	 .help = "how long it took"},
};

#define HANDLER(op)                                                                                \
	.handler = offsetof(struct api_machine_ops, op), .flags = API_M_MACHINE, .since = "0.1"
/* With further flags. */
#define HANDLER_FLAGS(op, more)                                                                    \
	.handler = offsetof(struct api_machine_ops, op), .flags = API_M_MACHINE | (more),          \
	.since = "0.1"

static const struct api_method rows[] = {
	{.name = "machine.pause",
	 .summary = "Pause a machine.",
	 P(one_name),
	 NO_RESULT,
	 .access = API_OPERATE,
	 HANDLER(machine_pause)},
	{.name = "machine.resume",
	 .summary = "Let a paused machine go on.",
	 P(one_name),
	 NO_RESULT,
	 .access = API_OPERATE,
	 HANDLER(machine_resume)},
	{.name = "machine.reset",
	 .summary = "Reset a machine as its reset button would.",
	 P(one_name),
	 NO_RESULT,
	 .access = API_OPERATE,
	 HANDLER(machine_reset)},
	{.name = "machine.stats",
	 .summary = "Show a running machine's counters.",
	 P(one_name),
	 R(any_result),
	 .access = API_READ,
	 HANDLER(machine_stats)},
	{.name = "machine.sandbox",
	 .summary = "Show what a running machine's process has given up, and what it was refused.",
	 P(one_name),
	 R(sandbox_result),
	 .access = API_READ,
	 HANDLER(machine_sandbox)},
	{.name = "machine.read",
	 .summary = "Read guest memory, by linear or by guest-physical address.",
	 P(read_params),
	 R(read_result),
	 .access = API_OPERATE,
	 HANDLER(machine_read)},
	{.name = "machine.disassemble",
	 .summary = "Disassemble guest memory, in the mode that a vCPU is in.",
	 P(disassemble_params),
	 R(disassemble_result),
	 .access = API_OPERATE,
	 HANDLER(machine_disassemble)},
	{.name = "machine.registers",
	 .summary = "Show the registers of a vCPU, or of all.",
	 P(registers_params),
	 R(registers_result),
	 .access = API_OPERATE,
	 HANDLER(machine_registers)},
	{.name = "machine.gdb",
	 .summary =
		 "Attach a debugger, which stops the machine: GDB's remote protocol on a socket.",
	 P(gdb_params),
	 NO_RESULT,
	 .access = API_OPERATE,
	 HANDLER_FLAGS(machine_gdb, API_M_FD_OUT)},
	{.name = "mmu.walk",
	 .summary = "Follow an address from the guest's tables to the host, and through ours.",
	 P(walk_params),
	 R(walk_result),
	 .access = API_READ,
	 HANDLER(mmu_walk)},
	{.name = "mmu.stat",
	 .summary = "Show the MMU's counters, with what each counts.",
	 P(one_name),
	 R(stat_result),
	 .access = API_READ,
	 HANDLER(mmu_stat)},
	{.name = "mmu.context",
	 .summary = "Show a vCPU's MMU context: operations, root, levels, role, reserved bits.",
	 P(context_params),
	 R(context_result),
	 .access = API_READ,
	 HANDLER(mmu_context)},
	{.name = "mmu.slots",
	 .summary = "Show the memslots, and where large pages may map them.",
	 P(one_name),
	 R(slots_result),
	 .access = API_READ,
	 HANDLER(mmu_slots)},
	{.name = "mmu.roots",
	 .summary = "Show the roots of the vCPUs, in use and cached.",
	 P(roots_params),
	 R(roots_result),
	 .access = API_READ,
	 HANDLER(mmu_roots)},
	{.name = "mmu.pages",
	 .summary = "Show the table pages that we built, each with its role.",
	 P(pages_params),
	 R(pages_result),
	 .access = API_READ,
	 HANDLER(mmu_pages)},
	{.name = "mmu.rmap",
	 .summary = "Show every entry of ours that maps a guest frame.",
	 P(rmap_params),
	 R(rmap_result),
	 .access = API_READ,
	 HANDLER(mmu_rmap)},
	{.name = "mmu.map",
	 .summary = "Show a vCPU's linear address space as ranges with permissions.",
	 P(map_params),
	 R(map_result),
	 .access = API_READ,
	 HANDLER(mmu_map)},
	{.name = "mmu.trace",
	 .summary = "Show faults and exits as they happen.",
	 P(trace_params),
	 R(trace_result),
	 .access = API_OPERATE,
	 HANDLER(mmu_trace)},
	{.name = "mmu.audit",
	 .summary = "Check every invariant of the MMU's structures.",
	 P(long_name),
	 R(audit_result),
	 .access = API_OPERATE,
	 HANDLER_FLAGS(mmu_audit, API_M_LONG)},
	{.name = "machine.set_engine",
	 .summary = "Tell a machine's engine, or let it go on with the other one.",
	 P(set_engine_params),
	 R(set_engine_result),
	 .access = API_OPERATE,
	 HANDLER_FLAGS(machine_set_engine, API_M_LONG)},
	{.name = "mmu.policy",
	 .summary = "Tell a machine's policy, or switch it while the machine runs.",
	 P(policy_params),
	 R(policy_result),
	 .access = API_OPERATE,
	 HANDLER(mmu_policy)},
};

const struct api_table api_machine_methods = {
	.m = rows,
	.n = ARRAY_SIZE(rows),
	.more = &api_dirty_methods,
};
