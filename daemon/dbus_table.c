/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The method table as D-Bus interfaces, by rule. */
#include "daemon/dbus_table.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/machine_def.h"
#include "base/cleanup.h"
#include "daemon/dbus.h"
#include "daemon/dbus_types.h"

const struct dbus_kind dbus_kinds[DBUS_KINDS] = {
	[DBUS_MANAGER] = {.folder = DBUS_ROOT,
			  .iface = DBUS_NAME ".Manager",
			  .show = "system.version"},
	[DBUS_MACHINE] = {.folder = DBUS_ROOT "/machine",
			  .id = "name",
			  .iface = DBUS_NAME ".Machine",
			  .show = "machine.show",
			  .list = "machine.list",
			  .array = "machines"},
	[DBUS_JOB] = {.folder = DBUS_ROOT "/job",
		      .id = "id",
		      .iface = DBUS_NAME ".Job",
		      .show = "job.show",
		      .list = "job.list",
		      .array = "jobs"},
};

int dbus_camel(const char *words, char *out, size_t len)
{
	bool up = true;
	size_t n = 0;

	for (; *words; words++) {
		if (strchr("._-", *words)) {
			up = true;
			continue;
		}
		if (n + 1 >= len)
			return -ENAMETOOLONG;
		out[n++] = up ? (char)toupper((unsigned char)*words) : *words;
		up = false;
	}
	out[n] = 0;
	return 0;
}

void dbus_error_name(enum api_kind kind, char out[DBUS_INTERFACE_MAX])
{
	memcpy(out, DBUS_ERROR_PREFIX, sizeof(DBUS_ERROR_PREFIX));
	dbus_camel(api_kind_name(kind), out + strlen(out), DBUS_INTERFACE_MAX - strlen(out));
}

static enum dbus_kind_id kind_of(const struct api_method *row)
{
	const struct api_field *name = api_field_find(&row->params, dbus_kinds[DBUS_MACHINE].id);
	const struct api_field *id = api_field_find(&row->params, dbus_kinds[DBUS_JOB].id);

	if (name && name->required && name->type == API_NAME)
		return DBUS_MACHINE;
	return id && id->required && !strncmp(row->name, "job.", 4) ? DBUS_JOB : DBUS_MANAGER;
}

bool dbus_positional(const struct dbus_kind *kind, const struct api_field *field)
{
	return field->required && !(kind->id && !strcmp(field->name, kind->id));
}

bool dbus_result_positional(const struct dbus_method *m, const struct api_field *field)
{
	return field->required && !(m->row->flags & API_M_LONG);
}

static int add(char *signature, const char *type)
{
	if (strlen(signature) + strlen(type) >= DBUS_SIGNATURE_MAX)
		return -ENAMETOOLONG;
	strcat(signature, type);
	return 0;
}

static int sign_params(struct dbus_method *m)
{
	const struct dbus_kind *kind = &dbus_kinds[m->kind];
	const struct api_fields *fields = &m->row->params;
	int ret = 0;

	for (size_t i = 0; !ret && i < fields->n; i++) {
		if (dbus_positional(kind, &fields->f[i]))
			ret = add(m->in, dbus_signature(&fields->f[i]));
		else if (!fields->f[i].required)
			m->has_options = true;
	}
	if (!ret && m->row->flags & API_M_FD_IN)
		ret = add(m->in, "h");
	return ret || !m->has_options ? ret : add(m->in, "a{sv}");
}

static int sign_result(struct dbus_method *m)
{
	const struct api_fields *fields = &m->row->result;
	int ret = m->row->flags & API_M_LONG ? add(m->out, "o") : 0;

	m->has_rest = m->row->flags & API_M_LONG || fields->n;
	for (size_t i = 0; !ret && i < fields->n; i++)
		if (dbus_result_positional(m, &fields->f[i]))
			ret = add(m->out, dbus_signature(&fields->f[i]));
	if (!ret && m->row->flags & API_M_FD_OUT && !m->has_rest)
		ret = add(m->out, "h");
	return ret || !m->has_rest ? ret : add(m->out, "a{sv}");
}

static int make_method(struct dbus_method *m, const struct api_method *row)
{
	const char *dot = strchr(row->name, '.');
	char word[DBUS_MEMBER_MAX] = "Manager";
	int ret;

	*m = (struct dbus_method){.row = row, .kind = kind_of(row)};
	if (m->kind == DBUS_MANAGER || !dot) {
		ret = dbus_camel(row->name, m->member, sizeof(m->member));
	} else {
		ret = dbus_camel(dot + 1, m->member, sizeof(m->member));
		snprintf(word, sizeof(word), "%.*s", (int)(dot - row->name), row->name);
		if (!ret)
			ret = dbus_camel(word, word, sizeof(word));
	}
	if (snprintf(m->iface, sizeof(m->iface), DBUS_NAME ".%.40s", word) >= (int)sizeof(m->iface))
		ret = -ENAMETOOLONG;
	if (!ret)
		ret = sign_params(m);
	return ret ? ret : sign_result(m);
}

/* The fields of @fields as properties; a name that is there already keeps its meaning. */
static int add_properties(struct dbus_table *t, enum dbus_kind_id kind,
			  const struct api_fields *fields, bool of_definition)
{
	struct dbus_property *p =
		realloc(t->properties[kind].p, (t->properties[kind].n + fields->n) * sizeof(*p));
	int ret = 0;

	if (!p)
		return fields->n ? -ENOMEM : 0;
	t->properties[kind].p = p;
	for (size_t i = 0; !ret && i < fields->n; i++) {
		const struct api_field *f = &fields->f[i];
		struct dbus_property next = {.field = f, .of_definition = of_definition};

		if (f->name[0] == '*')
			continue;
		if (f->type == API_OBJECT && f->object == &machine_def_fields)
			continue;
		ret = dbus_camel(f->name, next.name, sizeof(next.name));
		if (!ret && !dbus_table_property(t, kind, next.name))
			p[t->properties[kind].n++] = next;
	}
	return ret;
}

static int make_properties(struct dbus_table *t, enum dbus_kind_id kind,
			   const struct api_table *rows)
{
	const struct api_method *row = api_method_find(rows, dbus_kinds[kind].show);
	int ret = row ? add_properties(t, kind, &row->result, false) : 0;

	if (!ret && kind == DBUS_MACHINE)
		ret = add_properties(t, kind, &machine_def_fields, true);
	return ret;
}

int dbus_table_init(struct dbus_table *t, const struct api_table *rows)
{
	size_t n = api_method_count(rows);
	int ret = 0;

	*t = (struct dbus_table){.methods = calloc(n, sizeof(*t->methods))};
	if (!t->methods)
		return -ENOMEM;
	for (; !ret && t->n_methods < n; t->n_methods++)
		ret = make_method(&t->methods[t->n_methods], api_method_at(rows, t->n_methods));
	for (unsigned kind = 0; !ret && kind < DBUS_KINDS; kind++)
		ret = make_properties(t, (enum dbus_kind_id)kind, rows);
	if (ret)
		dbus_table_finish(t);
	return ret;
}

void dbus_table_finish(struct dbus_table *t)
{
	free(t->methods);
	for (unsigned kind = 0; kind < DBUS_KINDS; kind++)
		free(t->properties[kind].p);
	*t = (struct dbus_table){0};
}

const struct dbus_method *dbus_table_find(const struct dbus_table *t, enum dbus_kind_id kind,
					  const char *iface, const char *member)
{
	for (size_t i = 0; i < t->n_methods; i++) {
		const struct dbus_method *m = &t->methods[i];

		if (m->kind == kind && !strcmp(m->member, member) &&
		    (!iface || !strcmp(m->iface, iface)))
			return m;
	}
	return NULL;
}

const char *dbus_table_interface(const struct dbus_table *t, enum dbus_kind_id kind, size_t i)
{
	for (size_t k = 0; k < t->n_methods; k++) {
		bool seen = t->methods[k].kind != kind;

		for (size_t j = 0; !seen && j < k; j++)
			seen = t->methods[j].kind == kind &&
			       !strcmp(t->methods[j].iface, t->methods[k].iface);
		if (!seen && !i--)
			return t->methods[k].iface;
	}
	return NULL;
}

bool dbus_table_has(const struct dbus_table *t, enum dbus_kind_id kind, const char *iface)
{
	for (size_t i = 0; i < t->n_methods; i++)
		if (t->methods[i].kind == kind && !strcmp(t->methods[i].iface, iface))
			return true;
	return false;
}

const struct dbus_property *dbus_table_property(const struct dbus_table *t, enum dbus_kind_id kind,
						const char *name)
{
	for (size_t i = 0; i < t->properties[kind].n; i++)
		if (!strcmp(t->properties[kind].p[i].name, name))
			return &t->properties[kind].p[i];
	return NULL;
}

/* ---- introspection ---- */

static void print_escaped(struct buf *xml, const char *text)
{
	for (; *text; text++) {
		switch (*text) {
		case '<': buf_printf(xml, "&lt;"); break;
		case '>': buf_printf(xml, "&gt;"); break;
		case '&': buf_printf(xml, "&amp;"); break;
		case '"': buf_printf(xml, "&quot;"); break;
		default: buf_append(xml, text, 1);
		}
	}
}

static void describe_doc(struct buf *xml, const char *indent, const char *text)
{
	buf_printf(xml, "%s<annotation name=\"org.gtk.GDBus.DocString\" value=\"", indent);
	print_escaped(xml, text);
	buf_printf(xml, "\"/>\n");
}

static void describe_arg(struct buf *xml, const char *name, const char *type, bool in,
			 const char *help)
{
	buf_printf(xml, "   <arg name=\"%s\" type=\"%s\" direction=\"%s\">\n", name, type,
		   in ? "in" : "out");
	describe_doc(xml, "    ", help);
	buf_printf(xml, "   </arg>\n");
}

/* "optional: NAME (TYPE): what for; …" */
static void describe_dict(struct buf *xml, const struct dbus_method *m, bool in)
{
	const struct api_fields *fields = in ? &m->row->params : &m->row->result;
	_cleanup_(buf_finish) struct buf help = {0};

	buf_printf(&help, in ? "any of" : "what else there is");
	for (size_t i = 0; i < fields->n; i++) {
		const struct api_field *f = &fields->f[i];

		if (in ? f->required : dbus_result_positional(m, f))
			continue;
		buf_printf(&help, "%s %s (%s): %s", help.data && strchr(help.data, '(') ? ";" : "",
			   f->name, dbus_signature(f), f->help);
	}
	if (!in && m->row->flags & API_M_FD_OUT)
		buf_printf(&help, "; fd (h): the descriptor");
	describe_arg(xml,
		     in				  ? "options"
		     : m->row->flags & API_M_LONG ? "result"
						  : "rest",
		     "a{sv}", in, help.data ? help.data : "");
}

static void describe_method(struct buf *xml, const struct dbus_method *m)
{
	const struct api_fields *params = &m->row->params, *result = &m->row->result;

	buf_printf(xml, "  <method name=\"%s\">\n", m->member);
	describe_doc(xml, "   ", m->row->summary);
	for (size_t i = 0; i < params->n; i++)
		if (dbus_positional(&dbus_kinds[m->kind], &params->f[i]))
			describe_arg(xml, params->f[i].name, dbus_signature(&params->f[i]), true,
				     params->f[i].help);
	if (m->row->flags & API_M_FD_IN)
		describe_arg(xml, "fd", "h", true, "the descriptor");
	if (m->has_options)
		describe_dict(xml, m, true);
	if (m->row->flags & API_M_LONG)
		describe_arg(xml, "job", "o", false, "the job; / when it is over");
	for (size_t i = 0; i < result->n; i++)
		if (dbus_result_positional(m, &result->f[i]))
			describe_arg(xml, result->f[i].name, dbus_signature(&result->f[i]), false,
				     result->f[i].help);
	if (m->row->flags & API_M_FD_OUT && !m->has_rest)
		describe_arg(xml, "fd", "h", false, "the descriptor");
	if (m->has_rest)
		describe_dict(xml, m, false);
	buf_printf(xml, "  </method>\n");
}

static void describe_properties(struct buf *xml, const struct dbus_table *t, enum dbus_kind_id kind)
{
	for (size_t i = 0; i < t->properties[kind].n; i++) {
		const struct dbus_property *p = &t->properties[kind].p[i];

		buf_printf(xml, "  <property name=\"%s\" type=\"%s\" access=\"read\">\n", p->name,
			   dbus_signature(p->field));
		describe_doc(xml, "   ", p->field->help);
		if (kind == DBUS_MANAGER)
			buf_printf(xml, "   <annotation name=\"org.freedesktop.DBus.Property."
					"EmitsChangedSignal\" value=\"const\"/>\n");
		buf_printf(xml, "  </property>\n");
	}
}

/* What the manager tells; its arguments are put together in dbus_signals.c. */
static const char signals[] = "  <signal name=\"Event\">\n"
			      "   <arg name=\"seq\" type=\"t\"/>\n"
			      "   <arg name=\"time\" type=\"d\"/>\n"
			      "   <arg name=\"type\" type=\"s\"/>\n"
			      "   <arg name=\"machine\" type=\"s\"/>\n"
			      "   <arg name=\"more\" type=\"a{sv}\"/>\n"
			      "  </signal>\n"
			      "  <signal name=\"JobNew\">\n"
			      "   <arg name=\"job\" type=\"o\"/>\n"
			      "   <arg name=\"method\" type=\"s\"/>\n"
			      "   <arg name=\"machine\" type=\"s\"/>\n"
			      "  </signal>\n"
			      "  <signal name=\"JobRemoved\">\n"
			      "   <arg name=\"job\" type=\"o\"/>\n"
			      "   <arg name=\"method\" type=\"s\"/>\n"
			      "   <arg name=\"machine\" type=\"s\"/>\n"
			      "   <arg name=\"state\" type=\"s\"/>\n"
			      "  </signal>\n";

void dbus_table_describe(const struct dbus_table *t, enum dbus_kind_id kind, struct buf *xml)
{
	const char *iface;

	for (size_t i = 0; (iface = dbus_table_interface(t, kind, i)); i++) {
		buf_printf(xml, " <interface name=\"%s\">\n", iface);
		for (size_t k = 0; k < t->n_methods; k++)
			if (t->methods[k].kind == kind && !strcmp(t->methods[k].iface, iface))
				describe_method(xml, &t->methods[k]);
		if (kind == DBUS_MANAGER)
			buf_append(xml, signals, sizeof(signals) - 1);
		if (!strcmp(iface, dbus_kinds[kind].iface))
			describe_properties(xml, t, kind);
		buf_printf(xml, " </interface>\n");
	}
}
