/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where the kernel cannot, our processor does: KVM_EXIT_INTERNAL_ERROR, emulation. See DESIGN.md.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/kvm/convert.h"
#include "engine/kvm/help_internal.h"

/*
 * How far a run may go. It grows while the kernel gives up again right behind the last one, as in a
 * loop of vector instructions, and is one instruction otherwise: what the kernel can do, it does.
 */
#define RUN_MAX	 64
#define RUN_NEAR 16 /* bytes behind the end of the last run */

/* An event per turn, until a handler's first instruction is next: a fault, a fault of its delivery,
 * #DF, and then the processor shuts down. */
#define EVENTS_MAX 8

/* ---- the kernel's shadows ----------------------------------------------------------------------
 *
 * A KVM that shadows the guest's tables write-protects them and carries out the guest's writes
 * itself, so that an entry of its own follows. What we write into the guest's memory passes it by.
 *
 * It matters only where it changes an entry that KVM may have made one of its own from: KVM does so
 * from present entries, and sets the accessed flag in each before. So a word without both never has
 * a counterpart, and what it becomes is read by KVM's next walk. Neither do accessed and dirty
 * flags that our walker sets: KVM's entries only ever allow less.
 *
 * A word that might have a counterpart: KVM drops all of its tables before this vCPU runs again.
 * That is early enough, for it is as if every processor still had the entry in its TLB, which the
 * guest has to count with until it has flushed that, by instructions still to come.
 */

#define PTE_IN_USE (BIT(0) | BIT(5)) /* present, accessed; at the same place in both formats */

static bool is_table_entry(const struct cpu_state *s, uint8_t maxphyaddr, uint64_t word)
{
	bool small = (word & PTE_IN_USE) == PTE_IN_USE || (word >> 32 & PTE_IN_USE) == PTE_IN_USE;

	if (!(s->efer & X86_EFER_LMA) && !(s->cr4 & X86_CR4_PAE))
		return small;
	return (word & PTE_IN_USE) == PTE_IN_USE && !(word & BITS(51, maxphyaddr));
}

static void before_write(struct guest_mem *m, gpa_t gpa, const void *data, unsigned len)
{
	const struct cpu_state *s = cpu_state(m->cpu);
	struct kvm_help *h = m->priv;
	gpa_t at = gpa & ~7ull, end = gpa + len;
	uint64_t was, becomes;

	for (; at < end && !h->stale; at += 8) {
		gpa_t from = MAX(at, gpa), to = MIN(at + 8, end);

		if (slot_read(m->vm, at, &was, 8))
			continue;
		becomes = was;
		memcpy((uint8_t *)&becomes + (from - at), (const uint8_t *)data + (from - gpa),
		       to - from);
		if (becomes != was)
			h->stale = is_table_entry(s, m->config->model->maxphyaddr, was);
	}
}

/*
 * A slot of one page that comes and goes: on its way out KVM drops every table of the machine's
 * (KVM_X86_QUIRK_SLOT_ZAP_ALL, which stays on). It lies where neither RAM nor a device is, see
 * IDENTITY_MAP_ADDR in kvm.c, and looks as nothing does.
 */
#define PASSING_GPA 0xfeffb000ull
static const uint8_t open_bus[PAGE_SIZE]
	__attribute__((aligned(PAGE_SIZE))) = {[0 ... PAGE_SIZE - 1] = 0xff};

static int drop_shadows(struct engine_vcpu *v)
{
	struct engine_vm *vm = v->vm;
	struct kvm_userspace_memory_region r = {
		.slot = vm->caps.memslots - 1,
		.flags = vm->caps.readonly_mem ? KVM_MEM_READONLY : 0,
		.guest_phys_addr = PASSING_GPA,
		.memory_size = PAGE_SIZE,
		.userspace_addr = (uintptr_t)open_bus,
	};
	int ret;

	pthread_mutex_lock(&vm->passing_lock);
	ret = kvm_call(vm->fd, KVM_SET_USER_MEMORY_REGION, &r);
	if (!ret) {
		r.memory_size = 0;
		ret = kvm_call(vm->fd, KVM_SET_USER_MEMORY_REGION, &r);
	}
	pthread_mutex_unlock(&vm->passing_lock);
	v->stats.help_drops++;
	if (ret)
		kvm_fail(v, "the kernel's page tables could not be dropped: %s", kvm_failure());
	return ret;
}

/* ---- making ------------------------------------------------------------------------------------
 */

static void new_cr3(struct guest_mem *m)
{
	struct cpu_state *s = cpu_state(m->cpu);
	struct mmu_regs regs;

	guest_mmu_regs(s, m->config->model, &regs);
	if (kvm_state_is_pae(s) && mmu_read_pdptrs(m->mmu, &regs, s->cr3, s->pdptr))
		memset(s->pdptr, 0, sizeof(s->pdptr));
	memcpy(regs.pdptr, s->pdptr, sizeof(regs.pdptr));
	mmu_set_regs(m->mmu, &regs);
}

/* At first need: most machines have none. */
struct kvm_help *help_of(struct engine_vcpu *v)
{
	struct kvm_help *h = v->help;

	if (h || !kvm_cpu(v))
		return h;
	h = calloc(1, sizeof(*h));
	if (!h)
		return NULL;
	memset(h->msr_bitmap, 0xff, sizeof(h->msr_bitmap));
	h->mem = (struct guest_mem){
		.vm = v->vm->mmu,
		.mmu = v->mmu,
		.cpu = v->cpu,
		.config = &v->vm->config,
		.stats = &v->stats,
		.id = v->id,
		.new_cr3 = new_cr3,
		.before_write = engine_kvm_mmu()->policy == MMU_POLICY_TDP ? NULL : before_write,
		.priv = h,
	};
	cpu_controls(v->cpu)->msr_bitmap = h->msr_bitmap;
	__atomic_store_n(&v->help, h, __ATOMIC_RELEASE);
	return h;
}

bool kvm_help_stale(const struct engine_vcpu *v)
{
	return v->help && v->help->stale;
}

void kvm_help_finish(struct engine_vcpu *v)
{
	free(v->help);
	v->help = NULL;
}

/* ---- counting ----------------------------------------------------------------------------------
 */

static gva_t linear_rip(struct engine_vcpu *v)
{
	const struct cpu_state *s = cpu_state(v->cpu);

	if (s->efer & X86_EFER_LMA && s->seg[X86_CS].attr & X86_ATTR_L)
		return s->rip;
	return (uint32_t)(s->rip + s->seg[X86_CS].base);
}

const char *help_name(struct engine_vcpu *v, bool *ret_general)
{
	uint8_t code[15];
	unsigned n = engine_peek(v->mmu, linear_rip(v), code, sizeof(code));

	*ret_general = false;
	return n ? cpu_mnemonic(v->cpu, code, n, ret_general) : "(unreadable)";
}

void help_count(struct engine_vcpu *v, struct kvm_help *h, const char *name)
{
	unsigned k;

	/* The last one stands for all that find no room. */
	for (k = 0; k < NAMES_MAX - 1 && h->named[k].name && h->named[k].name != name; k++)
		;
	if (k == NAMES_MAX - 1)
		name = "(others)";
	__atomic_store_n(&h->named[k].count, h->named[k].count + 1, __ATOMIC_RELAXED);
	if (!h->named[k].name)
		__atomic_store_n(&h->named[k].name, name, __ATOMIC_RELEASE);
	v->stats.helped++;
}

unsigned kvm_helped(struct engine_vcpu *v, struct engine_helped *ret, unsigned max)
{
	const struct kvm_help *h = __atomic_load_n(&v->help, __ATOMIC_ACQUIRE);
	unsigned n;

	for (n = 0; h && n < MIN(max, (unsigned)NAMES_MAX); n++) {
		ret[n].name = __atomic_load_n(&h->named[n].name, __ATOMIC_ACQUIRE);
		if (!ret[n].name)
			break;
		ret[n].count = __atomic_load_n(&h->named[n].count, __ATOMIC_RELAXED);
	}
	return n;
}

/* ---- one instruction ---------------------------------------------------------------------------
 */

/* What our processor cannot know, or what it has to leave for. */
#define EXITS_ALWAYS                                                                               \
	(CPU_CTL_HLT | CPU_CTL_INVLPG | CPU_CTL_INVPCID | CPU_CTL_RDTSC | CPU_CTL_RDPMC |          \
	 CPU_CTL_MONITOR | CPU_CTL_MWAIT)
/* Within a run, whatever the kernel has to see for itself: the run ends before it. */
#define EXITS_RUN                                                                                  \
	(EXITS_ALWAYS | CPU_CTL_CR3_LOAD | CPU_CTL_CR8_LOAD | CPU_CTL_CR8_STORE | CPU_CTL_MOV_DR | \
	 CPU_CTL_PAUSE | CPU_CTL_CPUID | CPU_CTL_WBINVD | CPU_CTL_WBNOINVD | CPU_CTL_XSETBV |      \
	 CPU_CTL_TASK_SWITCH | CPU_CTL_DESC_TABLE)

void help_controls(struct engine_vcpu *v, bool first)
{
	struct cpu_controls *ctl = cpu_controls(v->cpu);
	const struct cpu_state *s = cpu_state(v->cpu);

	ctl->exits = first ? EXITS_ALWAYS : EXITS_RUN;
	ctl->cr0_mask = ctl->cr4_mask = first ? 0 : ~0ull;
	ctl->cr0_shadow = s->cr0;
	ctl->cr4_shadow = s->cr4;
	cpu_state_changed(v->cpu);
}

int help_msr(struct engine_vcpu *v, uint32_t index, uint64_t *ret_value)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} one = {.head.nmsrs = 1, .entry.index = index};
	int ret = kvm_call(v->fd, KVM_GET_MSRS, &one);

	*ret_value = one.entry.data;
	return ret == 1 ? 0 : -EIO;
}

/* The TSC is the kernel's. */
static int finish_rdtsc(struct engine_vcpu *v, enum cpu_exit_reason reason)
{
	struct cpu_state *s = cpu_state(v->cpu);
	uint64_t tsc;
	int ret = help_msr(v, X86_MSR_TSC, &tsc);

	if (ret)
		return ret;
	s->gpr[X86_RAX] = (uint32_t)tsc;
	s->gpr[X86_RDX] = tsc >> 32;
	if (reason == CPU_EXIT_RDTSCP)
		s->gpr[X86_RCX] = (uint32_t)s->tsc_aux;
	cpu_skip(v->cpu);
	return 0;
}

static void finish_io(struct engine_vcpu *v, struct kvm_help *h, const struct cpu_exit *e)
{
	uint32_t data = e->io.in ? ~0u : (uint32_t)cpu_state(v->cpu)->gpr[X86_RAX];

	guest_pio(&h->mem, e->io.port, e->io.in, e->io.size, &data);
	if (e->io.in)
		cpu_complete_in(v->cpu, data);
	cpu_skip(v->cpu);
}

/* The instruction that the kernel gave up on left our processor, too. As kvm_help(). */
int help_finish_exit(struct engine_vcpu *v, struct kvm_help *h, enum engine_exit *ret_exit)
{
	const struct cpu_exit e = *cpu_exit(v->cpu);

	switch (e.reason) {
	case CPU_EXIT_HLT: return 0; /* it sleeps: so does the kernel's */
	case CPU_EXIT_TRIPLE_FAULT: *ret_exit = ENGINE_EXIT_SHUTDOWN; return 1;
	case CPU_EXIT_RDTSC:
	case CPU_EXIT_RDTSCP: return finish_rdtsc(v, e.reason);
	case CPU_EXIT_IO: finish_io(v, h, &e); return 0;
	case CPU_EXIT_INVLPG:
		h->stale = true;
		cpu_skip(v->cpu);
		return 0;
	case CPU_EXIT_INVPCID:
		if (!guest_invpcid_ok(v->cpu, &e)) {
			cpu_inject_exception(v->cpu, X86_VEC_GP, true, 0);
			return 0;
		}
		h->stale = true;
		cpu_skip(v->cpu);
		return 0;
	case CPU_EXIT_VMCALL:
	case CPU_EXIT_VMX_INSN: cpu_inject_exception(v->cpu, X86_VEC_UD, false, 0); return 0;
	default: return -EOPNOTSUPP;
	}
}

int help_emulate(struct engine_vcpu *v, struct kvm_help *h, bool *ret_exit)
{
	enum cpu_emulate_result result = guest_emulate(&h->mem);

	*ret_exit = result == CPU_EMULATE_EXIT;
	if (result != CPU_EMULATE_STOP || !h->mem.err)
		return 0;
	kvm_fail(v, "translating %#llx: %s", (unsigned long long)h->mem.err_gva,
		 strerror(-h->mem.err));
	return h->mem.err;
}

/* What the instruction raised is delivered here: of an INT3 the kernel could not be told how long
 * it was. As kvm_help(). */
int help_deliver(struct engine_vcpu *v, struct kvm_help *h, enum engine_exit *ret_exit)
{
	struct cpu_state *s = cpu_state(v->cpu);
	bool exit = false;
	int ret = 0;

	for (unsigned n = 0; n < EVENTS_MAX && !ret; n++) {
		kvm_take_pending_db(s);
		if (!s->event.valid)
			return 0;
		ret = help_emulate(v, h, &exit);
		if (!ret && exit)
			ret = help_finish_exit(v, h, ret_exit);
	}
	return ret;
}

/* The run ends early wherever something else than plain going on is called for. As kvm_help(). */
static int help_run(struct engine_vcpu *v, struct kvm_help *h, enum engine_exit *ret_exit)
{
	struct cpu_state *s = cpu_state(v->cpu);
	bool exit = false;
	int ret = 0;

	for (unsigned n = 0; n < h->run; n++) {
		bool general;
		const char *name = help_name(v, &general);

		if (n && h->partly && !general)
			return 0;
		help_controls(v, n == 0);
		if (s->event.valid)
			return help_deliver(v, h, ret_exit);
		ret = help_emulate(v, h, &exit);
		if (ret || (exit && n))
			return ret; /* left within a run: undone, the kernel's */
		help_count(v, h, name);
		if (exit)
			ret = help_finish_exit(v, h, ret_exit);
		if (ret || s->event.valid || s->pending_dbg)
			return ret ? ret : help_deliver(v, h, ret_exit);
		if (exit || s->activity != CPU_ACTIVE)
			return 0;
	}
	return 0;
}

/* How long a run this one is to be. */
static void set_run(struct engine_vcpu *v, struct kvm_help *h)
{
	const struct cpu_state *s = cpu_state(v->cpu);

	if (s->cr3 == h->end_cr3 && s->rip - h->end_rip < RUN_NEAR && !v->debugging)
		h->run = MIN(h->run * 2, (unsigned)RUN_MAX);
	else
		h->run = 1;
}

void help_tell_mmu(struct engine_vcpu *v)
{
	struct mmu_regs regs;

	guest_mmu_regs(cpu_state(v->cpu), v->vm->config.model, &regs);
	mmu_set_regs(v->mmu, &regs);
}

int kvm_help_state(struct engine_vcpu *v, enum engine_exit *ret_exit)
{
	struct kvm_help *h = help_of(v);
	int ret;

	if (!h)
		return -ENOMEM;
	help_tell_mmu(v);
	set_run(v, h);
	v->stats.help_runs++;
	ret = help_run(v, h, ret_exit);
	h->end_rip = cpu_state(v->cpu)->rip;
	h->end_cr3 = cpu_state(v->cpu)->cr3;
	return ret;
}

/* ---- the state, from the kernel and back --------------------------------------------------------
 *
 * Each call for a vCPU loads it first, which in a host that is a guest itself takes as long as
 * twenty instructions in help. So once help has been needed the kernel leaves general registers,
 * segments and events in struct kvm_run at each exit (KVM_CAP_SYNC_REGS), and takes them from there
 * at the next entry. For an instruction that touches no more than those that will do, with the
 * debug registers, at which any instruction may trap. While no help is needed they are not asked
 * for.
 */

#define SYNC_ALL    (KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS)
#define QUIET_EXITS 256

void kvm_help_quiet(struct engine_vcpu *v)
{
	if (v->stats.entries - v->help->entries > QUIET_EXITS)
		v->run->kvm_valid_regs = 0;
}

static bool is_quiet(const struct kvm_vcpu_events *e)
{
	return !e->exception.injected && !e->exception.pending && !e->interrupt.injected &&
	       !e->nmi.injected && !e->smi.pending && !e->smi.smm &&
	       !(e->flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT && e->triple_fault.pending);
}

/* What struct kvm_run has: false when that is not enough for this instruction. */
static bool take_part(struct engine_vcpu *v, struct kvm_help *h)
{
	const struct kvm_sync_regs *r = &v->run->s.regs;
	struct cpu_state *s = cpu_state(v->cpu);
	struct kvm_debugregs debug;
	bool general;

	if (v->run->kvm_valid_regs != SYNC_ALL || v->debugging || !is_quiet(&r->events))
		return false;
	memset(&h->sregs, 0, sizeof(h->sregs));
	kvm_sregs_to_sregs2(&r->sregs, &h->sregs);
	kvm_sregs2_to_state(&h->sregs, s);
	kvm_regs_to_state(&r->regs, s);
	kvm_events_to_state(&r->events, s);
	s->activity = CPU_ACTIVE;
	/* PDPTEs and PKRU are elsewhere. */
	if (kvm_state_is_pae(s) || s->cr4 & X86_CR4_PKE)
		return false;
	cpu_state_changed(v->cpu);
	help_tell_mmu(v);
	help_name(v, &general);
	if (!general || kvm_call(v->fd, KVM_GET_DEBUGREGS, &debug))
		return false;
	kvm_debugregs_to_state(&debug, s);
	h->dr6 = s->dr6;
	h->dr7 = s->dr7;
	return true;
}

/* Into struct kvm_run, for the next entry: until then it counts as an answer that is still to be
 * completed. */
static int give_part(struct engine_vcpu *v, struct kvm_help *h)
{
	struct cpu_state *s = cpu_state(v->cpu);
	struct kvm_sync_regs *r = &v->run->s.regs;
	struct kvm_sregs2 sregs = h->sregs;
	struct kvm_vcpu_events events;
	struct kvm_debugregs debug;

	kvm_events_from_state(&events, s);
	if (s->dr6 != h->dr6 || s->dr7 != h->dr7) {
		kvm_debugregs_from_state(&debug, s);
		if (kvm_call(v->fd, KVM_SET_DEBUGREGS, &debug)) {
			kvm_fail(v, "registers: %s", kvm_failure());
			return -EIO;
		}
	}
	kvm_regs_from_state(&r->regs, s);
	v->run->kvm_dirty_regs = KVM_SYNC_X86_REGS;
	kvm_sregs2_from_state(&sregs, s);
	if (memcmp(&sregs, &h->sregs, sizeof(sregs))) {
		kvm_sregs2_to_sregs(&sregs, &r->sregs);
		v->run->kvm_dirty_regs |= KVM_SYNC_X86_SREGS;
	}
	if (events.interrupt.shadow != r->events.interrupt.shadow ||
	    events.nmi.masked != r->events.nmi.masked) {
		/* NMIs that have come since are the kernel's. */
		events.flags &= ~(uint32_t)KVM_VCPUEVENT_VALID_NMI_PENDING;
		r->events = events;
		v->run->kvm_dirty_regs |= KVM_SYNC_X86_EVENTS;
	}
	v->pending_io = true;
	return 0;
}

/* The state is with our processor from here on; 0 or -errno. */
int help_take(struct engine_vcpu *v)
{
	struct cpu *c = kvm_cpu(v);
	struct kvm_help *h = help_of(v);
	int ret;

	v->error[0] = 0;
	if (!h) {
		kvm_fail(v, "no memory for a processor that helps KVM out");
		return -ENOMEM;
	}
	h->partly = take_part(v, h);
	if (h->partly)
		return 0;
	ret = kvm_state_get(v, cpu_state(c));
	if (!ret)
		cpu_state_changed(c);
	return ret;
}

/* @ret when the state is the kernel's again, else -errno. */
int help_give(struct engine_vcpu *v, int ret)
{
	struct kvm_help *h = v->help;
	int failed;

	if (ret < 0)
		return ret;
	failed = h->partly ? give_part(v, h) : kvm_state_set(v, cpu_state(v->cpu));
	if (!failed && h->stale) {
		h->stale = false;
		failed = drop_shadows(v);
	}
	h->entries = v->stats.entries;
	if (!failed && !h->partly)
		kvm_quirks_watch(v, cpu_state(v->cpu));
	if ((v->vm->caps.sync_regs & SYNC_ALL) == SYNC_ALL)
		v->run->kvm_valid_regs = SYNC_ALL;
	return failed ? failed : ret;
}

int kvm_help(struct engine_vcpu *v, enum engine_exit *ret_exit)
{
	struct cpu_event *event;
	int ret = help_take(v);

	if (ret)
		return ret;
	/* Without that capability the kernel has made a #UD of it, besides. */
	event = &cpu_state(v->cpu)->event;
	if (!v->vm->caps.exit_on_emulation_failure && event->valid &&
	    event->type == CPU_EVENT_HW_EXCEPTION && event->vector == X86_VEC_UD)
		event->valid = false;
	ret = help_give(v, kvm_help_state(v, ret_exit));
	if (ret || !v->debugging || !kvm_debug_helped(v, linear_rip(v)))
		return ret;
	*ret_exit = ENGINE_EXIT_DEBUG;
	return 1;
}
