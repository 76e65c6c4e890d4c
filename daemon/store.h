/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What umbrad keeps on disk. Every write is atomic and done before it is acted on. */
#ifndef UMBRA_DAEMON_STORE_H
#define UMBRA_DAEMON_STORE_H

#include "daemon/machine.h"

/* Make the folders and open them. 0, or -errno with *err. */
int store_open(struct umbrad *d, struct api_error *err);
void store_close(struct umbrad *d);
/* Load every definition, and adopt machines that run; strays are ended. */
int store_load(struct umbrad *d);
int store_save_definition(const struct machine *m);
/* When the definition was written; seconds since 1970. 0: it cannot be found out. */
double store_defined(const struct machine *m);
int store_save_exit(const struct machine *m);
/*
 * RUNTIME/vm/NAME.json: the run, and what was asked of it; or, with restart_at, the restart that is
 * due. Written before any of it is acted on.
 */
int store_save_run(const struct machine *m);
void store_load_run(struct machine *m);
/* Whether anything of a run is there. */
bool store_has_run(const struct machine *m);
/* The report that umbra-vm left. 0, or -errno when there is none (that is whole). */
int store_read_report(const struct machine *m, struct vm_report *report);
bool store_has_report(const struct machine *m);
/* Forget the run: socket, report, and unless @keep_record the record. */
void store_remove_run(const struct machine *m, bool keep_record);
/* Forget the machine: definition, last end, logs. */
void store_remove(const struct machine *m);
/* "NAME" "SUFFIX" in @out (128 bytes). */
void store_name(char out[128], const char *name, const char *suffix);

/* Open a log for appending or reading. @vm: umbra-vm's own, else the console's. -errno. */
int store_open_log(const struct machine *m, bool vm, int flags);
/* Keep umbra-vm's own logs within their bound. */
void store_trim_logs(struct umbrad *d);

#endif
