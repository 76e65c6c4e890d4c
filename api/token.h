/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bearer tokens: a file of NAME:LEVEL:HASH lines, so that who reads it has no token. */
#ifndef UMBRA_API_TOKEN_H
#define UMBRA_API_TOKEN_H

#include "api/error.h"
#include "api/method.h"

#define API_TOKEN_TEXT 96 /* "umbra_" NAME-free random text and NUL fit */
#define API_TOKEN_NAME 64

struct api_token {
	char name[API_TOKEN_NAME];
	enum api_access level;
	uint64_t id; /* never 0; another one of the same name has another */
};

struct api_tokens;

/* Read @path (a file of at most 1 MiB that others cannot write). 0, or -errno with *err that names
 * file and line. */
int api_tokens_load(struct api_tokens **out, const char *path, struct api_error *err);
void api_tokens_free(struct api_tokens *tokens); /* NULL-safe */
size_t api_tokens_count(const struct api_tokens *tokens);
const struct api_token *api_tokens_at(const struct api_tokens *tokens, size_t i);
/* Whose @secret it is, or NULL (also when @tokens is). Takes the same time for every wrong one. */
const struct api_token *api_tokens_find(const struct api_tokens *tokens, const char *secret);
/* The one that api_tokens_find() found once, if it is still there. */
const struct api_token *api_tokens_by_id(const struct api_tokens *tokens, uint64_t id);
/* Make a token, write it into the file (made when there is none, mode 0600, atomically) and its
 * text, which nothing keeps, to @secret. -EEXIST: the name is taken. */
int api_token_new(const char *path, const char *name, enum api_access level,
		  char secret[API_TOKEN_TEXT], struct api_error *err);
/* Take it out of the file. -ENOENT: there is none. */
int api_token_revoke(const char *path, const char *name, struct api_error *err);

#endif
