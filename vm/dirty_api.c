/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The dirty log over the API: clients by name, told by address, rates and heat. All on the loop's
 * thread. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>
#include <json-c/json.h>

#include "api/base64.h"
#include "api/server.h"
#include "base/bitmap.h"
#include "vm/vm_api.h"
#include "vm/vm_internal.h"

#define CLIENTS_MAX  8
#define WINDOW_PAGES 4096u /* looked at in one piece */
#define VCPUS_MAX    64
#define GPA_END	     BIT(52)

/* A client that was made by dirty.start. */
struct logger {
	struct dirty_client *log; /* NULL: a free place */
	bool initially_set;
	bool ring, ring_lost;
	unsigned patience, blocked; /* seconds */
	uint64_t since_ns;	    /* of the last dirty.rate */
	uint64_t noticed[VCPUS_MAX];
	uint64_t rounds;
	uint32_t buckets;
	uint64_t bucket; /* pages of one */
	uint32_t *heat;
};

struct vm_dirty {
	struct vm *vm;
	struct logger logger[CLIENTS_MAX];
	struct event *watch; /* every second while a client has rings */
};

/* ---- clients ---- */

static void logger_end(struct logger *l)
{
	dirty_client_destroy(l->log);
	free(l->heat);
	memset(l, 0, sizeof(*l));
}

void vm_dirty_destroy(struct vm_dirty *d)
{
	if (!d)
		return;
	for (unsigned k = 0; k < CLIENTS_MAX; k++)
		logger_end(&d->logger[k]);
	if (d->watch)
		event_free(d->watch);
	free(d);
}

/* A client that lets vCPUs wait and does not come back must not stop the machine for ever. */
static void on_watch(evutil_socket_t fd, short what, void *data)
{
	struct vm_dirty *d = data;
	bool rings = false;

	for (unsigned k = 0; k < CLIENTS_MAX; k++) {
		struct logger *l = &d->logger[k];

		rings |= l->ring;
		if (!l->ring || !vm_runs(d->vm) || !dirty_ring_blocks(l->log)) {
			l->blocked = 0;
		} else if (++l->blocked > l->patience) {
			dirty_ring_enable(l->log, 0);
			l->ring = false;
			l->ring_lost = true;
		}
	}
	if (!rings)
		event_del(d->watch);
}

static struct vm_dirty *dirty_of(struct vm *vm)
{
	struct vm_dirty *d = vm->dirty;

	if (d)
		return d;
	d = calloc(1, sizeof(*d));
	if (!d)
		return NULL;
	d->vm = vm;
	d->watch = event_new(vm->base, -1, EV_PERSIST, on_watch, d);
	if (!d->watch) {
		free(d);
		return NULL;
	}
	vm->dirty = d;
	return d;
}

static const char *client_name(const struct api_call *call)
{
	const char *name = api_call_string(call, "client");

	return name ? name : "api";
}

static struct logger *logger_find(struct vm_dirty *d, const char *name)
{
	for (unsigned k = 0; d && k < CLIENTS_MAX; k++)
		if (d->logger[k].log && !strcmp(dirty_client_name(d->logger[k].log), name))
			return &d->logger[k];
	return NULL;
}

/* The client that a call is about; NULL: the call has been answered. */
static struct logger *logger_of_call(struct api_call *call, struct vm *vm)
{
	struct logger *l = logger_find(vm->dirty, client_name(call));

	if (l) {
		l->blocked = 0;
		return l;
	}
	api_call_fail(call, API_KIND_NOT_FOUND, "no log \"%s\" was started: see dirty.start",
		      client_name(call));
	return NULL;
}

static void fail_errno(struct api_call *call, int ret)
{
	api_call_fail(call, api_kind_from_errno(ret), "dirty log: %s", strerror(-ret));
}

static const char *notice_name(const struct vm *vm)
{
	if (mmu_get_policy(vm->mmu) == MMU_POLICY_KERNEL)
		return "kernel";
	return dirty_get_notice(vm->mmu) == DIRTY_NOTICE_PML ? "pml" : "protect";
}

static uint64_t total_pages(struct vm *vm, gpa_t *ret_end)
{
	struct slot_desc s;
	uint64_t pages = 0;

	*ret_end = 0;
	while (!slot_next(vm->mmu, *ret_end, &s)) {
		pages += s.size >> PAGE_SHIFT;
		*ret_end = s.gpa + s.size;
	}
	return pages;
}

static void read_noticed(struct vm *vm, uint64_t noticed[VCPUS_MAX])
{
	struct mmu_vcpu_stats st;

	for (unsigned k = 0; k < vm->cpus && k < VCPUS_MAX; k++) {
		vm->engine->vcpu_mmu_stats(vm->vcpus[k].engine, &st);
		noticed[k] = st.dirty_noticed;
	}
}

/* ---- dirty.start, dirty.stop, dirty.list ---- */

/* 0 or -errno with *err. */
static int set_notice(struct vm *vm, const char *how, struct api_error *err)
{
	int ret;

	if (!how || !strcmp(how, "keep"))
		return 0;
	ret = dirty_set_notice(vm->mmu,
			       strcmp(how, "protect") ? DIRTY_NOTICE_PML : DIRTY_NOTICE_PROTECT);
	if (ret == -EOPNOTSUPP && !strcmp(how, "auto"))
		ret = dirty_set_notice(vm->mmu, DIRTY_NOTICE_PROTECT);
	if (ret == -EOPNOTSUPP)
		return api_error_field(
			err, "notice",
			mmu_get_policy(vm->mmu) == MMU_POLICY_KERNEL
				? "with engine kvm it is the kernel that notices, in its own way"
				: "pml takes the policy tdp with EPT, which this machine has not");
	return ret ? api_error_set(err, api_kind_from_errno(ret), "%s", strerror(-ret)) : 0;
}

static int set_ring(struct vm_dirty *d, struct logger *l, uint32_t size, struct api_error *err)
{
	const struct timeval second = {.tv_sec = 1};
	int ret;

	if (!size)
		return 0;
	ret = dirty_ring_enable(l->log, size);
	if (ret == -EINVAL)
		return api_error_field(err, "ring", "%u is no power of two from 64 to 65536", size);
	if (ret == -EBUSY)
		return api_error_set(err, API_KIND_INVALID_STATE,
				     "another client has the rings of this machine");
	if (ret == -EOPNOTSUPP)
		return api_error_field(err, "ring",
				       "the kernel's bitmap does not say which vCPU wrote: a "
				       "machine with engine kvm takes dirty_ring for this");
	if (!ret && event_add(d->watch, &second))
		ret = -ENOMEM;
	l->ring = !ret;
	return ret ? api_error_set(err, api_kind_from_errno(ret), "%s", strerror(-ret)) : 0;
}

static int logger_begin(struct vm_dirty *d, struct logger *l, struct api_call *call,
			struct api_error *err)
{
	uint32_t flags = api_call_bool(call, "initially_set", false) ? DIRTY_INITIALLY_SET : 0;
	const char *name = client_name(call);
	int ret = dirty_client_create(d->vm->mmu, name, flags, &l->log);

	if (ret == -EEXIST)
		return api_error_set(err, API_KIND_EXISTS, "a log \"%s\" runs already", name);
	if (ret == -EINVAL)
		return api_error_field(err, "client", "a client wants a name");
	if (ret)
		return api_error_set(err, API_KIND_INTERNAL, "%s", strerror(-ret));
	l->initially_set = flags;
	l->patience = (unsigned)api_call_int(call, "patience", 10);
	ret = set_notice(d->vm, api_call_string(call, "notice"), err);
	if (!ret)
		ret = set_ring(d, l, (uint32_t)api_call_int(call, "ring", 0), err);
	if (!ret) {
		ret = dirty_client_watch(l->log, DIRTY_ALL_SLOTS);
		if (ret)
			api_error_set(err, api_kind_from_errno(ret), "dirty log: %s",
				      strerror(-ret));
	}
	if (ret) {
		logger_end(l);
		return ret;
	}
	read_noticed(d->vm, l->noticed);
	l->since_ns = clock_host_ns(NULL);
	return 0;
}

void handle_dirty_start(struct api_call *call)
{
	struct vm *vm = vm_of_call(call);
	struct json_object *o;
	struct logger *l = NULL;
	struct api_error err = {0};
	struct vm_dirty *d;
	gpa_t end;

	if (!vm)
		return;
	d = dirty_of(vm);
	for (unsigned k = 0; d && k < CLIENTS_MAX && !l; k++)
		l = d->logger[k].log ? NULL : &d->logger[k];
	if (!d || !l) {
		api_call_fail(call, d ? API_KIND_LIMIT : API_KIND_INTERNAL, "%s",
			      d ? "this machine has 8 logs already: see dirty.list"
				: "out of memory");
		return;
	}
	if (logger_begin(d, l, call, &err)) {
		api_call_error(call, &err);
		return;
	}
	o = json_object_new_object();
	json_object_object_add(o, "client", json_object_new_string(dirty_client_name(l->log)));
	json_object_object_add(o, "notice", json_object_new_string(notice_name(vm)));
	json_object_object_add(o, "pages", json_object_new_uint64(total_pages(vm, &end)));
	api_call_reply(call, o, -1);
}

void handle_dirty_stop(struct api_call *call)
{
	struct vm *vm = vm_of_call(call);
	struct logger *l = vm ? logger_of_call(call, vm) : NULL;

	if (!l)
		return;
	logger_end(l);
	api_call_reply(call, NULL, -1);
}

void handle_dirty_list(struct api_call *call)
{
	struct vm *vm = vm_of_call(call);
	struct dirty_client_info info[2 * CLIENTS_MAX];
	struct json_object *o, *all;
	size_t n;

	if (!vm)
		return;
	o = json_object_new_object();
	all = json_object_new_array();
	n = MIN(dirty_clients(vm->mmu, info, ARRAY_SIZE(info)), ARRAY_SIZE(info));
	for (size_t i = 0; i < n; i++) {
		const struct logger *l = logger_find(vm->dirty, info[i].name);
		struct json_object *c = json_object_new_object();

		json_object_object_add(c, "client", json_object_new_string(info[i].name));
		json_object_object_add(c, "dirty", json_object_new_uint64(info[i].dirty));
		json_object_object_add(
			c, "initially_set",
			json_object_new_boolean(info[i].flags & DIRTY_INITIALLY_SET));
		json_object_object_add(c, "ring", json_object_new_int64(info[i].ring));
		json_object_object_add(c, "ring_lost", json_object_new_boolean(l && l->ring_lost));
		json_object_object_add(c, "own", json_object_new_boolean(l != NULL));
		json_object_array_add(all, c);
	}
	json_object_object_add(o, "notice", json_object_new_string(notice_name(vm)));
	json_object_object_add(o, "clients", all);
	api_call_reply(call, o, -1);
}

/* ---- dirty.get ---- */

/* Pages [first, first + npages) of a slot, at most WINDOW_PAGES; @gpa is the first one's. */
struct window {
	uint32_t slot_id;
	gpa_t gpa;
	uint64_t first, npages;
	uint64_t bits[WINDOW_PAGES / 64];
};

/*
 * The window that begins with the first dirty page at or after @from and ends at @end or before.
 * 0; -ENODATA: there is none; -errno: the kernel's log could not be had.
 */
static int next_window(struct vm *vm, struct dirty_client *log, gpa_t from, gpa_t end,
		       struct window *w)
{
	struct slot_desc s;

	for (gpa_t at = 0; !slot_next(vm->mmu, at, &s) && s.gpa < end; at = s.gpa + s.size) {
		uint64_t page = from > s.gpa ? (from - s.gpa) >> PAGE_SHIFT : 0;
		int ret;

		if (page >= s.size >> PAGE_SHIFT)
			continue;
		ret = dirty_find(log, s.id, &page);
		if (ret == -ENODATA || ret == -ENOENT)
			continue;
		if (ret)
			return ret;
		w->slot_id = s.id;
		w->gpa = s.gpa + (page << PAGE_SHIFT);
		w->first = page;
		w->npages = MIN((s.size >> PAGE_SHIFT) - page, (uint64_t)WINDOW_PAGES);
		if (w->gpa >= end)
			return -ENODATA;
		w->npages = MIN(w->npages, (end - w->gpa + PAGE_SIZE - 1) >> PAGE_SHIFT);
		return dirty_get(log, s.id, w->first, w->npages, w->bits);
	}
	return -ENODATA;
}

/* A list of ranges that grows; the last is still open to what follows it. */
struct ranges {
	struct json_object *all;
	size_t n, limit;
	gpa_t gpa;
	uint64_t pages;
	int ret;
};

static void ranges_close(struct ranges *r)
{
	struct json_object *o;

	if (!r->pages)
		return;
	o = json_object_new_object();
	json_object_object_add(o, "gpa", api_addr_new(r->gpa));
	json_object_object_add(o, "pages", json_object_new_uint64(r->pages));
	json_object_array_add(r->all, o);
	r->n++;
	r->pages = 0;
}

/* False: the list was full before it. */
static bool ranges_add(struct ranges *r, gpa_t gpa, uint64_t pages)
{
	if (r->pages && r->gpa + (r->pages << PAGE_SHIFT) == gpa) {
		r->pages += pages;
		return true;
	}
	ranges_close(r);
	if (r->n == r->limit)
		return false;
	r->gpa = gpa;
	r->pages = pages;
	return true;
}

/* There was no further window: an error, or only the end? */
static int end_of_windows(int ret)
{
	return ret == -ENODATA ? 0 : ret;
}

/* Where to go on, or 0 at the end; -errno in r->ret. */
static gpa_t get_ranges(struct vm *vm, struct dirty_client *log, gpa_t from, struct ranges *r)
{
	struct window w;

	while (!(r->ret = next_window(vm, log, from, GPA_END, &w))) {
		for (uint64_t i = bitmap_next(w.bits, w.npages, 0); i < w.npages;) {
			uint64_t end = i;

			while (end < w.npages && bitmap_test(w.bits, end))
				end++;
			if (!ranges_add(r, w.gpa + (i << PAGE_SHIFT), end - i))
				return w.gpa + (i << PAGE_SHIFT);
			i = bitmap_next(w.bits, w.npages, end);
		}
		from = w.gpa + (w.npages << PAGE_SHIFT);
	}
	ranges_close(r);
	r->ret = end_of_windows(r->ret);
	return 0;
}

static void add_bitmap(struct json_object *o, gpa_t gpa, const uint64_t *bits, uint64_t npages)
{
	char *text = base64_encode(bits, BITMAP_WORDS(npages) * 8);

	json_object_object_add(o, "gpa", api_addr_new(gpa));
	json_object_object_add(o, "pages", json_object_new_uint64(npages));
	json_object_object_add(o, "bitmap", text ? json_object_new_string(text) : NULL);
	free(text);
}

/* Where to go on, or 0 at the end; -errno in *@ret. */
static gpa_t get_bitmap(struct vm *vm, struct api_call *call, struct dirty_client *log,
			struct json_object *o, int *ret)
{
	uint64_t most = (uint64_t)api_call_int(call, "pages", 65536), *bits;
	struct slot_desc s;
	struct window w;
	uint64_t npages;

	*ret = next_window(vm, log, api_call_addr(call, "from", 0), GPA_END, &w);
	if (*ret) {
		*ret = end_of_windows(*ret);
		return 0;
	}
	*ret = slot_get(vm->mmu, w.slot_id, &s);
	if (*ret)
		return 0;
	npages = MIN(most, (s.size >> PAGE_SHIFT) - w.first);
	bits = calloc(BITMAP_WORDS(npages), 8);
	*ret = bits ? dirty_get(log, w.slot_id, w.first, npages, bits) : -ENOMEM;
	if (!*ret)
		add_bitmap(o, w.gpa, bits, npages);
	free(bits);
	if (*ret)
		return 0;
	*ret = next_window(vm, log, w.gpa + (npages << PAGE_SHIFT), GPA_END, &w);
	if (!*ret)
		return w.gpa;
	*ret = end_of_windows(*ret);
	return 0;
}

void handle_dirty_get(struct api_call *call)
{
	struct vm *vm = vm_of_call(call);
	struct logger *l = vm ? logger_of_call(call, vm) : NULL;
	const char *format;
	struct json_object *o;
	gpa_t next;
	int ret = 0;

	if (!l)
		return; /* and the call is gone */
	format = api_call_string(call, "format");
	o = json_object_new_object();
	if (format && !strcmp(format, "bitmap")) {
		next = get_bitmap(vm, call, l->log, o, &ret);
	} else {
		struct ranges r = {.all = json_object_new_array(),
				   .limit = (size_t)api_call_int(call, "limit", 1024)};

		next = get_ranges(vm, l->log, api_call_addr(call, "from", 0), &r);
		json_object_object_add(o, "ranges", r.all);
		ret = r.ret;
	}
	if (ret) {
		json_object_put(o);
		fail_errno(call, ret);
		return;
	}
	json_object_object_add(o, "dirty", json_object_new_uint64(dirty_count(l->log)));
	if (next)
		json_object_object_add(o, "next", api_addr_new(next));
	api_call_reply(call, o, -1);
}

/* ---- dirty.clear ---- */

/* Bits that the caller set, of pages from @from on; NULL: all. */
struct wanted {
	gpa_t from;
	uint64_t *bits;
	uint64_t nbits;
};

static bool is_wanted(const struct wanted *want, gpa_t gpa)
{
	uint64_t page = (gpa - want->from) >> PAGE_SHIFT;

	return !want->bits || (page < want->nbits && bitmap_test(want->bits, page));
}

/* 0 or -errno with *err. */
static int read_wanted(struct api_call *call, struct wanted *want, struct api_error *err)
{
	const char *text = api_call_string(call, "bitmap");
	size_t len = 0;
	void *bytes;

	want->from = api_call_addr(call, "from", 0) & PAGE_MASK;
	if (!text)
		return 0;
	bytes = base64_decode(text, &len);
	if (!bytes)
		return api_error_field(err, "bitmap", "that is no base64");
	want->nbits = 8 * len;
	want->bits = calloc(BITMAP_WORDS(want->nbits) + 1, 8);
	if (want->bits)
		memcpy(want->bits, bytes, len);
	free(bytes);
	return want->bits ? 0 : api_error_set(err, API_KIND_INTERNAL, "out of memory");
}

/* How many, or -errno. */
static int64_t clear_window(struct dirty_client *log, struct window *w, const struct wanted *want)
{
	uint64_t i;
	int64_t n = 0;
	int ret;

	bitmap_for_each (i, w->bits, w->npages) {
		if (is_wanted(want, w->gpa + (i << PAGE_SHIFT)))
			n++;
		else
			bitmap_clear(w->bits, i);
	}
	if (!n)
		return 0;
	ret = dirty_clear(log, w->slot_id, w->first, w->npages, w->bits);
	return ret == -ENOENT ? 0 : ret ? ret : n;
}

void handle_dirty_clear(struct api_call *call)
{
	struct vm *vm = vm_of_call(call);
	struct logger *l = vm ? logger_of_call(call, vm) : NULL;
	struct wanted want = {0};
	struct api_error err = {0};
	struct json_object *o;
	uint64_t cleared = 0, pages;
	struct window w;
	int64_t n = 0;
	gpa_t end;
	int ret = 0;

	if (!l)
		return;
	if (read_wanted(call, &want, &err)) {
		api_call_error(call, &err);
		return;
	}
	pages = (uint64_t)api_call_int(call, "pages", INT64_MAX >> PAGE_SHIFT);
	if (want.bits)
		pages = MIN(pages, want.nbits);
	end = want.from + (pages << PAGE_SHIFT);
	end = end < want.from ? GPA_END : MIN(end, GPA_END);
	for (gpa_t at = want.from; n >= 0 && !(ret = next_window(vm, l->log, at, end, &w));
	     at = w.gpa + (w.npages << PAGE_SHIFT)) {
		n = clear_window(l->log, &w, &want);
		cleared += n > 0 ? (uint64_t)n : 0;
	}
	free(want.bits);
	ret = n < 0 ? (int)n : end_of_windows(ret);
	if (ret) {
		fail_errno(call, ret);
		return;
	}
	o = json_object_new_object();
	json_object_object_add(o, "cleared", json_object_new_uint64(cleared));
	api_call_reply(call, o, -1);
}

/* ---- dirty.rate, dirty.heat ---- */

enum take { TAKE_COUNT, TAKE_HEAT };

static void count_heat(struct logger *l, const struct window *w)
{
	uint64_t i;

	bitmap_for_each (i, w->bits, w->npages) {
		uint64_t at = ((w->gpa >> PAGE_SHIFT) + i) / l->bucket;

		if (at < l->buckets && l->heat[at] < UINT32_MAX)
			l->heat[at]++;
	}
}

/*
 * Clear the client's log once from the bottom to the top, and count it by address if asked to. A
 * page that the guest dirties again behind our back is left for the next time: each counts once,
 * and the uppermost as much as the lowest. 0 or -errno.
 */
static int take_all(struct vm *vm, struct logger *l, enum take how, uint64_t *ret_pages)
{
	const struct wanted all = {0};
	struct window w;
	uint64_t sum = 0;
	int64_t n;
	int ret;

	for (gpa_t at = 0; !(ret = next_window(vm, l->log, at, GPA_END, &w));
	     at = w.gpa + (w.npages << PAGE_SHIFT)) {
		n = clear_window(l->log, &w, &all);
		if (n < 0)
			return (int)n;
		sum += (uint64_t)n;
		if (how == TAKE_HEAT)
			count_heat(l, &w);
	}
	*ret_pages = sum;
	return end_of_windows(ret);
}

void handle_dirty_rate(struct api_call *call)
{
	struct vm *vm = vm_of_call(call);
	struct logger *l = vm ? logger_of_call(call, vm) : NULL;
	uint64_t now, pages, noticed[VCPUS_MAX];
	struct json_object *o, *vcpus;
	double seconds;
	int ret;

	if (!l)
		return;
	ret = take_all(vm, l, TAKE_COUNT, &pages);
	if (ret) {
		fail_errno(call, ret);
		return;
	}
	now = clock_host_ns(NULL);
	seconds = MAX((double)(now - l->since_ns) / 1e9, 1e-9);
	l->since_ns = now;
	read_noticed(vm, noticed);
	vcpus = json_object_new_array();
	for (unsigned k = 0; k < vm->cpus && k < VCPUS_MAX; k++)
		json_object_array_add(vcpus, json_object_new_uint64(noticed[k] - l->noticed[k]));
	memcpy(l->noticed, noticed, sizeof(noticed));
	o = json_object_new_object();
	json_object_object_add(o, "pages", json_object_new_uint64(pages));
	json_object_object_add(o, "seconds", json_object_new_double(seconds));
	json_object_object_add(o, "pages_per_second",
			       json_object_new_double((double)pages / seconds));
	json_object_object_add(o, "mib_per_second",
			       json_object_new_double((double)pages / 256 / seconds));
	json_object_object_add(o, "vcpus", vcpus);
	api_call_reply(call, o, -1);
}

static bool is_memory(struct vm *vm, gpa_t gpa, uint64_t len)
{
	struct slot_desc s;

	for (gpa_t at = 0; !slot_next(vm->mmu, at, &s) && s.gpa < gpa + len; at = s.gpa + s.size)
		if (gpa < s.gpa + s.size)
			return true;
	return false;
}

/* Room for @buckets counts of memory up to @end, the old ones kept when they are the same. */
static int heat_init(struct logger *l, uint32_t buckets, gpa_t end)
{
	uint64_t bucket = ((end >> PAGE_SHIFT) + buckets - 1) / buckets;
	uint32_t *heat;

	if (l->heat && l->buckets == buckets && l->bucket == bucket)
		return 0;
	heat = calloc(buckets, sizeof(*heat));
	if (!heat)
		return -ENOMEM;
	free(l->heat);
	l->heat = heat;
	l->buckets = buckets;
	l->bucket = bucket;
	l->rounds = 0;
	return 0;
}

static struct json_object *heat_counts(struct vm *vm, const struct logger *l)
{
	struct json_object *counts = json_object_new_array();
	uint64_t bytes = l->bucket << PAGE_SHIFT;

	for (uint64_t i = 0; i < l->buckets; i++) {
		bool memory = is_memory(vm, i * bytes, bytes);

		json_object_array_add(counts, memory ? json_object_new_int64(l->heat[i]) : NULL);
	}
	return counts;
}

void handle_dirty_heat(struct api_call *call)
{
	struct vm *vm = vm_of_call(call);
	struct logger *l = vm ? logger_of_call(call, vm) : NULL;
	struct json_object *o;
	uint64_t pages;
	gpa_t end;
	int ret;

	if (!l)
		return;
	total_pages(vm, &end);
	if (heat_init(l, (uint32_t)api_call_int(call, "buckets", 1024), end)) {
		fail_errno(call, -ENOMEM);
		return;
	}
	ret = take_all(vm, l, TAKE_HEAT, &pages);
	if (ret) {
		fail_errno(call, ret);
		return;
	}
	l->rounds++;
	o = json_object_new_object();
	json_object_object_add(o, "rounds", json_object_new_uint64(l->rounds));
	json_object_object_add(o, "pages", json_object_new_uint64(pages));
	json_object_object_add(o, "bucket_bytes", json_object_new_uint64(l->bucket << PAGE_SHIFT));
	json_object_object_add(o, "counts", heat_counts(vm, l));
	api_call_reply(call, o, -1);
}
