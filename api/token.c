/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bearer tokens: a file of NAME:LEVEL:HASH lines, so that who reads it has no token. */
#include "api/token.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include "api/schema.h"
#include "base/cleanup.h"
#include "base/fd.h"

#define FILE_MAX   MIB(1)
#define SALT_SIZE  16
#define SECRET_LEN 32 /* random bytes: a fast hash does, nobody can guess them */
#define PREFIX	   "umbra_"

/* HASH is "sha256$SALT$DIGEST", both in hexadecimal. */
static const char algorithm[] = "sha256";

struct entry {
	struct api_token token;
	unsigned char salt[SALT_SIZE], hash[SHA256_DIGEST_LENGTH];
};

struct api_tokens {
	struct entry *v;
	size_t n;
};

static void to_hex(char *out, const unsigned char *in, size_t len)
{
	for (size_t i = 0; i < len; i++)
		sprintf(out + 2 * i, "%02x", in[i]);
}

static bool from_hex(unsigned char *out, size_t len, const char *in, size_t in_len)
{
	if (in_len != 2 * len)
		return false;
	for (size_t i = 0; i < len; i++) {
		unsigned v;

		if (strspn(in + 2 * i, "0123456789abcdef") < 2 ||
		    sscanf(in + 2 * i, "%2x", &v) != 1)
			return false;
		out[i] = (unsigned char)v;
	}
	return true;
}

static void digest(unsigned char out[SHA256_DIGEST_LENGTH], const unsigned char salt[SALT_SIZE],
		   const char *secret)
{
	unsigned char text[SALT_SIZE + API_TOKEN_TEXT];
	const size_t len = strnlen(secret, API_TOKEN_TEXT);

	memcpy(text, salt, SALT_SIZE);
	memcpy(text + SALT_SIZE, secret, len);
	SHA256(text, SALT_SIZE + len, out);
	OPENSSL_cleanse(text, sizeof(text));
}

static bool parse_level(const char *text, size_t len, enum api_access *level)
{
	for (enum api_access i = API_READ; i <= API_ADMIN; i++)
		if (strlen(api_access_names[i]) == len &&
		    !strncmp(text, api_access_names[i], len)) {
			*level = i;
			return true;
		}
	return false;
}

/* One line without its end. What is wrong with it, or NULL. */
static const char *parse_line(const char *line, size_t len, struct entry *e)
{
	char text[256], *level, *hash, *salt, *sum;

	if (len >= sizeof(text) || memchr(line, 0, len))
		return "it is too long";
	memcpy(text, line, len);
	text[len] = 0;
	level = strchr(text, ':');
	hash = level ? strchr(level + 1, ':') : NULL;
	if (!hash)
		return "it is not NAME:LEVEL:HASH";
	*level++ = *hash++ = 0;
	if (!api_name_valid(text) || strlen(text) >= sizeof(e->token.name))
		return "the name is none";
	strcpy(e->token.name, text);
	if (!parse_level(level, strlen(level), &e->token.level))
		return "the level is none of read, operate, admin";
	salt = strchr(hash, '$');
	sum = salt ? strchr(salt + 1, '$') : NULL;
	if (!sum || strncmp(hash, algorithm, (size_t)(salt - hash)) ||
	    (size_t)(salt - hash) != strlen(algorithm))
		return "the hash is not sha256$SALT$DIGEST";
	salt++;
	if (!from_hex(e->salt, SALT_SIZE, salt, (size_t)(sum - salt)) ||
	    !from_hex(e->hash, sizeof(e->hash), sum + 1, strlen(sum + 1)))
		return "the hash is not sha256$SALT$DIGEST";
	memcpy(&e->token.id, e->hash, sizeof(e->token.id));
	e->token.id |= 1;
	return NULL;
}

/* The lines of a file, one at a time; comments and empty ones are passed over. */
static bool next_line(const char **text, const char **line, size_t *len, unsigned *number)
{
	while (**text) {
		*line = *text;
		*len = strcspn(*text, "\n");
		*text = *line + *len + ((*line)[*len] == '\n');
		++*number;
		if (*len && **line != '#')
			return true;
	}
	return false;
}

static int parse(struct api_tokens *tokens, const char *path, const char *text,
		 struct api_error *err)
{
	unsigned number = 0;
	const char *line;
	size_t len;

	while (next_line(&text, &line, &len, &number)) {
		struct entry *v = realloc(tokens->v, (tokens->n + 1) * sizeof(*v));
		const char *why;

		if (!v)
			return api_error_set(err, API_KIND_INTERNAL, "out of memory");
		tokens->v = v;
		why = parse_line(line, len, &v[tokens->n]);
		for (size_t i = 0; !why && i < tokens->n; i++)
			if (!strcmp(v[i].token.name, v[tokens->n].token.name))
				why = "the name is used above";
		if (why)
			return api_error_set(err, API_KIND_INVALID_PARAMS, "%s:%u: %s", path,
					     number, why);
		tokens->n++;
	}
	return 0;
}

/* The file's text; who else could write it could make itself admin. */
static int read_file(const char *path, struct buf *text, struct api_error *err)
{
	struct stat st;
	int ret;

	if (stat(path, &st) == 0 && (st.st_mode & 022))
		return api_error_set(err, API_KIND_DENIED, "%s may be written by others", path);
	ret = fd_read_file(AT_FDCWD, path, FILE_MAX, text);
	if (!ret)
		ret = buf_append(text, "", 1);
	if (ret)
		return api_error_set(err, api_kind_from_errno(ret), "%s cannot be read: %s", path,
				     strerror(-ret));
	return 0;
}

int api_tokens_load(struct api_tokens **out, const char *path, struct api_error *err)
{
	_cleanup_(buf_finish) struct buf text = {0};
	struct api_tokens *tokens;
	int ret = read_file(path, &text, err);

	if (ret)
		return ret;
	tokens = calloc(1, sizeof(*tokens));
	if (!tokens)
		return api_error_set(err, API_KIND_INTERNAL, "out of memory");
	ret = parse(tokens, path, text.data, err);
	if (ret)
		api_tokens_free(tokens);
	else
		*out = tokens;
	return ret;
}

void api_tokens_free(struct api_tokens *tokens)
{
	if (!tokens)
		return;
	free(tokens->v);
	free(tokens);
}

size_t api_tokens_count(const struct api_tokens *tokens)
{
	return tokens ? tokens->n : 0;
}

const struct api_token *api_tokens_at(const struct api_tokens *tokens, size_t i)
{
	return &tokens->v[i].token;
}

const struct api_token *api_tokens_find(const struct api_tokens *tokens, const char *secret)
{
	const struct api_token *found = NULL;
	unsigned char sum[SHA256_DIGEST_LENGTH];

	if (strnlen(secret, API_TOKEN_TEXT) >= API_TOKEN_TEXT)
		secret = "";
	for (size_t i = 0; i < api_tokens_count(tokens); i++) {
		const struct entry *e = &tokens->v[i];

		digest(sum, e->salt, secret);
		if (!CRYPTO_memcmp(sum, e->hash, sizeof(sum)))
			found = &e->token;
	}
	return found;
}

const struct api_token *api_tokens_by_id(const struct api_tokens *tokens, uint64_t id)
{
	for (size_t i = 0; i < api_tokens_count(tokens); i++)
		if (tokens->v[i].token.id == id)
			return &tokens->v[i].token;
	return NULL;
}

/* One at a time changes the file. The lock's descriptor, or -errno with *err. */
static int lock_file(const char *path, struct api_error *err)
{
	char name[4096];
	int fd = -1, e = ENAMETOOLONG;

	if ((size_t)snprintf(name, sizeof(name), "%s.lock", path) < sizeof(name)) {
		fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		e = errno;
	}
	if (fd < 0 || flock(fd, LOCK_EX) < 0)
		return api_error_set(err, api_kind_from_errno(e), "%s cannot be locked: %s", path,
				     strerror(e));
	return fd;
}

static int write_file(const char *path, const struct buf *text, struct api_error *err)
{
	int ret = text->failed ? -ENOMEM
			       : fd_write_file_atomic(AT_FDCWD, path, text->data ? text->data : "",
						      text->len, 0600);

	if (ret)
		return api_error_set(err, api_kind_from_errno(ret), "%s cannot be written: %s",
				     path, strerror(-ret));
	return 0;
}

static int make_line(struct buf *text, const char *name, enum api_access level,
		     char secret[API_TOKEN_TEXT])
{
	unsigned char salt[SALT_SIZE], random[SECRET_LEN], sum[SHA256_DIGEST_LENGTH];
	char salt_hex[2 * SALT_SIZE + 1], sum_hex[2 * SHA256_DIGEST_LENGTH + 1];

	if (getrandom(salt, sizeof(salt), 0) != sizeof(salt) ||
	    getrandom(random, sizeof(random), 0) != sizeof(random))
		return -EIO;
	strcpy(secret, PREFIX);
	to_hex(secret + strlen(PREFIX), random, sizeof(random));
	OPENSSL_cleanse(random, sizeof(random));
	digest(sum, salt, secret);
	to_hex(salt_hex, salt, sizeof(salt));
	to_hex(sum_hex, sum, sizeof(sum));
	if (text->len && text->data[text->len - 1] != '\n')
		buf_append(text, "\n", 1);
	return buf_printf(text, "%s:%s:%s$%s$%s\n", name, api_access_name(level), algorithm,
			  salt_hex, sum_hex);
}

/* The file as it is, "" when there is none, checked. */
static int read_tokens(const char *path, struct buf *text, struct api_tokens *tokens,
		       struct api_error *err)
{
	int ret;

	if (access(path, F_OK) < 0 && errno == ENOENT)
		return 0;
	ret = read_file(path, text, err);
	if (ret)
		return ret;
	buf_truncate(text, text->len - 1); /* the NUL, which stays behind the end */
	return parse(tokens, path, text->data, err);
}

static void tokens_clear(struct api_tokens *tokens)
{
	free(tokens->v);
}

int api_token_new(const char *path, const char *name, enum api_access level,
		  char secret[API_TOKEN_TEXT], struct api_error *err)
{
	_cleanup_(tokens_clear) struct api_tokens tokens = {0};
	_cleanup_(buf_finish) struct buf text = {0};
	_cleanup_close_ int lock = -1;
	int ret;

	if (!api_name_valid(name) || level < API_READ || level > API_ADMIN)
		return api_error_set(err, API_KIND_INVALID_PARAMS,
				     "a token needs a name (letters, digits, . _ -) and a level");
	lock = lock_file(path, err);
	ret = lock < 0 ? lock : read_tokens(path, &text, &tokens, err);
	if (ret)
		return ret;
	for (size_t i = 0; i < tokens.n; i++)
		if (!strcmp(tokens.v[i].token.name, name))
			return api_error_set(err, API_KIND_EXISTS,
					     "there is a token \"%s\" already", name);
	ret = make_line(&text, name, level, secret);
	if (ret)
		return api_error_set(err, api_kind_from_errno(ret), "no token can be made: %s",
				     strerror(-ret));
	return write_file(path, &text, err);
}

int api_token_revoke(const char *path, const char *name, struct api_error *err)
{
	_cleanup_(buf_finish) struct buf text = {0}, rest = {0};
	_cleanup_(tokens_clear) struct api_tokens tokens = {0};
	_cleanup_close_ int lock = lock_file(path, err);
	int ret = lock < 0 ? lock : read_tokens(path, &text, &tokens, err);
	const size_t len = strlen(name);
	bool found = false;

	if (ret)
		return ret;
	for (const char *line = text.data; line && *line;) {
		const size_t n = strcspn(line, "\n") + (line[strcspn(line, "\n")] == '\n');

		if (!strncmp(line, name, len) && line[len] == ':')
			found = true;
		else
			buf_append(&rest, line, n);
		line += n;
	}
	if (!found)
		return api_error_set(err, API_KIND_NOT_FOUND, "there is no token \"%s\"", name);
	return write_file(path, &rest, err);
}
