/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* umbrad.conf: sections and fields as tables, read over the defaults, errors with file and line. */
#include "daemon/config.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/util.h>
#include <json-c/json.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fd.h"

#define FILE_MAX    MIB(1)
#define LIST_MAX    4095
#define FIELDS_MAX  16 /* of a section */
#define DAY	    86400
#define ERRORS_TOLD 100 /* of one load: a file of garbage fills no log */

static const char *const level_names[] = {"none", "read", "operate", "admin", NULL};
static const char *const unit_names[] = {"auto", "never", "always", NULL};
static const char *const log_target_names[] = {"auto", "journal", "stderr", NULL};
static const char *const log_level_names[] = {"error", "warning", "info", "debug", NULL};

#define LISTEN(member)	 .offset = offsetof(struct config_listen, member)
#define TLS(member)	 .offset = offsetof(struct config_tls, member)
#define ACCESS(member)	 .offset = offsetof(struct config_access, member)
#define MACHINES(member) .offset = offsetof(struct config_machines, member)
#define LIMITS(member)	 .offset = offsetof(struct config_limits, member)
#define LOG(member)	 .offset = offsetof(struct config_log, member)
#define LIST		 .type = API_STRING, .max = LIST_MAX

static const struct api_field listen_rows[] = {
	{.name = "tls",
	 LIST,
	 LISTEN(tls),
	 .help = "addresses for JSON-RPC over TLS, such as *:16800 or [::1]:16800"},
	{.name = "https", LIST, LISTEN(https), .help = "addresses for REST over TLS"},
	{.name = "read_only",
	 .type = API_BOOL,
	 LISTEN(read_only),
	 .dflt = "true",
	 .help = "umbrad-ro.sock, on which nothing can be changed"},
	{.name = "http",
	 .type = API_BOOL,
	 LISTEN(http),
	 .dflt = "true",
	 .help = "umbrad-http.sock: REST without TLS on a Unix socket"},
	{.name = "dbus",
	 .type = API_BOOL,
	 LISTEN(dbus),
	 .dflt = "true",
	 .help = "org.umbra.Vmm1 on the bus, where there is one"},
	{.name = "backlog",
	 .type = API_INT,
	 .min = 1,
	 .max = 65535,
	 LISTEN(backlog),
	 .dflt = "1024",
	 .help = "connections that wait to be accepted, of each socket"},
};

static const struct api_field tls_rows[] = {
	{.name = "cert",
	 .type = API_PATH,
	 TLS(cert),
	 .help = "umbrad's certificate with the chain behind it, PEM"},
	{.name = "key", .type = API_PATH, TLS(key), .help = "the key of that certificate, PEM"},
	{.name = "ca", .type = API_PATH, TLS(ca), .help = "who signs clients' certificates, PEM"},
	{.name = "crl", .type = API_PATH, TLS(crl), .help = "the revoked ones of them, PEM"},
	{.name = "tokens",
	 .type = API_PATH,
	 TLS(tokens),
	 .help = "the file of hashed bearer tokens; without it there are none"},
};

static const struct api_field access_rows[] = {
	{.name = "admin_groups",
	 LIST,
	 ACCESS(admin_groups),
	 .help = "Unix groups whose members may do all"},
	{.name = "operate_groups",
	 LIST,
	 ACCESS(operate_groups),
	 .dflt = "umbra",
	 .help = "Unix groups whose members own machines of their own"},
	{.name = "read_groups",
	 LIST,
	 ACCESS(read_groups),
	 .help = "Unix groups whose members may look"},
	{.name = "admin_certs",
	 LIST,
	 ACCESS(admin_certs),
	 .help = "common names of certificates, with * and ?, that may do all"},
	{.name = "operate_certs",
	 LIST,
	 ACCESS(operate_certs),
	 .help = "common names that own machines of their own"},
	{.name = "read_certs", LIST, ACCESS(read_certs), .help = "common names that may look"},
	{.name = "other_certs",
	 .type = API_ENUM,
	 .choices = level_names,
	 ACCESS(other_certs),
	 .dflt = "none",
	 .help = "what the owner of any other valid certificate may do"},
	{.name = "other_users",
	 .type = API_ENUM,
	 .choices = level_names,
	 ACCESS(other_users),
	 .dflt = "none",
	 .help = "what any other local user may do"},
};

static const struct api_field machines_rows[] = {
	{.name = "units",
	 .type = API_ENUM,
	 .choices = unit_names,
	 MACHINES(units),
	 .dflt = "auto",
	 .help = "whether each machine is a systemd service of its own"},
	{.name = "sandbox",
	 .type = API_ENUM,
	 .choices = machine_sandbox_names,
	 MACHINES(sandbox),
	 .dflt = "auto",
	 .help = "the sandbox of machines whose definition says nothing"},
	{.name = "kvm",
	 .type = API_ENUM,
	 .choices = machine_kvm_use_names,
	 MACHINES(kvm),
	 .dflt = "hardware",
	 .help = "engine auto takes /dev/kvm where the processor has virtualization, wherever it "
		 "is, or "
		 "no machine may use it"},
	{.name = "watchdog",
	 .type = API_NUMBER,
	 .max = 3600,
	 MACHINES(watchdog),
	 .dflt = "0.5",
	 .help = "seconds without an answer until a machine's process counts as hung; 0: never"},
	{.name = "start_timeout",
	 .type = API_NUMBER,
	 .min = 1,
	 .max = 3600,
	 MACHINES(start_timeout),
	 .dflt = "60",
	 .help = "seconds that a machine's process has to start its guest"},
	{.name = "stop_timeout",
	 .type = API_NUMBER,
	 .max = DAY,
	 MACHINES(stop_timeout),
	 .dflt = "60",
	 .help = "seconds from the power button to force, where the call does not say"},
	{.name = "restart_delay",
	 .type = API_NUMBER,
	 .max = DAY,
	 MACHINES(restart_delay),
	 .dflt = "1",
	 .help = "seconds until a restart by policy, doubled from one to the next"},
	{.name = "restart_delay_max",
	 .type = API_NUMBER,
	 .max = DAY,
	 MACHINES(restart_delay_max),
	 .dflt = "60",
	 .help = "where the doubling ends"},
	{.name = "restart_reset",
	 .type = API_NUMBER,
	 .max = DAY,
	 MACHINES(restart_reset),
	 .dflt = "600",
	 .help = "seconds of running after which the delay is as at first"},
	{.name = "shutdown_timeout",
	 .type = API_NUMBER,
	 .max = DAY,
	 MACHINES(shutdown_timeout),
	 .dflt = "90",
	 .help = "seconds that all machines have when the host shuts down"},
	{.name = "max",
	 .type = API_INT,
	 .min = 1,
	 .max = 10000,
	 MACHINES(max),
	 .dflt = "10000",
	 .help = "the most machines that may be defined"},
	{.name = "max_per_owner",
	 .type = API_INT,
	 .min = 1,
	 .max = 10000,
	 MACHINES(max_per_owner),
	 .dflt = "10000",
	 .help = "the same of one owner who is no admin"},
};

static const struct api_field limits_rows[] = {
	{.name = "connections",
	 .type = API_INT,
	 .min = 8,
	 .max = 60000,
	 LIMITS(connections),
	 .dflt = "4096",
	 .help = "connections at a time, of all transports together"},
	{.name = "connections_per_caller",
	 .type = API_INT,
	 .min = 4,
	 .max = 60000,
	 LIMITS(connections_per_caller),
	 .dflt = "2048",
	 .help = "connections of one user or address; admins have no such limit"},
	{.name = "calls",
	 .type = API_INT,
	 .min = 1,
	 .max = 1024,
	 LIMITS(calls),
	 .dflt = "64",
	 .help = "calls in flight on one connection"},
	{.name = "handshake_timeout",
	 .type = API_NUMBER,
	 .min = 1,
	 .max = 600,
	 LIMITS(handshake_timeout),
	 .dflt = "10",
	 .help = "seconds for the TLS handshake, and for a request that has begun"},
	{.name = "idle_timeout",
	 .type = API_NUMBER,
	 .max = DAY,
	 LIMITS(idle_timeout),
	 .dflt = "0",
	 .help = "seconds until a connection without calls and events is closed; 0: never"},
	{.name = "jobs",
	 .type = API_INT,
	 .min = 1,
	 .max = 65536,
	 LIMITS(jobs),
	 .dflt = "256",
	 .help = "finished jobs that are kept"},
	{.name = "job_keep",
	 .type = API_NUMBER,
	 .min = 1,
	 .max = DAY,
	 LIMITS(job_keep),
	 .dflt = "600",
	 .help = "seconds for which one is kept"},
};

static const struct api_field log_rows[] = {
	{.name = "level",
	 .type = API_ENUM,
	 .choices = log_level_names,
	 LOG(level),
	 .dflt = "info",
	 .help = "the least urgent messages that are logged"},
	{.name = "target",
	 .type = API_ENUM,
	 .choices = log_target_names,
	 LOG(target),
	 .dflt = "auto",
	 .help = "where to; auto: the journal when systemd started umbrad"},
};

static const struct api_fields listen_fields = API_FIELDS("[listen]", listen_rows);
static const struct api_fields tls_fields = API_FIELDS("[tls]", tls_rows);
static const struct api_fields access_fields = API_FIELDS("[access]", access_rows);
static const struct api_fields machines_fields = API_FIELDS("[machines]", machines_rows);
static const struct api_fields limits_fields = API_FIELDS("[limits]", limits_rows);
static const struct api_fields log_fields = API_FIELDS("[log]", log_rows);

#define SECTION(name_, help_)                                                                      \
	{                                                                                          \
		.name = #name_, .type = API_OBJECT, .object = &name_##_fields, .help = (help_),    \
		.offset = offsetof(struct umbrad_config, name_)                                    \
	}

static const struct api_field section_rows[] = {
	SECTION(listen, "where umbrad listens; read when it starts"),
	SECTION(tls, "keys and trust of the TLS addresses"),
	SECTION(access, "who may do what"),
	SECTION(machines, "all machines"),
	SECTION(limits, "bounds on clients"),
	SECTION(log, "umbrad's messages"),
};
#define SECTIONS ARRAY_SIZE(section_rows)

const struct api_fields umbrad_config_fields = API_FIELDS("the configuration", section_rows);

static_assert(ARRAY_SIZE(machines_rows) <= FIELDS_MAX, "the longest section fits");

/* One load: where each field was last given, for errors that only the whole shows. */
struct reader {
	struct umbrad_config *config;
	config_say say;
	void *data;
	unsigned errors;
	const char *file;
	unsigned line;
	const struct api_field *section; /* NULL: none yet, or an unknown one */
	struct place {
		const char *file;
		unsigned line;
	} given[SECTIONS][FIELDS_MAX];
};

static void *section_of(struct umbrad_config *config, const struct api_field *section)
{
	return (char *)config + section->offset;
}

static __attribute__((format(printf, 2, 3))) void complain(struct reader *r, const char *fmt, ...)
{
	_cleanup_(buf_finish) struct buf b = {0};
	char text[640];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (r->errors++ >= ERRORS_TOLD)
		return;
	buf_printf(&b, "%s:", r->file);
	if (r->line)
		buf_printf(&b, "%u:", r->line);
	buf_printf(&b, " %s", text);
	r->say(r->data, b.data ? b.data : text);
}

/* A value of @field in @section, which has been checked, is put into the configuration. */
static int load_value(struct umbrad_config *config, const struct api_field *section,
		      const struct api_field *field, struct json_object *value)
{
	const struct api_fields one = {.what = "", .f = field, .n = 1};
	struct json_object *obj = json_object_new_object();
	int ret = -ENOMEM;

	if (obj && !json_object_object_add(obj, field->name, json_object_get(value)))
		ret = api_fields_load(&one, obj, section_of(config, section));
	json_object_put(obj);
	return ret;
}

static int load_text(struct umbrad_config *config, const struct api_field *section,
		     const struct api_field *field, const char *text, struct api_error *err)
{
	struct json_object *value = NULL;
	int ret = api_field_from_text(field, text, &value, err);

	if (!ret && load_value(config, section, field, value))
		ret = api_error_set(err, API_KIND_INTERNAL, "out of memory");
	json_object_put(value);
	return ret;
}

int umbrad_config_init(struct umbrad_config *config)
{
	memset(config, 0, sizeof(*config));
	for (size_t s = 0; s < SECTIONS; s++) {
		const struct api_fields *fields = section_rows[s].object;

		for (size_t i = 0; i < fields->n; i++) {
			if (fields->f[i].dflt && load_text(config, &section_rows[s], &fields->f[i],
							   fields->f[i].dflt, NULL)) {
				umbrad_config_finish(config);
				return -ENOMEM;
			}
		}
	}
	return 0;
}

void umbrad_config_finish(struct umbrad_config *config)
{
	for (size_t s = 0; s < SECTIONS; s++)
		api_fields_free(section_rows[s].object, section_of(config, &section_rows[s]));
}

/* Blanks at both ends are taken off. */
static char *trim(char *text)
{
	size_t len;

	text += strspn(text, " \t\r\v\f");
	len = strlen(text);
	while (len && strchr(" \t\r\v\f", text[len - 1]))
		text[--len] = 0;
	return text;
}

static void read_section(struct reader *r, char *text)
{
	char *end = strchr(text, ']');
	struct json_object *obj;
	struct api_error err;

	r->section = NULL;
	if (!end || end[1]) {
		complain(r, "a section is \"[NAME]\", nothing behind it");
		return;
	}
	*end = 0;
	r->section = api_field_find(&umbrad_config_fields, text + 1);
	if (r->section)
		return;
	obj = json_object_new_object();
	if (obj && !json_object_object_add(obj, text + 1, NULL) &&
	    api_fields_check(&umbrad_config_fields, obj, "", &err))
		complain(r, "%s", err.text);
	json_object_put(obj);
}

/* As people write truths. */
static const char *bool_text(const char *text)
{
	static const char *const yes[] = {"yes", "on", "1"}, *const no[] = {"no", "off", "0"};

	for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
		if (!strcasecmp(text, yes[i]))
			return "true";
		if (!strcasecmp(text, no[i]))
			return "false";
	}
	return text;
}

/* "[tls] certt: unknown field …" */
static void unknown_key(struct reader *r, const char *key)
{
	struct json_object *obj = json_object_new_object();
	struct api_error err;

	if (obj && !json_object_object_add(obj, key, NULL) &&
	    api_fields_check(r->section->object, obj, "", &err))
		complain(r, "%s", err.text);
	json_object_put(obj);
}

static void read_value(struct reader *r, const char *key, const char *value)
{
	const struct api_field *field = api_field_find(r->section->object, key);
	struct place *given;
	struct api_error err;

	if (!field) {
		unknown_key(r, key);
		return;
	}
	given = &r->given[r->section - section_rows][field - r->section->object->f];
	if (given->file && !strcmp(given->file, r->file)) {
		complain(r, "[%s] %s: given in line %u already", r->section->name, key,
			 given->line);
		return;
	}
	*given = (struct place){r->file, r->line};
	if (!*value) { /* as if it had not been given */
		const struct api_fields one = {.what = "", .f = field, .n = 1};

		api_fields_free(&one, section_of(r->config, r->section));
		value = field->type == API_STRING || field->type == API_PATH ? NULL : field->dflt;
	} else if (field->type == API_BOOL) {
		value = bool_text(value);
	}
	if (value && load_text(r->config, r->section, field, value, &err))
		complain(r, "[%s] %s", r->section->name, err.text);
}

static void read_line(struct reader *r, char *text)
{
	char *equals;

	text = trim(text);
	if (!*text || *text == '#' || *text == ';')
		return;
	if (*text == '[') {
		read_section(r, text);
		return;
	}
	equals = strchr(text, '=');
	if (!equals) {
		complain(r, "neither \"[SECTION]\" nor \"FIELD = VALUE\"");
		return;
	}
	*equals = 0;
	/* The keys of a section that was refused are not looked at. */
	if (r->section)
		read_value(r, trim(text), trim(equals + 1));
	else if (!r->errors)
		complain(r, "\"%.64s\" stands before any section", trim(text));
}

static void read_text(struct reader *r, const char *file, const char *text, size_t len)
{
	_cleanup_free_ char *copy = strndup(text, len);
	char *line, *next = copy;

	r->file = file;
	r->line = 0;
	r->section = NULL;
	if (!copy)
		complain(r, "out of memory");
	else if (memchr(text, 0, len))
		complain(r, "this is no text: it has a NUL");
	else
		while ((line = strsep(&next, "\n"))) {
			r->line++;
			read_line(r, line);
		}
	r->line = 0;
}

size_t config_word(const char **list, const char **word)
{
	size_t len;

	if (!*list)
		return 0;
	*list += strspn(*list, " \t,");
	*word = *list;
	len = strcspn(*list, " \t,");
	*list += len;
	return len;
}

int config_address(const char *word, size_t len, struct sockaddr_storage *addr)
{
	int size = sizeof(*addr);
	char text[128];

	if (len >= sizeof(text))
		return -EINVAL;
	memset(addr, 0, sizeof(*addr));
	if (len > 1 && word[0] == '*' && word[1] == ':') /* both families */
		snprintf(text, sizeof(text), "[::]%.*s", (int)(len - 1), word + 1);
	else
		snprintf(text, sizeof(text), "%.*s", (int)len, word);
	if (evutil_parse_sockaddr_port(text, (struct sockaddr *)addr, &size))
		return -EINVAL;
	/* The port stands at the same place in both. */
	return ((struct sockaddr_in *)addr)->sin_port ? 0 : -EINVAL;
}

/* What is wrong with @member of @section although it is well formed. */
static void complain_at(struct reader *r, const void *section, const void *member, const char *text)
{
	size_t s = 0, i = 0;
	const char *file = r->file;
	const struct api_fields *fields;
	const struct place *given;

	while (section_of(r->config, &section_rows[s]) != section)
		s++;
	fields = section_rows[s].object;
	while ((const char *)section + fields->f[i].offset != member)
		i++;
	given = &r->given[s][i];
	r->line = given->line;
	if (given->file)
		r->file = given->file;
	complain(r, "[%s] %s: %s", section_rows[s].name, fields->f[i].name, text);
	r->file = file;
	r->line = 0;
}

static void check_addresses(struct reader *r, char *const *list)
{
	struct sockaddr_storage addr;
	const char *rest = *list, *word;
	size_t len;

	while ((len = config_word(&rest, &word))) {
		char text[200];

		if (!config_address(word, len, &addr))
			continue;
		snprintf(text, sizeof(text),
			 "\"%.*s\" is no ADDRESS:PORT (a number, [::1], or * for all)",
			 (int)MIN(len, (size_t)80), word);
		complain_at(r, &r->config->listen, list, text);
	}
}

/* What one field says about another. */
static void check_whole(struct reader *r)
{
	const struct config_listen *listen = &r->config->listen;
	const struct config_tls *tls = &r->config->tls;
	const struct config_machines *machines = &r->config->machines;
	bool wanted = listen->tls || listen->https;

	check_addresses(r, &r->config->listen.tls);
	check_addresses(r, &r->config->listen.https);
	if (wanted && !tls->cert)
		complain_at(r, tls, &tls->cert, "is needed by the TLS addresses of [listen]");
	if (wanted && !tls->key)
		complain_at(r, tls, &tls->key, "is needed by the TLS addresses of [listen]");
	if (wanted && !tls->ca && !tls->tokens)
		complain_at(r, tls, &tls->ca,
			    "is needed by the TLS addresses of [listen], unless there are tokens");
	if (tls->crl && !tls->ca)
		complain_at(r, tls, &tls->crl, "means nothing without ca");
	if (machines->restart_delay > machines->restart_delay_max)
		complain_at(r, machines, &machines->restart_delay,
			    "is longer than restart_delay_max");
}

static void read_file(struct reader *r, const char *file, bool optional)
{
	_cleanup_(buf_finish) struct buf b = {0};
	int ret = fd_read_file(AT_FDCWD, file, FILE_MAX, &b);

	if (!ret) {
		read_text(r, file, b.data ? b.data : "", b.len);
		return;
	}
	r->file = file;
	if (ret != -ENOENT || !optional)
		complain(r, "cannot be read: %s", strerror(-ret));
}

/* Where the configuration is when nobody says; NULL: no memory, or no home. */
static char *default_file(bool system)
{
	const char *home = getenv("HOME"), *config = getenv("XDG_CONFIG_HOME");
	char *file = NULL;
	int len = -1;

	if (system)
		return strdup("/etc/umbra/umbrad.conf");
	if (config && config[0] == '/')
		len = asprintf(&file, "%s/umbra/umbrad.conf", config);
	else if (home && home[0] == '/')
		len = asprintf(&file, "%s/.config/umbra/umbrad.conf", home);
	return len < 0 ? NULL : file;
}

static void read_all(struct reader *r, const char *file, bool optional)
{
	_cleanup_free_ char *pattern = NULL;
	glob_t found = {0};

	r->file = file;
	read_file(r, file, optional);
	if (asprintf(&pattern, "%s.d/*.conf", file) < 0) {
		pattern = NULL;
		complain(r, "out of memory");
	} else if (glob(pattern, 0, NULL, &found) == 0) {
		for (size_t i = 0; i < found.gl_pathc; i++)
			read_file(r, found.gl_pathv[i], false);
	}
	r->file = file;
	r->line = 0;
	if (!r->errors)
		check_whole(r);
	globfree(&found);
}

int umbrad_config_load(struct umbrad_config *config, const char *file, bool system, config_say say,
		       void *data)
{
	struct reader r = {.config = config, .say = say, .data = data};
	_cleanup_free_ char *dflt = NULL;
	bool optional = false;
	int ret = umbrad_config_init(config);

	if (ret)
		return ret;
	if (!file)
		file = getenv("UMBRA_CONFIG");
	if (!file) {
		optional = true;
		file = dflt = default_file(system);
	}
	if (file)
		read_all(&r, file, optional);
	if (!r.errors)
		return 0;
	umbrad_config_finish(config);
	ret = umbrad_config_init(config);
	return ret ? ret : -EINVAL;
}

unsigned umbrad_config_parse(struct umbrad_config *config, const char *file, const char *text,
			     size_t len, config_say say, void *data)
{
	struct reader r = {.config = config, .say = say, .data = data};

	read_text(&r, file, text, len);
	if (!r.errors)
		check_whole(&r);
	return r.errors;
}

/* "from 1 to 64", "none, read or admin": what may stand there, where the help does not say it. */
static void print_range(const struct api_field *f, FILE *out)
{
	if (f->type == API_INT || f->type == API_NUMBER)
		fprintf(out, " (%lld to %lld)", (long long)f->min, (long long)f->max);
	if (f->type != API_ENUM)
		return;
	fputs(" (", out);
	for (size_t i = 0; f->choices[i]; i++)
		fprintf(out, "%s%s", i ? ", " : "", f->choices[i]);
	fputc(')', out);
}

void umbrad_config_print(FILE *out)
{
	fputs("# umbrad's configuration: umbrad.conf(5). What is commented out is the default.\n"
	      "# Put changes into umbrad.conf.d/NAME.conf beside this file, and check them with\n"
	      "# \"umbrad --check\"; \"systemctl reload umbrad\" brings them into effect.\n",
	      out);
	for (size_t s = 0; s < SECTIONS; s++) {
		const struct api_fields *fields = section_rows[s].object;

		fprintf(out, "\n# %s\n[%s]\n", section_rows[s].help, section_rows[s].name);
		for (size_t i = 0; i < fields->n; i++) {
			const struct api_field *f = &fields->f[i];

			fprintf(out, "# %s", f->help);
			print_range(f, out);
			fprintf(out, "\n#%s =%s%s\n", f->name, f->dflt ? " " : "",
				f->dflt ? f->dflt : "");
		}
	}
}

bool umbrad_config_replace(struct umbrad_config *config, struct umbrad_config *next)
{
	struct json_object *old = api_fields_save(&listen_fields, &config->listen);
	struct json_object *new = api_fields_save(&listen_fields, &next->listen);
	bool differs = old && new && !json_object_equal(old, new);
	struct config_listen listen = next->listen;
	struct umbrad_config past = *config;

	json_object_put(old);
	json_object_put(new);
	*config = *next;
	config->listen = past.listen;
	past.listen = listen;
	*next = past;
	umbrad_config_finish(next);
	return differs;
}
