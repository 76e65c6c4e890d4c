/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Between sandbox.c and sandbox_filter.c. */
#ifndef UMBRA_VM_SANDBOX_INTERNAL_H
#define UMBRA_VM_SANDBOX_INTERNAL_H

#include "vm/sandbox.h"

/*
 * A sanitizer's runtime reads /proc, and traces the process from a clone of it when it looks for
 * leaks: what would stop that is left out of such a build, and reported as missing.
 */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANDBOX_SANITIZED 1
#else
#define SANDBOX_SANITIZED 0
#endif

/*
 * Translate the table into a program for each class. A call that is not in it kills the process
 * (@strict), or raises SIGSYS. With @kvm the rows that only a machine on /dev/kvm needs are in it.
 * 0 or -errno.
 */
int sandbox_filter_build(bool strict, bool kvm);
/* The calling thread's, for good; no_new_privs is set. 0 or -errno. */
int sandbox_filter_install(enum sandbox_class class);

#endif
