/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The oracle: paging by the book (SDM volume 3, chapter "Paging"), entry by entry. */
#include "oracle.h"

#include <string.h>

static bool bit(uint64_t v, unsigned n)
{
	return v >> n & 1;
}

/* Bits hi..lo of v, in place. */
static uint64_t field(uint64_t v, unsigned hi, unsigned lo)
{
	uint64_t ones = hi == 63 ? ~0ull : (1ull << (hi + 1)) - 1;

	return v & ones & ~((1ull << lo) - 1);
}

static bool paging(const struct oracle_regs *r)
{
	return bit(r->cr0, 31);
}
static bool pae(const struct oracle_regs *r)
{
	return bit(r->cr4, 5);
}
static bool lma(const struct oracle_regs *r)
{
	return bit(r->efer, 10);
}
static bool nxe(const struct oracle_regs *r)
{
	return pae(r) && bit(r->efer, 11);
}

/* Fetch entry and note it; false ends the translation. */
static bool fetch(const struct oracle_mem *mem, uint64_t gpa, unsigned size,
		  struct oracle_xlat *out)
{
	struct oracle_entry *e = &out->entry[out->n];

	e->gpa = gpa;
	e->size = size;
	if (!mem->read(mem->priv, gpa, size, &e->value)) {
		/* Umbra's rule: what is absent reads as ones, which sets a reserved bit. */
		out->kind = ORACLE_RESERVED;
		return false;
	}
	out->n++;
	if (!bit(e->value, 0)) {
		out->kind = ORACLE_NOT_PRESENT;
		return false;
	}
	return true;
}

static void grant(struct oracle_xlat *out, uint64_t e, bool nx)
{
	out->w = out->w && bit(e, 1);
	out->u = out->u && bit(e, 2);
	out->a = out->a && bit(e, 5);
	out->x = out->x && !(nx && bit(e, 63));
}

static void finish(struct oracle_xlat *out, uint64_t e, uint64_t base, uint64_t la, unsigned shift)
{
	out->kind = ORACLE_OK;
	out->g = bit(e, 8);
	out->d = bit(e, 6);
	out->frame = base + field(la, shift - 1, 0) - field(la, 11, 0);
}

static void translate_32(const struct oracle_regs *r, const struct oracle_mem *mem, uint64_t la,
			 struct oracle_xlat *out)
{
	unsigned m = r->width < 40 ? r->width : 40;
	uint64_t pde, pte;

	if (!fetch(mem, field(r->cr3, 31, 12) + (la >> 22) * 4, 4, out))
		return;
	pde = out->entry[0].value;
	grant(out, pde, false);
	if (bit(r->cr4, 4) && bit(pde, 7)) {
		if (field(pde, 21, m - 32 + 13)) {
			out->kind = ORACLE_RESERVED;
			return;
		}
		finish(out, pde, field(pde, 31, 22) + (field(pde, 20, 13) >> 13 << 32), la, 22);
		return;
	}
	if (!fetch(mem, field(pde, 31, 12) + (la >> 12 & 0x3ff) * 4, 4, out))
		return;
	pte = out->entry[1].value;
	grant(out, pte, false);
	finish(out, pte, field(pte, 31, 12), la, 12);
}

static bool reserved_64(const struct oracle_regs *r, uint64_t e, unsigned level)
{
	if (r->width < 52 && field(e, 51, r->width))
		return true;
	if (bit(e, 63) && !nxe(r))
		return true;
	if (!lma(r) && field(e, 62, 52))
		return true;
	if (!bit(e, 7) || level == 1)
		return false;
	if (level >= 4)
		return true;
	if (level == 3)
		return !r->gbpages || field(e, 29, 13);
	return field(e, 20, 13);
}

static void translate_64(const struct oracle_regs *r, const struct oracle_mem *mem, uint64_t la,
			 struct oracle_xlat *out)
{
	unsigned level = lma(r) ? (bit(r->cr4, 12) ? 5 : 4) : 2;
	uint64_t table = field(r->cr3, 51, 12);

	if (!lma(r)) {
		uint64_t pdpte = r->pdptr[la >> 30 & 3];

		if (!bit(pdpte, 0)) {
			out->kind = ORACLE_NOT_PRESENT;
			return;
		}
		table = field(pdpte, 51, 12);
	}
	for (;; level--) {
		unsigned shift = 12 + 9 * (level - 1);
		uint64_t e;

		if (!fetch(mem, table + (la >> shift & 0x1ff) * 8, 8, out))
			return;
		e = out->entry[out->n - 1].value;
		if (reserved_64(r, e, level)) {
			out->kind = ORACLE_RESERVED;
			return;
		}
		grant(out, e, nxe(r));
		table = field(e, 51, 12);
		if (level == 1 || bit(e, 7)) {
			if (lma(r))
				out->key = e >> 59 & 15;
			finish(out, e, field(e, 51, shift), la, shift);
			return;
		}
	}
}

void oracle_translate(const struct oracle_regs *regs, const struct oracle_mem *mem, uint64_t la,
		      struct oracle_xlat *out)
{
	memset(out, 0, sizeof(*out));
	out->w = out->u = out->x = out->a = true;
	if (!paging(regs)) {
		out->frame = field(la, 31, 12);
		out->d = true;
		return;
	}
	if (!lma(regs))
		la = (uint32_t)la;
	if (!pae(regs))
		translate_32(regs, mem, la, out);
	else
		translate_64(regs, mem, la, out);
}

uint32_t oracle_judge(const struct oracle_regs *r, const struct oracle_xlat *x, unsigned access)
{
	bool write = access & OACC_W, fetching = access & OACC_X;
	bool implicit = access & OACC_IMPLICIT, user = access & OACC_U && !implicit;
	bool wp = bit(r->cr0, 16), smep = bit(r->cr4, 20), smap = bit(r->cr4, 21);
	bool pke = lma(r) && bit(r->cr4, 22);
	uint32_t code = ORACLE_FAULT | (write ? 2 : 0) | (user ? 4 : 0);
	bool ok = true, key_ok = true;

	if (!paging(r))
		return 0;
	if (fetching && (nxe(r) || smep))
		code |= 16;
	if (x->kind == ORACLE_NOT_PRESENT)
		return code;
	code |= 1;
	if (x->kind == ORACLE_RESERVED)
		return code | 8;
	if (fetching)
		ok = x->x && (user ? x->u : !(smep && x->u));
	else if (user)
		ok = x->u && (!write || x->w);
	else
		ok = !(smap && x->u && (implicit || !(access & OACC_AC))) &&
		     (!write || x->w || !wp);
	if (pke && x->u && !fetching) {
		bool ad = bit(r->pkru, 2 * x->key), wd = bit(r->pkru, 2 * x->key + 1);

		key_ok = !ad && !(write && wd && (user || wp));
	}
	if (!key_ok)
		code |= 32;
	return ok && key_ok ? 0 : code;
}

bool oracle_same(const struct oracle_xlat *a, const struct oracle_xlat *b)
{
	return a->kind == b->kind && a->frame == b->frame && a->w == b->w && a->u == b->u &&
	       a->x == b->x && a->g == b->g && a->a == b->a && a->d == b->d && a->key == b->key;
}

/* ---- EPT (SDM volume 3, "The Extended Page Table Mechanism") ---- */

static bool ept_wrong(const struct oracle_ept_regs *r, uint64_t e, unsigned level, bool leaf)
{
	unsigned type = e >> 3 & 7;

	if (!bit(e, 0) && (bit(e, 1) || !r->exec_only))
		return true; /* writable or executable, and not readable */
	if (r->width < 52 && field(e, 51, r->width))
		return true;
	if (level == 4)
		return field(e, 7, 3);
	if (!leaf)
		return field(e, 6, 3);
	if (type == 2 || type == 3 || type == 7)
		return true;
	return (level == 3 && field(e, 29, 12)) || (level == 2 && field(e, 20, 12));
}

void oracle_ept_translate(const struct oracle_ept_regs *regs, const struct oracle_mem *mem,
			  uint64_t ngpa, struct oracle_ept *out)
{
	uint64_t table = field(regs->eptp, 51, 12);
	bool ad = bit(regs->eptp, 6), leaf;

	memset(out, 0, sizeof(*out));
	out->r = out->w = out->x = out->a = true;
	for (unsigned level = 4;; level--) {
		unsigned shift = 12 + 9 * (level - 1);
		struct oracle_entry *at = &out->entry[out->n];

		at->gpa = table + (ngpa >> shift & 0x1ff) * 8;
		at->size = 8;
		if (!mem->read(mem->priv, at->gpa, 8, &at->value)) {
			out->kind = ORACLE_EPT_MISCONFIG; /* all ones */
			return;
		}
		out->n++;
		if (!field(at->value, 2, 0)) {
			out->kind = ORACLE_EPT_VIOLATION;
			out->r = out->w = out->x = false;
			return;
		}
		leaf = level == 1 || (level < 4 && bit(at->value, 7));
		if (ept_wrong(regs, at->value, level, leaf)) {
			out->kind = ORACLE_EPT_MISCONFIG;
			return;
		}
		out->r = out->r && bit(at->value, 0);
		out->w = out->w && bit(at->value, 1);
		out->x = out->x && bit(at->value, 2);
		out->a = out->a && (!ad || bit(at->value, 8));
		table = field(at->value, 51, 12);
		if (leaf) {
			out->d = !ad || bit(at->value, 9);
			out->frame = field(at->value, 51, shift) + field(ngpa, shift - 1, 12);
			return;
		}
	}
}

bool oracle_ept_allows(const struct oracle_ept *x, unsigned access)
{
	return x->kind == ORACLE_EPT_OK && (access & OACC_W ? x->w : access & OACC_X ? x->x : x->r);
}

uint32_t oracle_ept_qualification(const struct oracle_ept *x, unsigned access)
{
	uint32_t q = access & OACC_TABLE_AD ? 3 : access & OACC_W ? 2 : access & OACC_X ? 4 : 1;

	return q | (x->r ? 8 : 0) | (x->w ? 16 : 0) | (x->x ? 32 : 0);
}

bool oracle_ept_same(const struct oracle_ept *a, const struct oracle_ept *b)
{
	return a->kind == b->kind && a->frame == b->frame && a->r == b->r && a->w == b->w &&
	       a->x == b->x && a->a == b->a && a->d == b->d;
}
