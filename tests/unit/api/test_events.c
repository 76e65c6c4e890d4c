/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Events: numbers, replay, filters, who may see them, and kinds that can flood. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <event2/event.h>
#include <json-c/json.h>

#include "api/call.h"
#include "api/events.h"

struct world {
	struct event_base *base;
	struct api_events *events;
};

/* What a listener was told. */
struct heard {
	unsigned n;
	uint64_t first, last;
	char text[8192]; /* "type:machine " each, while there is room */
	int64_t coalesced;
	double fraction;
	struct api_listener *self, *other; /* to end when told */
};

static int set_up(void **state)
{
	static struct world w;

	w.base = event_base_new();
	*state = &w;
	return api_events_create(&w.events, w.base);
}

static int tear_down(void **state)
{
	struct world *w = *state;

	api_events_destroy(w->events);
	event_base_free(w->base);
	return 0;
}

static void on_event(void *data, const struct api_event *ev)
{
	struct heard *h = data;
	struct json_object *v;
	size_t len = strlen(h->text);

	if (!h->n++)
		h->first = ev->seq;
	else
		assert_true(ev->seq > h->last);
	h->last = ev->seq;
	snprintf(h->text + len, sizeof(h->text) - len, "%s:%s ", ev->type, ev->machine);
	assert_true(json_object_object_get_ex(ev->obj, "seq", &v));
	assert_int_equal(json_object_get_int64(v), ev->seq);
	h->coalesced =
		json_object_object_get_ex(ev->obj, "coalesced", &v) ? json_object_get_int64(v) : 0;
	if (json_object_object_get_ex(ev->obj, "fraction", &v))
		h->fraction = json_object_get_double(v);
	api_events_unlisten(h->self);
	api_events_unlisten(h->other);
	h->self = h->other = NULL;
}

static struct api_listener *listen_for(struct world *w, struct heard *h,
				       const struct api_events_filter *filter)
{
	struct api_listener *l;
	struct api_error err;

	memset(h, 0, sizeof(*h));
	assert_int_equal(api_events_listen(w->events, filter, on_event, h, &l, &err), 0);
	return l;
}

static void progress(struct world *w, const char *machine, int job, double fraction)
{
	struct json_object *more = json_object_new_object();

	json_object_object_add(more, "job", json_object_new_int(job));
	json_object_object_add(more, "fraction", json_object_new_double(fraction));
	api_events_emit(w->events, "progress", machine, "unix:1", more);
}

static void test_filters(void **state)
{
	struct world *w = *state;
	struct heard all, one, kinds;

	listen_for(w, &all, &(struct api_events_filter){0});
	listen_for(w, &one, &(struct api_events_filter){.machine = "b"});
	listen_for(w, &kinds, &(struct api_events_filter){.types = "deleted,created"});
	api_events_emit(w->events, "created", "a", NULL, NULL);
	api_events_emit(w->events, "state", "b", NULL, NULL);
	api_events_emit(w->events, "job", NULL, NULL, NULL);
	api_events_emit(w->events, "deleted", "b", NULL, NULL);
	assert_string_equal(all.text, "created:a state:b job: deleted:b ");
	assert_int_equal(all.last - all.first, 3);
	assert_int_equal(all.last, api_events_last(w->events));
	assert_string_equal(one.text, "state:b deleted:b ");
	assert_string_equal(kinds.text, "created:a deleted:b ");
}

static void test_unknown_type(void **state)
{
	struct world *w = *state;
	struct api_listener *l;
	struct api_error err;
	const struct api_events_filter filter = {.types = "state,creatd"};

	assert_true(api_events_listen(w->events, &filter, on_event, NULL, &l, &err) < 0);
	assert_int_equal(err.kind, API_KIND_INVALID_PARAMS);
	assert_string_equal(err.field, "types");
	assert_non_null(strstr(err.text, "\"created\""));
}

static void test_replay(void **state)
{
	struct world *w = *state;
	uint64_t before = api_events_last(w->events);
	struct heard h;

	for (int i = 0; i < 10; i++)
		api_events_emit(w->events, "state", "a", NULL, NULL);
	listen_for(w, &h, &(struct api_events_filter){.replay = true, .since = before + 4});
	assert_int_equal(h.n, 6);
	assert_int_equal(h.first, before + 5);
	api_events_emit(w->events, "state", "a", NULL, NULL);
	assert_int_equal(h.n, 7);
	assert_false(api_events_lost(w->events, before));
	for (int i = 0; i < API_EVENTS_KEPT; i++)
		api_events_emit(w->events, "state", "a", NULL, NULL);
	assert_true(api_events_lost(w->events, before));
	listen_for(w, &h, &(struct api_events_filter){.replay = true, .since = 0});
	assert_int_equal(h.n, API_EVENTS_KEPT);
	assert_int_equal(h.last, api_events_last(w->events));
	/* A number that is still to come, as a mistaken client may ask for. */
	listen_for(w, &h, &(struct api_events_filter){.replay = true, .since = UINT64_MAX - 1});
	assert_int_equal(h.n, 0);
}

static void test_owners(void **state)
{
	struct world *w = *state;
	const struct api_caller ann = {.name = "unix:1"},
				root = {.name = "unix:0", .sees_all = true};
	struct heard one, all;

	api_events_emit(w->events, "state", "early", "unix:1", NULL);
	api_events_emit(w->events, "state", "early", "unix:2", NULL);
	listen_for(w, &one, &(struct api_events_filter){.caller = &ann, .replay = true});
	listen_for(w, &all, &(struct api_events_filter){.caller = &root, .replay = true});
	api_events_emit(w->events, "state", "hers", "unix:1", NULL);
	api_events_emit(w->events, "state", "not", "unix:2", NULL);
	api_events_emit(w->events, "state", "nobodys", NULL, NULL);
	assert_string_equal(one.text, "state:early state:hers ");
	assert_int_equal(all.n, 5);
}

static void test_flood(void **state)
{
	struct world *w = *state;
	struct heard h;

	listen_for(w, &h, &(struct api_events_filter){0});
	for (int i = 0; i < 1000; i++) {
		progress(w, "a", 1, i / 1000.0);
		progress(w, "a", 2, i / 1000.0);
		progress(w, "b", 1, i / 1000.0);
	}
	assert_string_equal(h.text, "progress:a progress:a progress:b ");
	/* What does not flood comes at once, and behind what waits about its machine. */
	api_events_emit(w->events, "state", "b", NULL, NULL);
	assert_string_equal(h.text, "progress:a progress:a progress:b progress:b state:b ");
	api_events_flush(w->events);
	assert_int_equal(h.n, 7);
	assert_int_equal(h.coalesced, 998);
	assert_true(h.fraction > 0.998);
	api_events_flush(w->events);
	assert_int_equal(h.n, 7);
}

/* However slow we are: only the loop lets the second pass. */
static void test_flood_goes_on(void **state)
{
	struct world *w = *state;
	struct heard h;

	listen_for(w, &h, &(struct api_events_filter){0});
	progress(w, "a", 1, 0.1);
	progress(w, "a", 1, 0.2);
	progress(w, "a", 1, 0.3);
	assert_int_equal(h.n, 1);
	while (h.n < 2)
		event_base_loop(w->base, EVLOOP_ONCE);
	assert_int_equal(h.coalesced, 1);
	assert_true(h.fraction > 0.29);
	progress(w, "a", 1, 0.4);
	assert_int_equal(h.n, 2); /* another second has begun */
	/* With nothing to tell, the loop has nothing left to do in the end. */
	event_base_dispatch(w->base);
	assert_int_equal(h.n, 3);
	progress(w, "a", 1, 0.5);
	assert_int_equal(h.n, 4);
}

static void test_ends_in_callback(void **state)
{
	struct world *w = *state;
	struct heard first, second, third;

	listen_for(w, &first, &(struct api_events_filter){0});
	first.self = listen_for(w, &second, &(struct api_events_filter){0});
	listen_for(w, &third, &(struct api_events_filter){0});
	/* The first ends the second before that is told. */
	api_events_emit(w->events, "state", "a", NULL, NULL);
	assert_int_equal(first.n, 1);
	assert_int_equal(second.n, 0);
	assert_int_equal(third.n, 1);
	first.self = listen_for(w, &second, &(struct api_events_filter){0});
	second.self = first.self;
	first.self = NULL;
	/* The second ends itself. */
	api_events_emit(w->events, "state", "a", NULL, NULL);
	api_events_emit(w->events, "state", "a", NULL, NULL);
	assert_int_equal(second.n, 1);
	assert_int_equal(third.n, 3);
}

/* ---- the file ---- */

static int folder = -1;

static int set_up_file(void **state)
{
	char path[] = "/tmp/test_api_events.XXXXXX";

	if (!mkdtemp(path))
		return -1;
	folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return folder < 0 ? -1 : set_up(state);
}

static int tear_down_file(void **state)
{
	char path[64], link[64];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", folder);
	n = readlink(link, path, sizeof(path) - 1);
	unlinkat(folder, "events", 0);
	assert_int_equal(unlinkat(folder, "events.tmp", 0), -1);
	if (n > 0) {
		path[n] = 0;
		assert_int_equal(rmdir(path), 0);
	}
	close(folder);
	return tear_down(state);
}

/* As another process would. */
static void begin_anew(struct world *w)
{
	api_events_destroy(w->events);
	assert_int_equal(api_events_create(&w->events, w->base), 0);
	assert_int_equal(api_events_keep(w->events, folder, "events"), 0);
}

static size_t lines_of_file(void)
{
	FILE *f = fdopen(openat(folder, "events", O_RDONLY), "r");
	size_t n = 0;
	int c;

	assert_non_null(f);
	while ((c = getc(f)) != EOF)
		n += c == '\n';
	fclose(f);
	return n;
}

static void test_kept_for_the_next(void **state)
{
	const struct api_caller ann = {.name = "unix:1"};
	struct world *w = *state;
	struct heard h;
	uint64_t first;

	begin_anew(w);
	first = api_events_last(w->events) + 1;
	api_events_emit(w->events, "created", "a", "unix:1", NULL);
	api_events_emit(w->events, "created", "b", NULL, NULL);
	progress(w, "a", 1, 0.5);
	for (int i = 0; i < 3; i++) {
		begin_anew(w);
		assert_int_equal(api_events_last(w->events), first + 2);
		assert_false(api_events_lost(w->events, first - 1));
		assert_true(api_events_lost(w->events, first - 2));
		listen_for(w, &h, &(struct api_events_filter){.replay = true});
		assert_string_equal(h.text, "created:a created:b progress:a ");
		assert_int_equal(h.first, first);
		listen_for(w, &h, &(struct api_events_filter){.replay = true, .caller = &ann});
		assert_string_equal(h.text, "created:a progress:a ");
	}
	/* It grows to twice of what is kept. */
	for (int i = 0; i < 3 * API_EVENTS_KEPT; i++) {
		api_events_emit(w->events, "state", "a", NULL, NULL);
		if (i % 512 == 0)
			assert_true(lines_of_file() <= 2 * API_EVENTS_KEPT);
	}
	first = api_events_last(w->events) - API_EVENTS_KEPT + 1;
	begin_anew(w);
	listen_for(w, &h, &(struct api_events_filter){.replay = true});
	assert_int_equal(h.n, API_EVENTS_KEPT);
	assert_int_equal(h.first, first);
}

/* What cannot be written is told all the same, and nobody takes what is left for the whole. */
static void test_full_disk(void **state)
{
	struct world *w = *state;
	struct rlimit before, now;
	struct heard h;
	uint64_t last;

	begin_anew(w);
	api_events_emit(w->events, "created", "a", NULL, NULL);
	last = api_events_last(w->events);
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	now = before;
	now.rlim_cur = 150;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &now), 0);
	listen_for(w, &h, &(struct api_events_filter){0});
	for (int i = 0; i < 3; i++)
		api_events_emit(w->events, "state", "a", NULL, NULL);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_int_equal(h.n, 3);
	assert_int_equal(faccessat(folder, "events", F_OK, 0), -1);
	api_events_emit(w->events, "state", "a", NULL, NULL);
	assert_int_equal(h.n, 4);
	begin_anew(w);
	assert_true(api_events_last(w->events) > last + 4);
	listen_for(w, &h, &(struct api_events_filter){.replay = true});
	assert_int_equal(h.n, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_kept_for_the_next, set_up_file,
						tear_down_file),
		cmocka_unit_test_setup_teardown(test_full_disk, set_up_file, tear_down_file),
		cmocka_unit_test_setup_teardown(test_filters, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_unknown_type, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_replay, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_owners, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_flood, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_flood_goes_on, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_ends_in_callback, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
