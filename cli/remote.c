/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A umbrad that is not the one of this host and user: --connect and what goes with it. */
#include "cli/remote.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <json-c/json.h>

#include "api/tls.h"
#include "base/cleanup.h"
#include "cli/vmctl.h"

static const struct api_field fields[] = {
	{.name = "connect",
	 .type = API_STRING,
	 .max = 4096,
	 .help = "another umbrad: unix:PATH, tls://HOST[:PORT] or ssh://[USER@]HOST[:PORT]"},
	{.name = "tls_ca",
	 .type = API_PATH,
	 .help = "tls://: certificates of those we trust to name a umbrad; else the system's"},
	{.name = "tls_cert", .type = API_PATH, .help = "tls://: our certificate"},
	{.name = "tls_key", .type = API_PATH, .help = "tls://: its key"},
	{.name = "token_file",
	 .type = API_PATH,
	 .help = "tls://: a file with our token, instead of a certificate"},
};
const struct api_fields remote_options = API_FIELDS("the options", fields);

static struct remote chosen;

const struct remote *remote_chosen(void)
{
	return &chosen;
}

bool remote_is_far(void)
{
	return chosen.kind == REMOTE_TLS || chosen.kind == REMOTE_SSH;
}

void remote_finish(void)
{
	free(chosen.path);
	free(chosen.user);
	free(chosen.host);
	free(chosen.port);
	chosen = (struct remote){0};
}

/* "[user@]host[:port]", the host perhaps in brackets. 0, or -EINVAL. */
static int parse_authority(const char *text, bool user)
{
	const char *at = user ? strrchr(text, '@') : NULL, *end, *port;

	if (at) {
		chosen.user = strndup(text, (size_t)(at - text));
		text = at + 1;
	}
	if (*text == '[') {
		end = strchr(++text, ']');
		if (!end || (end[1] && end[1] != ':'))
			return -EINVAL;
		port = end + 1;
	} else {
		end = port = text + strcspn(text, ":/");
		if (strchr(*port ? port + 1 : port, ':'))
			return -EINVAL; /* an IPv6 address wants its brackets */
	}
	chosen.host = strndup(text, (size_t)(end - text));
	if (*port == ':') {
		chosen.port = strdup(port + 1);
		if (!chosen.port || !*chosen.port ||
		    strspn(chosen.port, "0123456789") != strlen(chosen.port))
			return -EINVAL;
	} else if (*port && strcmp(port, "/") != 0) {
		return -EINVAL;
	}
	/* Neither may be taken for an option of ssh's. */
	return !chosen.host || !*chosen.host || *chosen.host == '-' ||
			       (chosen.user && (!*chosen.user || *chosen.user == '-'))
		       ? -EINVAL
		       : 0;
}

static int parse(const char *text)
{
	if (!strncmp(text, "unix:", 5)) {
		text += !strncmp(text, "unix://", 7) ? 7 : 5;
		chosen.kind = REMOTE_UNIX;
		chosen.path = strdup(text);
		return *text ? 0 : -EINVAL;
	}
	if (!strncmp(text, "tls://", 6)) {
		chosen.kind = REMOTE_TLS;
		return parse_authority(text + 6, false);
	}
	if (!strncmp(text, "ssh://", 6)) {
		chosen.kind = REMOTE_SSH;
		return parse_authority(text + 6, true);
	}
	return -EINVAL;
}

int remote_choose(struct json_object *options, struct api_error *err)
{
	const char *text = string_of(options, "connect", getenv("UMBRA_CONNECT"));

	chosen.ca = string_of(options, "tls_ca", getenv("UMBRA_TLS_CA"));
	chosen.cert = string_of(options, "tls_cert", getenv("UMBRA_TLS_CERT"));
	chosen.key = string_of(options, "tls_key", getenv("UMBRA_TLS_KEY"));
	chosen.token_file = string_of(options, "token_file", getenv("UMBRA_TOKEN_FILE"));
	if (text && *text && parse(text))
		return api_error_field(err, "connect",
				       "\"%.200s\" is no address: unix:PATH, tls://HOST[:PORT] or "
				       "ssh://[USER@]HOST[:PORT]",
				       text);
	if (!chosen.cert != !chosen.key)
		return api_error_field(err, chosen.cert ? "tls_key" : "tls_cert",
				       "a certificate and its key go together");
	return 0;
}

/* ---- ssh ---- */

#define SSH_WORDS 12

/* "ssh MODE [-p PORT] [-l USER] -- HOST vmctl"; how many words that is. */
static size_t start_words(const char *argv[SSH_WORDS], const char *mode)
{
	const char *program = getenv("UMBRA_SSH");
	size_t n = 0;

	argv[n++] = program && *program ? program : "ssh";
	argv[n++] = mode;
	if (chosen.port) {
		argv[n++] = "-p";
		argv[n++] = chosen.port;
	}
	if (chosen.user) {
		argv[n++] = "-l";
		argv[n++] = chosen.user;
	}
	argv[n++] = "--";
	argv[n++] = chosen.host;
	argv[n++] = "vmctl";
	return n;
}

static void __attribute__((noreturn)) exec_words(const char *const *argv)
{
	execvp(argv[0], (char *const *)argv);
	fprintf(stderr, "vmctl: cannot run %s: %s\n", argv[0], strerror(errno));
	_exit(127);
}

void remote_exec_there(const struct args *args)
{
	const char *argv[SSH_WORDS];
	size_t n = start_words(argv, isatty(STDIN_FILENO) ? "-t" : "-T");

	/* A machine's name has no character that a shell would take for anything else. */
	argv[n++] = args->verb->name;
	argv[n++] = string_of(args->params, "name", "");
	argv[n] = NULL;
	exec_words(argv);
}

static void __attribute__((noreturn)) exec_relay(int fd)
{
	const char *argv[SSH_WORDS];
	size_t n = start_words(argv, "-T");

	argv[n++] = "relay";
	argv[n] = NULL;
	if (dup2(fd, STDIN_FILENO) >= 0 && dup2(fd, STDOUT_FILENO) >= 0)
		exec_words(argv);
	_exit(127);
}

int remote_connect_ssh(struct api_error *err)
{
	int pair[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return api_error_set(err, API_KIND_IO, "no socket pair: %s", strerror(errno));
	pid = fork();
	if (pid == 0)
		exec_relay(pair[1]);
	close(pair[1]);
	if (pid < 0) {
		close(pair[0]);
		return api_error_set(err, API_KIND_IO, "cannot fork: %s", strerror(errno));
	}
	return pair[0]; /* ssh ends when we close it, and is init's to reap when we end first */
}

/* ---- TLS ---- */

/* The first line of the token's file. 0, or -errno with *err. */
static int read_token(char *out, size_t len, struct api_error *err)
{
	FILE *f = fopen(chosen.token_file, "re");
	bool ok = f && fgets(out, (int)len, f);

	if (f)
		fclose(f);
	if (!ok)
		return api_error_field(err, "token_file", "%.200s cannot be read",
				       chosen.token_file);
	out[strcspn(out, "\r\n")] = 0;
	return 0;
}

/* Say who we are, where no certificate does. */
static int authenticate(struct api_client *client, struct api_error *err)
{
	struct json_object *params;
	struct api_reply reply;
	char token[256];
	int ret = read_token(token, sizeof(token), err);

	if (ret)
		return ret;
	params = json_object_new_object();
	json_object_object_add(params, "token", json_object_new_string(token));
	explicit_bzero(token, sizeof(token));
	ret = api_client_call(client, "system.authenticate", params, 0, &reply);
	if (ret)
		*err = reply.err;
	api_reply_finish(&reply);
	return ret;
}

int remote_connect_tls(struct api_client **out, const struct connection *c, struct api_error *err)
{
	const struct api_tls_config config = {
		.cert = chosen.cert,
		.key = chosen.key,
		.ca = chosen.ca,
	};
	struct api_client_where where = {
		.base = c->base,
		.host = chosen.host,
		.port = chosen.port ? chosen.port : REMOTE_TLS_PORT,
	};
	int ret = api_tls_create(&where.tls, &config, err);

	if (ret)
		return ret;
	ret = api_client_connect_tls(out, &where, c->ops, c->data, err);
	api_tls_destroy(where.tls);
	if (!ret && chosen.token_file) {
		ret = authenticate(*out, err);
		if (ret) {
			api_client_destroy(*out);
			*out = NULL;
		}
	}
	return ret;
}
