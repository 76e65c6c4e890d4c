/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Method calls from the bus: found in the table, turned into calls of the dispatcher, answered in
 * native types. The interfaces of the D-Bus specification (properties, object manager,
 * introspection) are answered from what the table's own methods give the same caller, so that there
 * is one place that decides who sees what.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <fcntl.h>
#include <json-c/json.h>

#include "base/cleanup.h"
#include "daemon/auth.h"
#include "daemon/dbus_internal.h"
#include "daemon/dbus_types.h"
#include "daemon/machine.h"

#define STANDARD "org.freedesktop.DBus."

void dbus_request_destroy(struct dbus_request *r)
{
	list_del(&r->link);
	r->peer->n_requests--;
	if (r->call)
		api_call_gone(r->call);
	sd_bus_slot_unref(r->asking);
	sd_bus_message_unref(r->reply);
	sd_bus_message_unref(r->m);
	free(r->id);
	free(r);
}

/* ---- answers ---- */

static sd_bus_message *new_return(const struct dbus_request *r)
{
	sd_bus_message *m;

	return sd_bus_message_new_method_return(r->m, &m) < 0 ? NULL : m;
}

static void answer(struct dbus_request *r, sd_bus_message *m)
{
	struct dbus *b = r->peer->b;
	bool wanted = sd_bus_message_get_expect_reply(r->m) > 0;

	dbus_request_destroy(r);
	if (wanted)
		dbus_send(b, m);
	else
		sd_bus_message_unref(m);
}

/* An error with a name of the specification's. */
static void fail_standard(struct dbus_request *r, const char *name, const char *text)
{
	const sd_bus_error e = SD_BUS_ERROR_MAKE_CONST(name, text);
	sd_bus_message *m;

	if (sd_bus_message_new_method_error(r->m, &m, &e) < 0)
		dbus_request_destroy(r);
	else
		answer(r, m);
}

/* What else there is to say, behind the sentence. */
static int append_details(sd_bus_message *m, const struct api_error *err)
{
	int ret = sd_bus_message_open_container(m, 'a', "{sv}");

	if (ret >= 0)
		ret = sd_bus_message_append(m, "{sv}", "retryable", "b",
					    api_kind_retryable(err->kind));
	if (ret >= 0 && err->machine[0])
		ret = sd_bus_message_append(m, "{sv}", "machine", "s", err->machine);
	if (ret >= 0 && err->field[0])
		ret = sd_bus_message_append(m, "{sv}", "field", "s", err->field);
	return ret < 0 ? ret : sd_bus_message_close_container(m);
}

static sd_bus_message *new_error(sd_bus_message *call, const struct api_error *err)
{
	char name[DBUS_INTERFACE_MAX];
	struct api_error e = *err;
	sd_bus_message *m = NULL;

	api_make_utf8(e.text);
	api_make_utf8(e.machine);
	api_make_utf8(e.field);
	dbus_error_name(e.kind, name);
	if (sd_bus_message_new_method_error(call, &m, &SD_BUS_ERROR_MAKE_CONST(name, e.text)) < 0)
		return NULL;
	if (append_details(m, &e) >= 0)
		return m;
	sd_bus_message_unref(m);
	return NULL;
}

void dbus_request_fail(struct dbus_request *r, const struct api_error *err)
{
	sd_bus_message *m;

	/* An object that does not exist, or not for this caller: as the specification has it. */
	if (r->what != DBUS_CALL && err->kind == API_KIND_NOT_FOUND) {
		fail_standard(r, SD_BUS_ERROR_UNKNOWN_OBJECT, err->text);
		return;
	}
	m = new_error(r->m, err);
	if (m)
		answer(r, m);
	else
		dbus_request_destroy(r);
}

/* @m is finished, or @ret says why it cannot be. */
static void finish(struct dbus_request *r, sd_bus_message *m, int ret)
{
	struct api_error err;

	if (m && ret >= 0) {
		answer(r, m);
		return;
	}
	sd_bus_message_unref(m);
	if (ret == -ELOOP)
		api_error_set(&err, API_KIND_NOT_SUPPORTED, "the result is too deep for D-Bus");
	else
		api_error_set(&err, API_KIND_INTERNAL, "the result cannot be sent: %s",
			      strerror(m ? -ret : ENOMEM));
	dbus_request_fail(r, &err);
}

static struct json_object *member(struct json_object *obj, const char *name)
{
	struct json_object *v = NULL;

	if (json_object_is_type(obj, json_type_object))
		json_object_object_get_ex(obj, name, &v);
	return v;
}

/* ---- the table's methods ---- */

/* The a{sv} at the end: what has not gone out by position, and the descriptor if there is one. */
static int append_rest(sd_bus_message *m, const struct dbus_method *method,
		       struct json_object *result, int fd)
{
	const struct api_fields *fields = &method->row->result;
	const char **skip = calloc(fields->n + 2, sizeof(*skip));
	int ret = skip ? sd_bus_message_open_container(m, 'a', "{sv}") : -ENOMEM;
	size_t n = 0;

	for (size_t i = 0; skip && i < fields->n; i++)
		if (dbus_result_positional(method, &fields->f[i]))
			skip[n++] = fields->f[i].name;
	if (skip)
		skip[n++] = "fds";
	if (ret >= 0)
		ret = dbus_append_entries(m, fields, result, skip);
	if (ret >= 0 && fd >= 0)
		ret = sd_bus_message_append(m, "{sv}", "fd", "h", fd);
	free(skip);
	return ret < 0 ? ret : sd_bus_message_close_container(m);
}

/* "o" of a long call's job, and the result as far as there is one. */
static int append_job(sd_bus_message *m, struct json_object **result)
{
	struct json_object *id = member(*result, dbus_kinds[DBUS_JOB].id);
	_cleanup_free_ char *path =
		id ? dbus_path(DBUS_JOB, json_object_get_string(id)) : strdup("/");

	if (!path)
		return -ENOMEM;
	if (id)
		*result = member(*result, "result");
	return sd_bus_message_append_basic(m, 'o', path);
}

static int append_result(sd_bus_message *m, const struct dbus_request *r, bool job,
			 struct json_object *result, int fd)
{
	const struct api_fields *fields = &r->method->row->result;
	int ret = 0;

	if (job)
		ret = append_job(m, &result);
	else if (r->method->row->flags & API_M_LONG)
		ret = sd_bus_message_append_basic(m, 'o', "/");
	for (size_t i = 0; ret >= 0 && i < fields->n; i++)
		if (dbus_result_positional(r->method, &fields->f[i]))
			ret = dbus_append(m, &fields->f[i], member(result, fields->f[i].name));
	if (ret >= 0 && r->method->row->flags & API_M_FD_OUT && !r->method->has_rest)
		ret = sd_bus_message_append_basic(m, 'h', &fd); /* -EBADF without one */
	if (ret >= 0 && r->method->has_rest)
		ret = append_rest(m, r->method, result, fd);
	return ret;
}

static int read_params(struct dbus_request *r, struct json_object *params, int *fd,
		       struct api_error *err)
{
	const struct dbus_kind *kind = &dbus_kinds[r->kind];
	const struct api_fields *fields = &r->method->row->params;
	struct json_object *v;
	int ret = 0, borrowed;

	if (kind->id) {
		v = NULL;
		ret = api_field_from_text(api_field_find(fields, kind->id), r->id, &v, err);
		if (ret)
			return ret;
		json_object_object_add(params, kind->id, v);
	}
	for (size_t i = 0; !ret && i < fields->n; i++) {
		if (!dbus_positional(kind, &fields->f[i]))
			continue;
		v = NULL;
		ret = dbus_read(r->m, &fields->f[i], &v, err);
		if (!ret)
			json_object_object_add(params, fields->f[i].name, v);
	}
	if (!ret && r->method->row->flags & API_M_FD_IN) {
		if (sd_bus_message_read_basic(r->m, 'h', &borrowed) <= 0 ||
		    (*fd = fcntl(borrowed, F_DUPFD_CLOEXEC, 3)) < 0)
			ret = api_error_set(err, API_KIND_LIMIT, "no descriptor could be taken");
	}
	return ret || !r->options ? ret : dbus_read_dict(r->m, fields, params, err);
}

/* ---- the specification's interfaces ---- */

static sd_bus_message *append_get(struct dbus_request *r, struct json_object *result, int *ret)
{
	sd_bus_message *m = new_return(r);

	if (!m)
		*ret = -ENOMEM;
	else if (r->what == DBUS_GET)
		*ret = dbus_append_property(m, r->property, result);
	else if (r->props)
		*ret = dbus_append_properties(m, &r->peer->b->table, r->kind, result, false);
	else
		*ret = sd_bus_message_append(m, "a{sv}", 0);
	return m;
}

static void reply_introspect(struct dbus_request *r, struct json_object *result)
{
	const struct dbus_kind *kind = &dbus_kinds[r->kind];
	bool object = r->kind == DBUS_MANAGER || r->id;
	_cleanup_free_ char *xml = dbus_document(&r->peer->b->table, r->kind, object,
						 object ? NULL : member(result, kind->array));
	sd_bus_message *m = xml ? new_return(r) : NULL;

	finish(r, m, m ? sd_bus_message_append_basic(m, 's', xml) : -ENOMEM);
}

/* A job is told as long as it runs, and then as removed: it can be asked for some time more. */
static bool is_managed(enum dbus_kind_id kind, struct json_object *shown)
{
	struct json_object *state = member(shown, "state");

	return kind != DBUS_JOB || (state && !strcmp(json_object_get_string(state),
						     api_job_state_names[API_JOB_RUNNING]));
}

static int append_objects(struct dbus_request *r, struct json_object *list)
{
	const struct dbus_table *t = &r->peer->b->table;
	int ret = 0;

	for (size_t i = 0; ret >= 0 && i < json_object_array_length(list); i++) {
		struct json_object *shown = json_object_array_get_idx(list, i);
		_cleanup_free_ char *path = dbus_path(r->listing, dbus_id_of(r->listing, shown));

		if (!path)
			return -ENOMEM;
		if (!is_managed(r->listing, shown))
			continue;
		ret = sd_bus_message_open_container(r->reply, 'e', "oa{sa{sv}}");
		if (ret >= 0)
			ret = sd_bus_message_append_basic(r->reply, 'o', path);
		if (ret >= 0)
			ret = dbus_append_interfaces(r->reply, t, r->listing, shown);
		if (ret >= 0)
			ret = sd_bus_message_close_container(r->reply);
	}
	return ret;
}

static void dispatch(struct dbus_request *r, const char *method, struct json_object *params,
		     int fd);

/* One kind has been listed: put it into the answer, and list the next. */
static void reply_objects(struct dbus_request *r, struct json_object *result)
{
	struct json_object *list = member(result, dbus_kinds[r->listing].array);
	int ret = json_object_is_type(list, json_type_array) ? append_objects(r, list) : 0;

	if (ret >= 0 && ++r->listing < DBUS_KINDS) {
		dispatch(r, dbus_kinds[r->listing].list, NULL, -1);
		return;
	}
	if (ret >= 0)
		ret = sd_bus_message_close_container(r->reply);
	finish(r, TAKE_PTR(r->reply), ret);
}

/* ---- the dispatcher's answers ---- */

static void on_reply(void *priv, struct json_object *result, int fd)
{
	struct dbus_request *r = priv;
	bool job = r->method && r->method->row->flags & API_M_LONG && !r->waits;
	sd_bus_message *m;
	int ret;

	r->call = NULL;
	switch (r->what) {
	case DBUS_CALL:
		m = new_return(r);
		finish(r, m, m ? append_result(m, r, job, result, fd) : -ENOMEM);
		break;
	case DBUS_GET:
	case DBUS_GET_ALL:
		m = append_get(r, result, &ret);
		finish(r, m, ret);
		break;
	case DBUS_OBJECTS: reply_objects(r, result); break;
	case DBUS_INTROSPECT: reply_introspect(r, result); break;
	}
	json_object_put(result);
	if (fd >= 0)
		close(fd);
}

static void on_fail(void *priv, const struct api_error *err)
{
	struct dbus_request *r = priv;

	r->call = NULL;
	dbus_request_fail(r, err);
}

/* @fd is taken. */
static void dispatch(struct dbus_request *r, const char *method, struct json_object *params, int fd)
{
	static const struct api_reply_ops ops = {.reply = on_reply, .fail = on_fail};
	struct api_caller caller = r->peer->caller;
	struct api_call *call;

	caller.level = MAX(caller.level, r->level);
	caller.sees_all |= r->level == API_ADMIN;
	call = api_dispatch(&r->peer->b->d->dispatcher, method, params, fd, &caller, &ops, r);
	/* Without a call it has been answered, and @r is gone. */
	if (call)
		r->call = call;
}

static void begin_call(struct dbus_request *r)
{
	struct json_object *params = json_object_new_object();
	struct api_error err = {0};
	int fd = -1;

	if (!params)
		api_error_set(&err, API_KIND_INTERNAL, "out of memory");
	else
		read_params(r, params, &fd, &err);
	if (err.kind) {
		if (fd >= 0)
			close(fd);
		dbus_request_fail(r, &err);
	} else {
		r->waits = json_object_get_boolean(member(params, "wait"));
		dispatch(r, r->method->row->name, params, fd);
	}
	json_object_put(params);
}

/* Ask for no more than is needed, where the row has a word for it. */
static void add_brief(struct json_object *params, const struct api_method *row)
{
	if (api_field_find(&row->params, "brief"))
		json_object_object_add(params, "brief", json_object_new_boolean(true));
}

/* What an object shows, or a folder lists. */
static void begin_look(struct dbus_request *r)
{
	const struct dbus_kind *kind = &dbus_kinds[r->kind];
	const struct api_method *show;
	struct json_object *params, *v = NULL;
	struct api_error err;

	if (r->kind != DBUS_MANAGER && !r->id) {
		dispatch(r, kind->list, NULL, -1);
		return;
	}
	if (!kind->id) {
		dispatch(r, kind->show, NULL, -1);
		return;
	}
	show = api_method_find(r->peer->b->d->dispatcher.table, kind->show);
	/* What cannot be an id is the name of no object. */
	if (api_field_from_text(api_field_find(&show->params, kind->id), r->id, &v, &err)) {
		fail_standard(r, SD_BUS_ERROR_UNKNOWN_OBJECT, err.text);
		return;
	}
	params = json_object_new_object();
	json_object_object_add(params, kind->id, v);
	if (r->what == DBUS_INTROSPECT || (r->property && !r->property->of_definition))
		add_brief(params, show);
	dispatch(r, kind->show, params, -1);
	json_object_put(params);
}

static void begin_objects(struct dbus_request *r)
{
	int ret;

	r->reply = new_return(r);
	ret = r->reply ? sd_bus_message_open_container(r->reply, 'a', "{oa{sa{sv}}}") : -ENOMEM;
	if (ret < 0) {
		finish(r, TAKE_PTR(r->reply), ret);
		return;
	}
	r->listing = DBUS_MACHINE;
	dispatch(r, dbus_kinds[r->listing].list, NULL, -1);
}

void dbus_request_begin(struct dbus_request *r)
{
	switch (r->what) {
	case DBUS_CALL: begin_call(r); break;
	case DBUS_OBJECTS: begin_objects(r); break;
	default: begin_look(r); break;
	}
}

/* ---- messages ---- */

/* Which object the path names. -ENOENT: none that could be. */
static int parse_path(struct dbus_request *r, const char *path)
{
	if (!strcmp(path, DBUS_ROOT)) {
		r->kind = DBUS_MANAGER;
		return 0;
	}
	for (unsigned kind = DBUS_MACHINE; kind < DBUS_KINDS; kind++) {
		r->kind = (enum dbus_kind_id)kind;
		if (!strcmp(path, dbus_kinds[kind].folder))
			return 0;
		if (sd_bus_path_decode(path, dbus_kinds[kind].folder, &r->id) > 0)
			return 0;
	}
	return -ENOENT;
}

static bool is_folder(const struct dbus_request *r)
{
	return r->kind != DBUS_MANAGER && !r->id;
}

static int refuse_standard(const char *name, const char *text, sd_bus_error *ret_error)
{
	return sd_bus_error_set(ret_error, name, text);
}

/* org.freedesktop.DBus.Properties. 0, or -errno with *ret_error. */
static int parse_properties(struct dbus_request *r, const char *member_name,
			    sd_bus_error *ret_error)
{
	const struct dbus_table *t = &r->peer->b->table;
	const char *iface, *name = NULL;
	bool all = !strcmp(member_name, "GetAll");
	int ret;

	if (is_folder(r))
		return refuse_standard(SD_BUS_ERROR_UNKNOWN_OBJECT, "This is no object.",
				       ret_error);
	ret = sd_bus_message_read_basic(r->m, 's', &iface);
	if (ret > 0 && !all)
		ret = sd_bus_message_read_basic(r->m, 's', &name);
	if (ret <= 0)
		return refuse_standard(SD_BUS_ERROR_INVALID_ARGS, "These are no properties.",
				       ret_error);
	if (iface[0] && !dbus_table_has(t, r->kind, iface))
		return refuse_standard(SD_BUS_ERROR_UNKNOWN_INTERFACE,
				       "There is no such interface here.", ret_error);
	r->props = !iface[0] || !strcmp(iface, dbus_kinds[r->kind].iface);
	r->what = all ? DBUS_GET_ALL : DBUS_GET;
	r->property = name && r->props ? dbus_table_property(t, r->kind, name) : NULL;
	if (!all && !r->property)
		return refuse_standard(SD_BUS_ERROR_UNKNOWN_PROPERTY, "There is no such property.",
				       ret_error);
	if (!strcmp(member_name, "Set"))
		return refuse_standard(SD_BUS_ERROR_PROPERTY_READ_ONLY,
				       "Properties are changed by methods only.", ret_error);
	return 0;
}

/* The interfaces of the specification. 1: it is none of these; 0; or -errno with *ret_error. */
static int parse_standard(struct dbus_request *r, sd_bus_error *ret_error)
{
	static const struct {
		const char *iface, *member, *signature;
		enum dbus_what what;
	} known[] = {
		{STANDARD "Properties", "Get", "ss", DBUS_GET},
		{STANDARD "Properties", "GetAll", "s", DBUS_GET_ALL},
		{STANDARD "Properties", "Set", "ssv", DBUS_GET},
		{STANDARD "Introspectable", "Introspect", "", DBUS_INTROSPECT},
		{STANDARD "ObjectManager", "GetManagedObjects", "", DBUS_OBJECTS},
	};
	const char *iface = sd_bus_message_get_interface(r->m);
	const char *name = sd_bus_message_get_member(r->m);

	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if ((iface && strcmp(iface, known[i].iface)) || strcmp(name, known[i].member))
			continue;
		if (known[i].what == DBUS_OBJECTS && r->kind != DBUS_MANAGER)
			continue;
		if (!sd_bus_message_has_signature(r->m, known[i].signature))
			return refuse_standard(SD_BUS_ERROR_INVALID_ARGS,
					       "These are not the method's arguments.", ret_error);
		r->what = known[i].what;
		return i < 3 ? parse_properties(r, name, ret_error) : 0;
	}
	return 1;
}

static const char *member_at(const void *data, size_t i)
{
	return ((const struct dbus_method *)data)[i].member;
}

static int unknown_method(const struct dbus_request *r, struct api_error *err)
{
	const struct dbus_table *t = &r->peer->b->table;
	const char *iface = sd_bus_message_get_interface(r->m);
	const char *name = sd_bus_message_get_member(r->m);
	const char *near = api_nearest(name, member_at, t->n_methods, t->methods);
	const struct dbus_method *there = NULL;

	/* Two methods of a name may be nearest; only one that is here helps. */
	if (near)
		there = dbus_table_find(t, r->kind, iface, near);
	return api_error_set(
		err, API_KIND_METHOD_NOT_FOUND, "there is no method \"%.64s\" here%s%s%s", name,
		there ? "; did you mean \"" : "", there ? there->member : "", there ? "\"?" : "");
}

/* The a{sv} at the end may be left out. */
static bool fits(const struct dbus_method *method, const char *signature, bool *options)
{
	size_t all = strlen(method->in), without = all - strlen(method->has_options ? "a{sv}" : "");

	*options = method->has_options && !strcmp(signature, method->in);
	return *options ||
	       (strlen(signature) == without && !strncmp(signature, method->in, without));
}

/* Our own interfaces. 0, or -errno with *err. */
static int parse_call(struct dbus_request *r, struct api_error *err)
{
	const char *iface = sd_bus_message_get_interface(r->m);
	const char *name = sd_bus_message_get_member(r->m);
	const char *signature = sd_bus_message_get_signature(r->m, true);

	r->what = DBUS_CALL;
	r->method = is_folder(r) ? NULL : dbus_table_find(&r->peer->b->table, r->kind, iface, name);
	if (!r->method)
		return unknown_method(r, err);
	if (fits(r->method, signature ? signature : "", &r->options))
		return 0;
	return api_error_set(err, API_KIND_INVALID_PARAMS,
			     "%s takes arguments of the types \"%s\", not \"%.64s\"", name,
			     r->method->in, signature ? signature : "");
}

/* A call at or below our root, to an interface of ours or of the specification's: whatever else
 * comes, sd-bus knows what to say. */
static bool is_ours(sd_bus_message *m)
{
	const char *path = sd_bus_message_get_path(m), *iface = sd_bus_message_get_interface(m);
	const size_t root = sizeof(DBUS_ROOT) - 1;
	uint8_t type;

	if (sd_bus_message_get_type(m, &type) < 0 || type != SD_BUS_MESSAGE_METHOD_CALL ||
	    !sd_bus_message_get_destination(m) || strncmp(path, DBUS_ROOT, root) ||
	    (path[root] && path[root] != '/'))
		return false;
	if (!iface || !strncmp(iface, DBUS_NAME ".", sizeof(DBUS_NAME)))
		return true;
	return !strncmp(iface, STANDARD, sizeof(STANDARD) - 1) && strcmp(iface, STANDARD "Peer");
}

/* ---- the short way ---- */

/* The machine whose object @path is, when its name needed no escaping; NULL: look closer. */
static struct machine *plain_machine(struct dbus *b, const char *path)
{
	const size_t folder = strlen(dbus_kinds[DBUS_MACHINE].folder);

	if (strncmp(path, dbus_kinds[DBUS_MACHINE].folder, folder) || path[folder] != '/' ||
	    strchr(path + folder + 1, '_'))
		return NULL;
	return machine_find(b->d, path + folder + 1);
}

/* The property of a machine's state that is asked for; NULL: something else is. */
static const struct dbus_property *asked_property(struct dbus *b, sd_bus_message *m)
{
	const struct dbus_kind *kind = &dbus_kinds[DBUS_MACHINE];
	const struct dbus_property *p;
	const char *iface, *name;

	if (sd_bus_message_is_method_call(m, STANDARD "Properties", "Get") <= 0 ||
	    !sd_bus_message_has_signature(m, "ss") ||
	    sd_bus_message_read_basic(m, 's', &iface) <= 0 ||
	    sd_bus_message_read_basic(m, 's', &name) <= 0 || strcmp(iface, kind->iface))
		return NULL;
	p = dbus_table_property(&b->table, DBUS_MACHINE, name);
	return p && !p->of_definition ? p : NULL;
}

static int answer_property(struct dbus *b, sd_bus_message *m, const struct dbus_property *p,
			   struct json_object *v)
{
	sd_bus_message *reply = NULL;
	int ret = sd_bus_message_new_method_return(m, &reply);

	if (ret >= 0)
		ret = dbus_append_value(reply, p, v);
	if (ret >= 0)
		dbus_send(b, reply);
	else
		sd_bus_message_unref(reply);
	return ret;
}

/*
 * What is asked most often: one property of a machine that is there for a caller who may read.
 * That is answered from the machine, counted as machine.show. Everything else, each refusal too,
 * goes the long way.
 */
static bool quick_get(struct dbus_peer *peer, sd_bus_message *m)
{
	const double began = api_dispatch_clock();
	const struct dbus_property *p = NULL;
	struct dbus *b = peer->b;
	struct json_object *v;
	struct machine *machine;
	int ret;

	if (!peer->known || peer->caller.level < API_READ)
		return false;
	machine = plain_machine(b, sd_bus_message_get_path(m));
	if (machine && machine_visible(machine, &peer->caller))
		p = asked_property(b, m);
	if (!p || !sd_bus_message_get_expect_reply(m)) {
		sd_bus_message_rewind(m, true);
		return false;
	}
	peer->reads = true;
	v = machine_member_to_json(machine, p->field->name);
	ret = answer_property(b, m, p, v);
	json_object_put(v);
	if (ret >= 0)
		api_dispatch_count(&b->d->dispatcher, b->show_machine, &peer->caller,
				   machine->def.name, began);
	else
		sd_bus_message_rewind(m, true);
	return ret >= 0;
}

/* ---- from the bus ---- */

/* 1: it will be answered; or -errno, with *ret_error for an answer by sd-bus. */
static int route(struct dbus_request *r, sd_bus_error *ret_error)
{
	struct api_error err;
	int ret;

	if (parse_path(r, sd_bus_message_get_path(r->m))) {
		ret = refuse_standard(SD_BUS_ERROR_UNKNOWN_OBJECT, "There is no such object.",
				      ret_error);
		dbus_request_destroy(r);
		return ret;
	}
	ret = parse_standard(r, ret_error);
	if (ret < 0) {
		dbus_request_destroy(r);
		return ret;
	}
	if (ret > 0 && parse_call(r, &err))
		dbus_request_fail(r, &err);
	else
		dbus_authorize(r);
	return 1;
}

int dbus_on_message(sd_bus_message *m, void *bus, sd_bus_error *ret_error)
{
	struct dbus *b = bus;
	struct dbus_peer *peer;
	struct dbus_request *r;
	struct api_error err;
	sd_bus_message *refusal;

	if (!is_ours(m))
		return 0;
	peer = dbus_peer_get(b, m);
	if (peer && quick_get(peer, m))
		return 1;
	r = peer && peer->n_requests < DBUS_CALLS_MAX ? calloc(1, sizeof(*r)) : NULL;
	if (!r) {
		api_error_set(&err, API_KIND_LIMIT,
			      "too many calls in flight, or too many connections");
		refusal = new_error(m, &err);
		if (refusal)
			dbus_send(b, refusal);
		return 1;
	}
	r->peer = peer;
	r->m = sd_bus_message_ref(m);
	r->level = API_NOBODY;
	list_add_tail(&peer->requests, &r->link);
	peer->n_requests++;
	return route(r, ret_error);
}
