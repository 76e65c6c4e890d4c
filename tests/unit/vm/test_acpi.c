/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Firmware tables: checksums, pointers, what they list, and iasl's opinion where it is installed.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/buf.h"
#include "base/fd.h"
#include "vm/acpi.h"
#include "vm/memmap.h"
#include "vm/mptable.h"
#include "vm/smbios.h"

static uint32_t u32_at(const void *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static uint64_t u64_at(const void *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static unsigned sum(const void *data, size_t len)
{
	const uint8_t *p = data;
	unsigned s = 0;

	while (len--)
		s += *p++;
	return s & 0xff;
}

/* The table at @gpa within @b, checked. */
static const uint8_t *table(const struct buf *b, uint64_t gpa, const char *signature)
{
	const uint8_t *t;

	assert_true(gpa >= MEMMAP_ACPI && gpa + 36 <= MEMMAP_ACPI + b->len);
	t = (const uint8_t *)b->data + (gpa - MEMMAP_ACPI);
	assert_memory_equal(t, signature, 4);
	assert_true(gpa + u32_at(t + 4) <= MEMMAP_ACPI + b->len);
	if (strcmp(signature, "FACS"))
		assert_int_equal(sum(t, u32_at(t + 4)), 0);
	return t;
}

static const uint8_t *find_table(const struct buf *b, const char *signature)
{
	const uint8_t *xsdt = table(b, u64_at(b->data + 24), "XSDT");
	unsigned i, n = (u32_at(xsdt + 4) - 36) / 8;

	for (i = 0; i < n; i++) {
		uint64_t gpa = u64_at(xsdt + 36 + i * 8);

		if (!memcmp(b->data + (gpa - MEMMAP_ACPI), signature, 4))
			return table(b, gpa, signature);
	}
	return NULL;
}

static void acpi_pointers(void **state)
{
	struct acpi_config cfg = {.cpus = 3};
	const uint8_t *fadt, *rsdt;
	struct buf b = {0};

	assert_int_equal(acpi_build(&cfg, MEMMAP_ACPI, &b), 0);
	assert_memory_equal(b.data, "RSD PTR ", 8);
	assert_int_equal(sum(b.data, 20), 0);
	assert_int_equal(sum(b.data, 36), 0);
	rsdt = table(&b, u32_at(b.data + 16), "RSDT");
	fadt = find_table(&b, "FACP");
	assert_non_null(fadt);
	assert_int_equal(u32_at(rsdt + 36), fadt - (uint8_t *)b.data + MEMMAP_ACPI);
	assert_int_equal(u32_at(fadt + 40), u64_at(fadt + 140));
	table(&b, u32_at(fadt + 40), "DSDT");
	table(&b, u32_at(fadt + 36), "FACS");
	assert_int_equal(u32_at(fadt + 36) % 64, 0);
	assert_int_equal(u32_at(fadt + 56), 0x600);
	assert_int_equal(u32_at(fadt + 64), 0x604);
	assert_int_equal(u32_at(fadt + 76), 0x608);
	assert_int_equal(u64_at(fadt + 120), 0xcf9);
	assert_int_equal(fadt[128], 6);
	buf_finish(&b);
}

/* Count the MADT's entries of a type. */
static unsigned count(const uint8_t *madt, unsigned type)
{
	uint32_t len = u32_at(madt + 4), pos;
	unsigned n = 0;

	for (pos = 44; pos + 2 <= len; pos += madt[pos + 1]) {
		assert_true(madt[pos + 1] >= 6);
		n += madt[pos] == type;
	}
	assert_int_equal(pos, len);
	return n;
}

static void acpi_madt(void **state)
{
	static const unsigned cpus[] = {1, 4, 255, 300, 1024};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cpus); i++) {
		struct acpi_config cfg = {.cpus = cpus[i]};
		const uint8_t *madt;
		struct buf b = {0};

		assert_int_equal(acpi_build(&cfg, MEMMAP_ACPI, &b), 0);
		assert_true(b.len <= MEMMAP_ACPI_END - MEMMAP_ACPI);
		madt = find_table(&b, "APIC");
		assert_non_null(madt);
		assert_int_equal(count(madt, 0), MIN(cpus[i], 255u));
		assert_int_equal(count(madt, 9), cpus[i] - MIN(cpus[i], 255u));
		assert_int_equal(count(madt, 1), 1);
		assert_int_equal(count(madt, 2), 2);
		buf_finish(&b);
	}
}

/* iasl disassembles the tables, and compiles what it read from the DSDT without a warning. */
static void acpi_iasl(void **state)
{
	static const char *const names[] = {"DSDT", "FACP", "APIC"};
	char dir[] = "/tmp/umbra-acpi-XXXXXX", cmd[400];
	struct acpi_config cfg = {.cpus = 4};
	struct buf b = {0};
	size_t i;

	if (system("command -v iasl >/dev/null")) {
		skip();
		return;
	}
	assert_non_null(mkdtemp(dir));
	assert_int_equal(acpi_build(&cfg, MEMMAP_ACPI, &b), 0);
	for (i = 0; i < ARRAY_SIZE(names); i++) {
		const uint8_t *t = i ? find_table(&b, names[i])
				     : table(&b, u32_at(find_table(&b, "FACP") + 40), "DSDT");
		char path[64];

		snprintf(path, sizeof(path), "%s/%s.aml", dir, names[i]);
		assert_int_equal(fd_write_file_atomic(AT_FDCWD, path, t, u32_at(t + 4), 0600), 0);
		snprintf(cmd, sizeof(cmd),
			 "cd %s && iasl -d %s.aml >log 2>&1 && ! grep -iE 'error|warning|invalid' "
			 "log",
			 dir, names[i]);
		assert_int_equal(system(cmd), 0);
	}
	snprintf(cmd, sizeof(cmd),
		 "cd %s && iasl -we -p again DSDT.dsl >log 2>&1 && "
		 "grep -q '_S5, Package' DSDT.dsl && grep -q PNP0501 DSDT.dsl && "
		 "grep -q '0 Errors, 0 Warnings' log || { cat DSDT.dsl log; exit 1; }",
		 dir);
	assert_int_equal(system(cmd), 0);
	snprintf(cmd, sizeof(cmd), "rm -r %s", dir);
	assert_int_equal(system(cmd), 0);
	buf_finish(&b);
}

static void mp_table(void **state)
{
	struct buf b = {0};
	const uint8_t *t;
	unsigned i, n, pos, cpus = 0, len;

	assert_int_equal(mptable_build(5, MEMMAP_MPTABLE, &b), 0);
	assert_memory_equal(b.data, "_MP_", 4);
	assert_int_equal(sum(b.data, 16), 0);
	assert_int_equal(u32_at(b.data + 4), MEMMAP_MPTABLE + 16);
	t = (const uint8_t *)b.data + 16;
	len = u32_at(t + 4) & 0xffff;
	assert_memory_equal(t, "PCMP", 4);
	assert_int_equal(len, b.len - 16);
	assert_int_equal(sum(t, len), 0);
	n = u32_at(t + 34) & 0xffff;
	for (i = 0, pos = 44; i < n; i++) {
		cpus += t[pos] == 0;
		pos += t[pos] ? 8 : 20;
	}
	assert_int_equal(pos, len);
	assert_int_equal(cpus, 5);
	buf_finish(&b);
	assert_int_equal(mptable_build(1024, MEMMAP_MPTABLE, &b), 0);
	assert_true(b.len <= MEMMAP_MPTABLE_END - MEMMAP_MPTABLE);
	buf_finish(&b);
}

static void smbios(void **state)
{
	struct smbios_config cfg = {2, GIB(3), GIB(5)};
	const uint8_t *p, *end;
	unsigned structures = 0, last = 0;
	struct buf b = {0};

	assert_int_equal(smbios_build(&cfg, MEMMAP_SMBIOS, &b), 0);
	assert_memory_equal(b.data, "_SM_", 4);
	assert_int_equal(sum(b.data, 31), 0);
	assert_int_equal(sum(b.data + 16, 15), 0);
	assert_memory_equal(b.data + 32, "_SM3_", 5);
	assert_int_equal(sum(b.data + 32, 24), 0);
	assert_int_equal(u32_at(b.data + 24), MEMMAP_SMBIOS + 64);
	p = (const uint8_t *)b.data + 64;
	end = (const uint8_t *)b.data + b.len;
	while (p < end) {
		last = p[0];
		structures++;
		p += p[1];
		while (p + 1 < end && (p[0] || p[1]))
			p++;
		p += 2;
	}
	assert_ptr_equal(p, end);
	assert_int_equal(last, 127);
	assert_int_equal(structures, u32_at(b.data + 28) & 0xffff);
	buf_finish(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(acpi_pointers), cmocka_unit_test(acpi_madt),
		cmocka_unit_test(acpi_iasl),	 cmocka_unit_test(mp_table),
		cmocka_unit_test(smbios),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
