/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a machine is: its definition, one checker for vmctl, umbrad and umbra-vm. */
#ifndef UMBRA_API_MACHINE_DEF_H
#define UMBRA_API_MACHINE_DEF_H

#include "api/schema.h"

enum machine_engine { MACHINE_ENGINE_AUTO, MACHINE_ENGINE_SOFT, MACHINE_ENGINE_KVM };
enum machine_irqchip { MACHINE_IRQCHIP_AUTO, MACHINE_IRQCHIP_KERNEL, MACHINE_IRQCHIP_SPLIT };
/* The host's word on /dev/kvm (umbrad.conf), no part of a definition: engine "auto" takes it where
 * the processor has virtualization, or wherever it is; or no machine may use it. */
enum machine_kvm_use { MACHINE_KVM_HARDWARE, MACHINE_KVM_ALWAYS, MACHINE_KVM_NEVER };
enum machine_mmu { MACHINE_MMU_AUTO, MACHINE_MMU_SHADOW, MACHINE_MMU_TDP };
enum machine_tdp_format { MACHINE_TDP_EPT, MACHINE_TDP_NPT };
enum machine_mmu_page { MACHINE_MMU_PAGE_1G, MACHINE_MMU_PAGE_2M, MACHINE_MMU_PAGE_4K };
enum machine_clock { MACHINE_CLOCK_HOST, MACHINE_CLOCK_INSTRUCTIONS };
enum machine_boot {
	MACHINE_BOOT_AUTO,
	MACHINE_BOOT_PAYLOAD, /* a bzImage's payload, unpacked by the host */
	MACHINE_BOOT_BZIMAGE, /* a bzImage that unpacks itself */
	MACHINE_BOOT_PVH,
	MACHINE_BOOT_MULTIBOOT,
};
enum machine_on_reset { MACHINE_RESET_END, MACHINE_RESET_RESTART };
enum machine_restart { MACHINE_RESTART_NEVER, MACHINE_RESTART_ON_FAILURE, MACHINE_RESTART_ALWAYS };
enum machine_on_hang { MACHINE_HANG_REPORT, MACHINE_HANG_KILL };
enum machine_sandbox { MACHINE_SANDBOX_AUTO, MACHINE_SANDBOX_STRICT, MACHINE_SANDBOX_OFF };

#define MACHINE_CPUS_MAX    64
#define MACHINE_MEMORY_MIN  MIB(2)
#define MACHINE_MEMORY_MAX  GIB(1024)
#define MACHINE_MODULES_MAX 32
#define MACHINE_CMDLINE_MAX 65535
#define MACHINE_CPU_MAX	    1023
#define MACHINE_RING_MAX    65536

/* All strings are owned; NULL where the definition does not have them. @kernel and @name are never
 * NULL after machine_def_parse(). */
struct machine_def {
	char *name;
	char *kernel, *initrd, *cmdline;
	char *cpu;		    /* changes of the processor model; NULL: none */
	struct api_strings modules; /* JSON "module" */
	uint64_t memory;	    /* bytes, a multiple of 4 KiB */
	int64_t cpus;
	int engine; /* enum machine_engine, and so on: int, as the schema loads it */
	int irqchip;
	int64_t dirty_ring; /* entries a vCPU, a power of two; 0: a bitmap */
	bool kvm_help;	    /* what the kernel cannot carry out our processor does */
	int mmu;
	int tdp_format;
	int mmu_max_page;
	char *mmu_disable;   /* names of mechanisms, parted by commas; NULL: none */
	uint64_t mmu_tables; /* bytes; 0: by the size of the RAM */
	int clock;
	int boot;
	int on_reset;
	double timeout; /* seconds of running before the machine is ended; 0: never */
	int restart;	/* what follows an end that nobody asked for */
	int on_hang;	/* what follows when umbra-vm does not answer */
	bool autostart; /* when the host, or the user's first umbrad, starts */
	int64_t start_order;
	int sandbox; /* what umbra-vm gives up: vm/sandbox.h */
	bool core;
	/* Of the control group that umbrad makes for umbra-vm; 0: no bound. */
	uint64_t limit_memory; /* bytes, all of the process: RAM, tables, caches */
	double limit_cpus;     /* processors' worth of time */
	int64_t limit_io;      /* weight, 1 to 10000 beside others' 100 */
	int64_t limit_pids;    /* threads */
};

/* The fields, for help, documents and completion. */
extern const struct api_fields machine_def_fields;

extern const char *const machine_engine_names[];
extern const char *const machine_irqchip_names[];
extern const char *const machine_kvm_use_names[];
extern const char *const machine_mmu_names[];
extern const char *const machine_tdp_format_names[];
extern const char *const machine_mmu_page_names[];
extern const char *const machine_clock_names[];
extern const char *const machine_boot_names[];
extern const char *const machine_sandbox_names[];

/* The defaults, without name and kernel. */
void machine_def_init(struct machine_def *def);
void machine_def_finish(struct machine_def *def);
/*
 * Check and load. @path goes before the fields' names in errors ("" at the top level). A missing
 * "name" becomes @dflt_name (NULL: it is required). On failure @def is finished. 0, or -errno with
 * *err.
 */
int machine_def_parse(struct machine_def *def, struct json_object *obj, const char *dflt_name,
		      const char *path, struct api_error *err);
/* The same from a file of at most 1 MiB; relative paths in it are meant from the current folder. */
int machine_def_load(struct machine_def *def, const char *file, const char *dflt_name,
		     struct api_error *err);
/* Only the JSON of such a file, not checked. NULL with *err. */
struct json_object *machine_def_read(const char *file, struct api_error *err);
struct json_object *machine_def_to_json(const struct machine_def *def);

/* The files that a definition names, open for reading; -1 where it names none. */
struct machine_files {
	int kernel, initrd;
	int modules[MACHINE_MODULES_MAX];
	/*
	 * /dev/kvm ($UMBRA_KVM_DEVICE), for reading and writing: open when the definition allows
	 * the engine (it is not "soft") and the host does (@kvm_use, set before
	 * machine_files_open()). Else -1; then
	 * @kvm_error is the errno of the attempt, or 0 when there was none.
	 */
	int kvm;
	int kvm_error;
	int kvm_use; /* enum machine_kvm_use */
};

void machine_files_init(struct machine_files *files);
void machine_files_finish(struct machine_files *files);
/* Open them all; an error names the field and file. Only regular files are taken, and /dev/kvm,
 * whose absence is no error here: vm_choose_engine() knows what follows from it. */
int machine_files_open(struct machine_files *files, const struct machine_def *def,
		       struct api_error *err);

#endif
