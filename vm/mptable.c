/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The MP floating pointer and configuration table (MultiProcessor Specification 1.4, chapter 4). */
#include "vm/mptable.h"

#include <errno.h>
#include <string.h>

#include "devices/board.h"
#include "vm/checksum.h"

struct mp_floating {
	char signature[4];
	uint32_t table;
	uint8_t length, revision, checksum, features[5];
};

struct mp_header {
	char signature[4];
	uint16_t length;
	uint8_t revision, checksum;
	char oem[8], product[12];
	uint32_t oem_table;
	uint16_t oem_length, entries;
	uint32_t lapic;
	uint16_t ext_length;
	uint8_t ext_checksum, reserved;
};

struct mp_processor {
	uint8_t type, apic_id, apic_version, flags;
	uint32_t signature, features, reserved[2];
};

struct mp_bus {
	uint8_t type, id;
	char name[6];
};

struct mp_ioapic {
	uint8_t type, id, version, flags;
	uint32_t address;
};

/* An interrupt of the I/O APIC (type 3) or a local one (type 4). */
struct mp_interrupt {
	uint8_t type, kind;
	uint16_t flags;
	uint8_t bus, irq, apic, pin;
};

static_assert(sizeof(struct mp_floating) == 16 && sizeof(struct mp_header) == 44 &&
		      sizeof(struct mp_processor) == 20 && sizeof(struct mp_bus) == 8 &&
		      sizeof(struct mp_ioapic) == 8 && sizeof(struct mp_interrupt) == 8,
	      "the layouts are the specification's");

enum { MP_PROCESSOR, MP_BUS, MP_IOAPIC, MP_INTERRUPT, MP_LOCAL };
enum { KIND_INT, KIND_NMI, KIND_SMI, KIND_EXTINT };

#define CPU_ENABLED 1
#define CPU_BOOT    2
#define LEVEL_HIGH  0xd
#define ALL_APICS   0xff

static void add(struct buf *b, struct mp_header *h, const void *entry, size_t len)
{
	buf_append(b, entry, len);
	h->entries++;
}

static void add_interrupts(struct buf *b, struct mp_header *h, uint8_t ioapic)
{
	struct mp_interrupt extint = {MP_LOCAL, KIND_EXTINT, 0, 0, 0, ALL_APICS, 0};
	struct mp_interrupt nmi = {MP_LOCAL, KIND_NMI, 0, 0, 0, ALL_APICS, 1};
	uint8_t irq;

	for (irq = 0; irq < 16; irq++) {
		struct mp_interrupt i = {
			.type = MP_INTERRUPT,
			.flags = irq == BOARD_IRQ_SCI ? LEVEL_HIGH : 0,
			.irq = irq,
			.apic = ioapic,
			.pin = irq == BOARD_IRQ_PIT ? BOARD_GSI_PIT : irq,
		};

		/* The 8259s' cascade has no line of its own: its pin is the timer's. */
		if (irq != 2)
			add(b, h, &i, sizeof(i));
	}
	add(b, h, &extint, sizeof(extint));
	add(b, h, &nmi, sizeof(nmi));
}

static void add_entries(struct buf *b, struct mp_header *h, unsigned cpus)
{
	struct mp_bus bus = {MP_BUS, 0, {'I', 'S', 'A', ' ', ' ', ' '}};
	struct mp_ioapic io = {MP_IOAPIC, (uint8_t)BOARD_IOAPIC_ID(cpus), 0x11, 1,
			       (uint32_t)BOARD_IOAPIC_BASE};
	unsigned i;

	for (i = 0; i < cpus; i++) {
		struct mp_processor p = {
			.type = MP_PROCESSOR,
			.apic_id = (uint8_t)i,
			.apic_version = 0x14,
			.flags = (uint8_t)(CPU_ENABLED | (i ? 0 : CPU_BOOT)),
			.signature = 0x600,
			.features = 0x201, /* FPU, APIC */
		};

		add(b, h, &p, sizeof(p));
	}
	add(b, h, &bus, sizeof(bus));
	add(b, h, &io, sizeof(io));
	add_interrupts(b, h, io.id);
}

int mptable_build(unsigned cpus, gpa_t base, struct buf *out)
{
	struct mp_floating f = {
		.signature = {'_', 'M', 'P', '_'},
		.table = (uint32_t)(base + sizeof(f)),
		.length = 1, /* paragraphs */
		.revision = 4,
	};
	struct mp_header h = {
		.signature = {'P', 'C', 'M', 'P'},
		.revision = 4,
		.oem = {'U', 'M', 'B', 'R', 'A', ' ', ' ', ' '},
		.product = {'V', 'M', ' ', ' ', ' ', ' ', ' ', ' ', ' ', ' ', ' ', ' '},
		.lapic = (uint32_t)BOARD_LAPIC_BASE,
	};
	struct buf b = {0};
	int ret = -ENOMEM;

	f.checksum = checksum8(&f, sizeof(f));
	buf_append(&b, &f, sizeof(f));
	buf_append(&b, &h, sizeof(h));
	add_entries(&b, &h, MIN(cpus, (unsigned)MPTABLE_CPUS_MAX));
	if (!b.failed) {
		h.length = (uint16_t)(b.len - sizeof(f));
		memcpy(b.data + sizeof(f), &h, sizeof(h));
		h.checksum = checksum8(b.data + sizeof(f), h.length);
		memcpy(b.data + sizeof(f), &h, sizeof(h));
		ret = buf_append(out, b.data, b.len);
	}
	buf_finish(&b);
	return ret;
}
