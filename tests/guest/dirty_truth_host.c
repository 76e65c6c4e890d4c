/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The dirty log against the truth. Three named clients, each on its own thread and at its own pace,
 * keep a copy of the guest's memory by what the log tells them, as a migration does: take a page
 * off the log, then read it. Two vCPUs and a device (a thread here) write in rounds. When both
 * vCPUs stand still at a round's end (in some rounds one spins in guest mode) each client makes one
 * more pass, and then every byte of its copy must be the guest's. A page that changed after the
 * client last read it, and was not reported since, shows there: also one that was reported once too
 * early. Besides, every page that the guest or the device recorded as written in the round must
 * have been reported in it, changed or not.
 */
#include <errno.h>
#include <getopt.h>
#include <json-c/json.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bitmap.h"
#include "tests/guest/dirty_truth.h"
#include "tests/guest/harness.h"
#include "tests/guest/kit/layout.h"

#define CLIENTS 3
#define SLOT	0
#define DMA_OPS 48
#define RESTART 37 /* rounds after which a client goes and comes again, … */
#define GAP	29 /* …and after which all go: nothing is logged for part of a round */

enum phase { RUN, FINAL, STOP };
enum tell { TELL_BITMAP, TELL_TAKE, TELL_RING };

struct client {
	struct test *t;
	unsigned index;
	enum tell tell;
	struct dirty_client *log;
	pthread_t thread;
	uint8_t *copy;
	uint64_t bits[BITMAP_WORDS(TRUTH_PAGES)];
	uint32_t reported[TRUTH_PAGES]; /* the last round a page was reported in */
	uint32_t round, done;		/* done: under the lock, the last round it finished */
	bool fresh;			/* it began anew in this round */
	uint64_t passes;		/* atomic */
	uint64_t reports;
	/* Told and known by the checker to be written or not, a page a round. */
	uint64_t written, false_reports;
};

struct test {
	struct harness h;
	const char *elf;
	bool kvm;
	uint32_t kernel_ring; /* entries; 0: the kernel's log is a bitmap */
	enum mmu_policy policy;
	enum dirty_notice notice;
	bool toggle; /* between both ways of noticing, amid each round */
	enum tell tell;
	uint32_t rounds;

	pthread_mutex_t lock;
	pthread_cond_t cond;
	enum phase phase;
	uint32_t round;	  /* atomic */
	unsigned waiting; /* vCPUs and the device that have done their part of the round */
	unsigned amid;	  /* atomic: vCPUs that wait for the clients amid a round */
	unsigned gone;	  /* clients that have gone for good in this gap */
	bool failed;

	pthread_t device, coordinator;
	struct client client[CLIENTS];
	uint8_t *now, *before; /* memory at this and at the last round's end */
	uint32_t dma[TRUTH_PAGES];
	uint64_t shared[BITMAP_WORDS(TRUTH_PAGES)];
	uint64_t changed, recorded;
};

static uint64_t random_of(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void must(int ret, const char *what)
{
	if (ret)
		die("%s: %s", what, strerror(-ret));
}

/* ---- a client ---- */

static void read_page(struct client *c, uint64_t page)
{
	c->reports++;
	c->reported[page] = c->round;
	must(slot_read(c->t->h.mmu, page << PAGE_SHIFT, c->copy + (page << PAGE_SHIFT), PAGE_SIZE),
	     "slot_read");
}

/* Get all; clear and read in pieces, as one does who sends them. */
static void pass_bitmap(struct client *c)
{
	uint64_t piece = c->index == 1 ? 64 : TRUTH_PAGES, i;

	must(dirty_get(c->log, SLOT, 0, TRUTH_PAGES, c->bits), "dirty_get");
	for (uint64_t first = 0; first < TRUTH_PAGES; first += piece) {
		const uint64_t *bits = &c->bits[first / 64];

		must(dirty_clear(c->log, SLOT, first, piece, bits), "dirty_clear");
		bitmap_for_each (i, bits, piece)
			read_page(c, first + i);
	}
}

static void pass_take(struct client *c)
{
	gfn_t gfns[64];
	size_t max = c->index == 1 ? 33 : ARRAY_SIZE(gfns);
	ssize_t n;

	/* Not until it is clean: writers may be as fast as we are. */
	for (unsigned k = 0; k < TRUTH_PAGES; k += (unsigned)n) {
		n = dirty_take(c->log, gfns, max);
		if (n < 0)
			die("dirty_take: %s", strerror((int)-n));
		for (ssize_t i = 0; i < n; i++)
			read_page(c, gfns[i]);
		if (!n)
			break;
	}
}

/* The rings by hand; what L0 and the device wrote is in none, and is taken. */
static void pass_ring(struct client *c)
{
	struct vm *vm = c->t->h.vm;
	uint64_t *told = c->bits, i;

	memset(told, 0, sizeof(c->bits));
	for (unsigned k = 0; k < vm->cpus; k++) {
		struct dirty_ring *ring = dirty_ring_get(vm->engine->vcpu_mmu(vm->vcpus[k].engine));
		uint32_t head = __atomic_load_n(&ring->head, __ATOMIC_ACQUIRE);
		uint32_t tail = ring->tail;

		for (; tail != head; tail++)
			bitmap_set(told, ring->entries[tail & (ring->size - 1)].page);
		__atomic_store_n(&ring->tail, tail, __ATOMIC_RELEASE);
	}
	must(dirty_ring_reset(c->log), "dirty_ring_reset");
	bitmap_for_each (i, told, TRUTH_PAGES)
		read_page(c, i);
	if (c->passes % 4 == 0 || __atomic_load_n(&c->t->phase, __ATOMIC_SEQ_CST) == FINAL)
		pass_take(c);
}

static void pass(struct client *c)
{
	static void (*const passes[])(struct client *) = {
		[TELL_BITMAP] = pass_bitmap, [TELL_TAKE] = pass_take, [TELL_RING] = pass_ring};

	passes[c->tell](c);
	__atomic_fetch_add(&c->passes, 1, __ATOMIC_SEQ_CST);
	if (!__atomic_load_n(&c->t->amid, __ATOMIC_SEQ_CST))
		return;
	pthread_mutex_lock(&c->t->lock);
	pthread_cond_broadcast(&c->t->cond);
	pthread_mutex_unlock(&c->t->lock);
}

/* A client that comes starts with all pages reported, or reads all of them by itself. */
static void begin(struct client *c, bool initially_set)
{
	struct test *t = c->t;
	char name[16];

	snprintf(name, sizeof(name), "client%u", c->index);
	must(dirty_client_create(t->h.mmu, name, initially_set ? DIRTY_INITIALLY_SET : 0, &c->log),
	     "dirty_client_create");
	must(dirty_client_watch(c->log, DIRTY_ALL_SLOTS), "dirty_client_watch");
	if (c->tell == TELL_RING)
		must(dirty_ring_enable(c->log, t->notice == DIRTY_NOTICE_PML ? 1024 : 64),
		     "dirty_ring_enable");
	if (initially_set)
		memset(c->copy, 0xee, TRUTH_RAM);
	for (uint64_t page = 0; !initially_set && page < TRUTH_PAGES; page++)
		read_page(c, page);
	c->fresh = true;
}

static void end_of_round(struct client *c)
{
	struct test *t = c->t;

	pthread_mutex_lock(&t->lock);
	c->done = c->round;
	pthread_cond_broadcast(&t->cond);
	while (t->round == c->round)
		pthread_cond_wait(&t->cond, &t->lock);
	c->round = t->round;
	c->fresh = false;
	pthread_mutex_unlock(&t->lock);
}

/*
 * Once nobody logs, large pages come back, and vCPUs write through them. Then, amid the round, all
 * clients come with every page reported, and what they clear first are large pages.
 */
static void gap(struct client *c)
{
	struct test *t = c->t;

	dirty_client_destroy(c->log);
	pthread_mutex_lock(&t->lock);
	t->gone++;
	pthread_cond_broadcast(&t->cond);
	while (t->gone % CLIENTS || !t->amid)
		pthread_cond_wait(&t->cond, &t->lock);
	pthread_mutex_unlock(&t->lock);
	begin(c, true);
}

static void *client_thread(void *arg)
{
	static const unsigned pace[CLIENTS] = {1, 4, 40};
	struct client *c = arg;
	struct test *t = c->t;

	for (;;) {
		enum phase phase = __atomic_load_n(&t->phase, __ATOMIC_SEQ_CST);

		if (phase == STOP)
			return NULL;
		pass(c);
		if (phase == FINAL) {
			end_of_round(c);
			/* Amid the next round, while the others write and clear. */
			if (__atomic_load_n(&t->phase, __ATOMIC_SEQ_CST) == STOP)
				return NULL;
			if (c->round % GAP == 3) {
				gap(c);
			} else if (c->round % RESTART == c->index * 5 + 5) {
				dirty_client_destroy(c->log);
				begin(c, c->round & 1);
			}
		}
		for (unsigned k = 0; k < pace[c->index]; k++)
			sched_yield();
	}
}

/* ---- the device ---- */

static void record_dma(struct test *t, uint64_t gpa, uint64_t len, uint32_t round)
{
	for (uint64_t page = gpa >> PAGE_SHIFT; page <= (gpa + len - 1) >> PAGE_SHIFT; page++)
		t->dma[page] = round;
}

static void dma_once(struct test *t, uint64_t gpa, unsigned how, uint64_t value)
{
	struct mmu_vm *mmu = t->h.mmu;
	uint64_t *ram = (uint64_t *)(t->h.vm->ram + gpa), old;
	struct dma_space space = {.vm = mmu};
	struct slot_window win;

	switch (how) {
	case 0: must(slot_write(mmu, gpa, &value, 8), "slot_write"); break;
	case 1: must(dma_write(&space, gpa, &value, 8), "dma_write"); break;
	case 2:
		must(slot_map(mmu, gpa, 8, MMU_ACC_WRITE, &win), "slot_map");
		__atomic_store_n((uint64_t *)win.host, value, __ATOMIC_RELAXED);
		slot_unmap(mmu, &win, 8);
		break;
	case 3:
		must(slot_read(mmu, gpa, &old, 8), "slot_read");
		must(slot_cmpxchg(mmu, gpa, &old, value, 8), "slot_cmpxchg");
		break;
	case 4:
		__atomic_store_n(ram, value, __ATOMIC_RELAXED);
		dirty_note(mmu, gpa, 8);
		break;
	default: /* a writer outside the process */
		__atomic_store_n(ram, value, __ATOMIC_RELAXED);
		__atomic_fetch_or(&t->shared[gpa >> PAGE_SHIFT >> 6], BIT(gpa >> PAGE_SHIFT & 63),
				  __ATOMIC_SEQ_CST);
	}
	record_dma(t, gpa, 8, (uint32_t)(value >> 32));
}

static void arrive(struct test *t)
{
	uint32_t round;

	pthread_mutex_lock(&t->lock);
	round = t->round;
	t->waiting++;
	pthread_cond_broadcast(&t->cond);
	while (t->round == round)
		pthread_cond_wait(&t->cond, &t->lock);
	pthread_mutex_unlock(&t->lock);
}

/* Each client has finished a pass since we came, so that it cleared amid the round's writes. */
static void await_passes(struct test *t)
{
	pthread_mutex_lock(&t->lock);
	__atomic_fetch_add(&t->amid, 1, __ATOMIC_SEQ_CST);
	pthread_cond_broadcast(&t->cond);
	for (unsigned k = 0; k < CLIENTS; k++) {
		uint64_t *passes = &t->client[k].passes;
		uint64_t from = __atomic_load_n(passes, __ATOMIC_SEQ_CST);

		while (__atomic_load_n(passes, __ATOMIC_SEQ_CST) == from)
			pthread_cond_wait(&t->cond, &t->lock);
	}
	__atomic_fetch_sub(&t->amid, 1, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&t->lock);
}

static void *device_thread(void *arg)
{
	struct test *t = arg;
	uint64_t seed = 0x2545f4914f6cdd1d;

	while (__atomic_load_n(&t->phase, __ATOMIC_SEQ_CST) != STOP) {
		uint32_t round = __atomic_load_n(&t->round, __ATOMIC_SEQ_CST), cold = 0;

		must(slot_read(t->h.mmu, KIT_HEAP + offsetof(struct truth, cold), &cold, 4),
		     "slot_read");
		for (unsigned k = 0; k < DMA_OPS && cold; k++) {
			uint64_t page = cold + random_of(&seed) % TRUTH_COLD;

			dma_once(t, page << PAGE_SHIFT | (TRUTH_WORD_DMA + k % 64) * 8, k % 6,
				 (uint64_t)round << 32 | k);
			if (k % 8 == 7)
				sched_yield();
			if (t->toggle && k == DMA_OPS / 2)
				must(dirty_set_notice(t->h.mmu, round & 1 ? DIRTY_NOTICE_PROTECT
									  : DIRTY_NOTICE_PML),
				     "dirty_set_notice");
		}
		arrive(t);
	}
	return NULL;
}

/* ---- the end of a round ---- */

static void complain(const struct test *t, const struct client *c, uint64_t page, const char *what)
{
	const struct truth *g = (const void *)(t->now + KIT_HEAP);
	const uint64_t *have = (const void *)(c->copy + (page << PAGE_SHIFT));
	const uint64_t *want = (const void *)(t->now + (page << PAGE_SHIFT));
	unsigned word = 0;

	while (word < 511 && have[word] == want[word])
		word++;
	printf("FAIL round %u client%u page 0x%llx: %s (reported in round %u, recorded by the "
	       "guest in "
	       "%u, by the device in %u; word %u is 0x%llx, the copy's 0x%llx)\n",
	       t->round, c->index, (unsigned long long)page, what, c->reported[page],
	       g->stamped[page], t->dma[page], word, (unsigned long long)want[word],
	       (unsigned long long)have[word]);
}

static bool check_page(struct test *t, struct client *c, uint64_t page, bool written, bool recorded)
{
	uint64_t at = page << PAGE_SHIFT;
	bool told = c->reported[page] == t->round;

	if (memcmp(c->copy + at, t->now + at, PAGE_SIZE))
		complain(t, c, page, "the copy is stale");
	else if (recorded && !told)
		complain(t, c, page, "written and not reported");
	else {
		if (!c->fresh) {
			c->written += written || recorded;
			c->false_reports += told && !written && !recorded;
		}
		return true;
	}
	return false;
}

/* Nobody writes. */
static bool check(struct test *t)
{
	const struct truth *g = (const void *)(t->now + KIT_HEAP);
	unsigned bad = 0;

	must(slot_read(t->h.mmu, 0, t->now, TRUTH_RAM), "slot_read");
	for (uint64_t page = 0; page < TRUTH_PAGES && bad < 8; page++) {
		uint64_t at = page << PAGE_SHIFT;
		bool written = memcmp(t->before + at, t->now + at, PAGE_SIZE);
		bool recorded = g->stamped[page] == t->round || t->dma[page] == t->round;

		t->changed += written;
		t->recorded += recorded;
		for (unsigned k = 0; k < CLIENTS; k++)
			bad += !check_page(t, &t->client[k], page, written, recorded);
	}
	memcpy(t->before, t->now, TRUTH_RAM);
	return !bad;
}

static bool all_done(const struct test *t)
{
	for (unsigned k = 0; k < CLIENTS; k++)
		if (t->client[k].done != t->round)
			return false;
	return true;
}

static void next_round(struct test *t)
{
	uint32_t next = t->round + 1, one = 1;

	if (next > t->rounds || t->failed) {
		must(slot_write(t->h.mmu, KIT_HEAP + offsetof(struct truth, stop), &one, 4),
		     "slot_write");
		__atomic_store_n(&t->phase, STOP, __ATOMIC_SEQ_CST);
	} else {
		must(slot_write(t->h.mmu, KIT_HEAP + offsetof(struct truth, round), &next, 4),
		     "slot_write");
		__atomic_store_n(&t->phase, RUN, __ATOMIC_SEQ_CST);
	}
	t->waiting = 0;
	__atomic_store_n(&t->round, next, __ATOMIC_SEQ_CST);
	pthread_cond_broadcast(&t->cond);
}

/* The other vCPU says so in memory only: it does not leave guest mode. */
static void await_spinner(struct test *t)
{
	uint32_t done = 0;

	pthread_mutex_unlock(&t->lock);
	for (;;) {
		must(slot_read(t->h.mmu, KIT_HEAP + offsetof(struct truth, done), &done, 4),
		     "slot_read");
		if (done == t->round)
			break;
		sched_yield();
	}
	pthread_mutex_lock(&t->lock);
}

static void *coordinator_thread(void *arg)
{
	struct test *t = arg;

	pthread_mutex_lock(&t->lock);
	while (t->phase != STOP) {
		bool spins = TRUTH_SPINNER(t->round) != TRUTH_CPUS;

		if (t->phase == RUN && t->waiting + spins == TRUTH_CPUS + 1) {
			if (spins)
				await_spinner(t);
			__atomic_store_n(&t->phase, FINAL, __ATOMIC_SEQ_CST);
		} else if (t->phase == FINAL && all_done(t)) {
			t->failed |= !check(t);
			next_round(t);
		} else {
			pthread_cond_wait(&t->cond, &t->lock);
		}
	}
	pthread_mutex_unlock(&t->lock);
	return NULL;
}

static void command(struct harness *h, uint32_t command, uint32_t argument)
{
	if (command == KIT_ROUND_DONE)
		arrive(h->priv);
	else if (command == KIT_ROUND_PART)
		await_passes(h->priv);
}

static const struct harness_ops ops = {.command = command};

/* ---- all of it ---- */

static const char *const tell_names[] = {"bitmap", "take", "ring"};

static const char *policy_name(const struct test *t)
{
	return t->kvm ? "kvm" : t->policy == MMU_POLICY_TDP ? "tdp" : "shadow";
}

static const char *notice_name(const struct test *t)
{
	if (t->kvm)
		return t->kernel_ring ? "kernel-ring" : "kernel-bitmap";
	return t->toggle ? "both" : t->notice == DIRTY_NOTICE_PML ? "pml" : "protect";
}

static void describe(const struct test *t, char *json, size_t size)
{
	int len = snprintf(json, size,
			   "{\"kernel\": \"%s\", \"boot\": \"multiboot\", \"cpus\": %d, "
			   "\"memory\": %u, ",
			   t->elf, TRUTH_CPUS, TRUTH_RAM >> 20);

	if (t->kvm)
		snprintf(json + len, size - (size_t)len,
			 "\"engine\": \"kvm\", \"dirty_ring\": %u, \"cmdline\": \"slow\"}",
			 t->kernel_ring);
	else
		snprintf(json + len, size - (size_t)len, "\"engine\": \"soft\", \"mmu\": \"%s\"}",
			 policy_name(t));
}

static void setup(struct test *t)
{
	char json[512];

	describe(t, json, sizeof(json));
	harness_create(&t->h, json, &ops, t);
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->cond, NULL);
	t->round = 1;
	t->now = calloc(1, TRUTH_RAM);
	t->before = calloc(1, TRUTH_RAM);
	must(dirty_set_notice(t->h.mmu, t->notice), "dirty_set_notice");
	must(dirty_share_bitmap(t->h.mmu, SLOT, t->shared, NULL), "dirty_share_bitmap");
	for (unsigned k = 0; k < CLIENTS; k++) {
		struct client *c = &t->client[k];

		c->t = t;
		c->index = k;
		c->round = 1;
		c->copy = calloc(1, TRUTH_RAM);
		/* There is one ring a vCPU, so one client has it. */
		c->tell = t->tell == TELL_RING && k ? (enum tell)(k - 1) : t->tell;
		if (!c->copy || !t->now || !t->before)
			die("out of memory");
		begin(c, k == 1);
	}
}

static void start_threads(struct test *t)
{
	int ret = pthread_create(&t->coordinator, NULL, coordinator_thread, t);

	ret |= pthread_create(&t->device, NULL, device_thread, t);
	for (unsigned k = 0; k < CLIENTS; k++)
		ret |= pthread_create(&t->client[k].thread, NULL, client_thread, &t->client[k]);
	if (ret)
		die("no threads");
}

static void teardown(struct test *t)
{
	pthread_join(t->coordinator, NULL);
	pthread_join(t->device, NULL);
	for (unsigned k = 0; k < CLIENTS; k++) {
		pthread_join(t->client[k].thread, NULL);
		dirty_client_destroy(t->client[k].log);
		free(t->client[k].copy);
	}
	dirty_share_bitmap(t->h.mmu, SLOT, NULL, NULL);
	free(t->now);
	free(t->before);
	harness_destroy(&t->h);
}

/* Summed over the vCPUs. */
static uint64_t counter(struct json_object *stats, const char *name)
{
	struct json_object *vcpus, *o;
	uint64_t sum = 0;

	/* Under kvm the kernel does what some of them count. */
	if (!json_object_object_get_ex(stats, "vcpus", &vcpus))
		die("no counters of the vCPUs");
	for (size_t k = 0; k < json_object_array_length(vcpus); k++) {
		if (!json_object_object_get_ex(json_object_array_get_idx(vcpus, k), name, &o))
			return 0;
		sum += json_object_get_uint64(o);
	}
	return sum;
}

static void report(struct test *t)
{
	struct json_object *stats = harness_stats(&t->h);

	printf("{\"policy\": \"%s\", \"notice\": \"%s\", \"tell\": \"%s\", \"rounds\": %u, "
	       "\"changed\": "
	       "%llu, \"recorded\": %llu, \"clients\": [",
	       policy_name(t), notice_name(t), tell_names[t->tell], t->round - 1,
	       (unsigned long long)t->changed, (unsigned long long)t->recorded);
	for (unsigned k = 0; k < CLIENTS; k++) {
		const struct client *c = &t->client[k];

		printf("%s{\"tell\": \"%s\", \"passes\": %llu, \"reports\": %llu, \"written\": "
		       "%llu, "
		       "\"false\": %llu}",
		       k ? ", " : "", tell_names[c->tell], (unsigned long long)c->passes,
		       (unsigned long long)c->reports, (unsigned long long)c->written,
		       (unsigned long long)c->false_reports);
	}
	printf("], \"pml_entries\": %llu, \"pml_full\": %llu, \"waits\": %llu}\n",
	       (unsigned long long)counter(stats, "pml_entries"),
	       (unsigned long long)counter(stats, "pml_full"),
	       (unsigned long long)counter(stats, "waits"));
	json_object_put(stats);
}

static int choice(const char *text, const char *const *names, int n)
{
	for (int k = 0; k < n; k++)
		if (!strcmp(text, names[k]))
			return k;
	die("unknown word: %s", text);
}

int main(int argc, char **argv)
{
	static const char *const engines[] = {"soft", "kvm"};
	static const char *const policies[] = {"shadow", "tdp"}, *const notices[] = {"protect",
										     "pml", "both"};
	static struct test t = {.policy = MMU_POLICY_TDP, .rounds = 40};
	int opt, status;

	while ((opt = getopt(argc, argv, "e:d:p:n:t:r:")) != -1) {
		switch (opt) {
		case 'e': t.kvm = choice(optarg, engines, 2); break;
		case 'd': t.kernel_ring = (uint32_t)atoi(optarg); break;
		case 'p': t.policy = (enum mmu_policy)choice(optarg, policies, 2); break;
		case 'n': t.notice = (enum dirty_notice)choice(optarg, notices, 3); break;
		case 't': t.tell = (enum tell)choice(optarg, tell_names, 3); break;
		case 'r': t.rounds = (uint32_t)atoi(optarg); break;
		default:
			die("usage: [-e ENGINE] [-d KERNEL'S RING] [-p POLICY] [-n NOTICE] [-t "
			    "TELL] [-r ROUNDS] ELF");
		}
	}
	if (optind + 1 != argc)
		die("which payload?");
	t.elf = argv[optind];
	t.toggle = t.notice > DIRTY_NOTICE_PML;
	if (t.toggle)
		t.notice = DIRTY_NOTICE_PML;
	setup(&t);
	start_threads(&t);
	status = harness_run(&t.h);
	report(&t);
	if (status != 1)
		die("the payload ended with status %d", status);
	teardown(&t);
	return t.failed;
}
