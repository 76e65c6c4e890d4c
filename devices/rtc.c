/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The MC146818A. Its time is the machine's clock plus an offset; nothing ticks unless an interrupt
 * is wanted. The flags of register C are worked out when somebody looks.
 */
#include "devices/rtc.h"

#include <errno.h>
#include <string.h>
#include <time.h>

enum {
	SECOND,
	SECOND_ALARM,
	MINUTE,
	MINUTE_ALARM,
	HOUR,
	HOUR_ALARM,
	WEEKDAY,
	DAY,
	MONTH,
	YEAR,
	REG_A,
	REG_B,
	REG_C,
	REG_D,
	CENTURY = 0x32,
};

#define A_UIP  0x80
#define A_RATE 0x0f

#define B_SET	 0x80
#define B_PIE	 0x40
#define B_AIE	 0x20
#define B_UIE	 0x10
#define B_BINARY 0x04
#define B_24H	 0x02

#define C_IRQF 0x80
#define C_PF   0x40
#define C_AF   0x20
#define C_UF   0x10

#define D_VALID 0x80

#define ALARM_ANY 0xc0

#define NS_PER_S   1000000000ll
#define UPDATE_NS  244000ll	/* the update-in-progress bit warns this long ahead */
#define WALL_MAX_S 4000000000ll /* 2096: sums stay far from overflow */

const struct device_state_desc rtc_state_desc = {"rtc", 1, sizeof(struct rtc_state)};

static int64_t wall_ns(const struct rtc *r, uint64_t now)
{
	return r->s.epoch_ns + (int64_t)now;
}

static uint8_t encode(const struct rtc *r, int value)
{
	if (r->s.cmos[REG_B] & B_BINARY)
		return (uint8_t)value;
	return (uint8_t)(value / 10 << 4 | value % 10);
}

static int decode(const struct rtc *r, uint8_t value)
{
	return r->s.cmos[REG_B] & B_BINARY ? value : (value >> 4) * 10 + (value & 15);
}

static uint8_t encode_hour(const struct rtc *r, int hour)
{
	if (r->s.cmos[REG_B] & B_24H)
		return encode(r, hour);
	return encode(r, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? 0x80 : 0);
}

static int decode_hour(const struct rtc *r, uint8_t value)
{
	if (r->s.cmos[REG_B] & B_24H)
		return decode(r, value);
	return decode(r, value & 0x7f) % 12 + (value & 0x80 ? 12 : 0);
}

/* The time registers as of @now. */
static void fill_time(struct rtc *r, uint64_t now)
{
	time_t t = wall_ns(r, now) / NS_PER_S;
	uint8_t *cmos = r->s.cmos;
	struct tm tm;

	gmtime_r(&t, &tm);
	cmos[SECOND] = encode(r, tm.tm_sec);
	cmos[MINUTE] = encode(r, tm.tm_min);
	cmos[HOUR] = encode_hour(r, tm.tm_hour);
	cmos[WEEKDAY] = encode(r, tm.tm_wday + 1);
	cmos[DAY] = encode(r, tm.tm_mday);
	cmos[MONTH] = encode(r, tm.tm_mon + 1);
	cmos[YEAR] = encode(r, tm.tm_year % 100);
	cmos[CENTURY] = encode(r, (tm.tm_year + 1900) / 100);
}

/* Let the time run from what the registers say; what is out of range changes nothing. */
static void take_time(struct rtc *r, uint64_t now)
{
	const uint8_t *cmos = r->s.cmos;
	struct tm tm = {
		.tm_sec = decode(r, cmos[SECOND]),
		.tm_min = decode(r, cmos[MINUTE]),
		.tm_hour = decode_hour(r, cmos[HOUR]),
		.tm_mday = decode(r, cmos[DAY]),
		.tm_mon = decode(r, cmos[MONTH]) - 1,
		.tm_year = decode(r, cmos[CENTURY]) * 100 + decode(r, cmos[YEAR]) - 1900,
	};
	time_t t = timegm(&tm);

	if (t >= 0 && t <= WALL_MAX_S)
		r->s.epoch_ns = t * NS_PER_S - (int64_t)now;
}

/* The periodic interrupt's frequency; 0: off. */
static uint64_t periodic_hz(const struct rtc *r)
{
	unsigned rate = r->s.cmos[REG_A] & A_RATE;

	if (!rate)
		return 0;
	return 32768 >> ((rate <= 2 ? rate + 7 : rate) - 1);
}

static bool alarm_field(const struct rtc *r, unsigned reg, int value)
{
	uint8_t alarm = r->s.cmos[reg];

	if (alarm >= ALARM_ANY &&
	    !(reg == HOUR_ALARM && !(r->s.cmos[REG_B] & B_24H) && (alarm & 0x7f) < 0x40))
		return true;
	return (reg == HOUR_ALARM ? decode_hour(r, alarm) : decode(r, alarm)) == value;
}

/* The first wall second after @t that the alarm names, or -1. */
static int64_t next_alarm(const struct rtc *r, int64_t t)
{
	int64_t day = ++t / 86400 * 86400;

	/* From the hour that @t is in to the same tomorrow: fields that match narrow it down. */
	for (int64_t hour = (t - day) / 3600; hour <= (t - day) / 3600 + 24; hour++) {
		if (!alarm_field(r, HOUR_ALARM, (int)(hour % 24)))
			continue;
		for (int64_t minute = 0; minute < 60; minute++) {
			int64_t start = day + hour * 3600 + minute * 60;

			if (start + 59 < t || !alarm_field(r, MINUTE_ALARM, (int)minute))
				continue;
			for (int64_t second = MAX(0, t - start); second < 60; second++)
				if (alarm_field(r, SECOND_ALARM, (int)second))
					return start + second;
			if (start > t)
				return -1; /* a whole minute without: no such second exists */
		}
	}
	return -1;
}

/* Set the flags of what happened since the last look. Locked. */
static void catch_up(struct rtc *r)
{
	uint64_t now = clock_now(r->clock), seen = r->s.seen_ns, hz = periodic_hz(r);
	uint64_t base = r->s.periodic_base;
	int64_t from = wall_ns(r, seen) / NS_PER_S, to = wall_ns(r, now) / NS_PER_S, alarm;
	uint8_t *c = &r->s.cmos[REG_C];

	r->s.seen_ns = now;
	if (hz && clock_ns_to_ticks(now - base, hz) > clock_ns_to_ticks(seen - base, hz))
		*c |= C_PF;
	if (!(r->s.cmos[REG_B] & B_SET) && to > from) {
		*c |= C_UF;
		if (!(*c & C_AF)) {
			alarm = next_alarm(r, from);
			if (alarm >= 0 && alarm <= to)
				*c |= C_AF;
		}
	}
}

/* When the next flag that is to interrupt comes up. Locked. */
static uint64_t next_event(const struct rtc *r)
{
	uint8_t b = r->s.cmos[REG_B], wanted = b & ~r->s.cmos[REG_C];
	uint64_t now = r->s.seen_ns, base = r->s.periodic_base, hz = periodic_hz(r);
	int64_t wall = wall_ns(r, now), second = wall / NS_PER_S, alarm;
	uint64_t next = CLOCK_NEVER;

	if ((wanted & B_PIE) && hz)
		next = base + clock_ticks_to_ns(clock_ns_to_ticks(now - base, hz) + 1, hz);
	if (b & B_SET)
		return next;
	if (wanted & B_UIE)
		next = MIN(next, now + (uint64_t)((second + 1) * NS_PER_S - wall));
	if (wanted & B_AIE) {
		alarm = next_alarm(r, second);
		if (alarm >= 0)
			next = MIN(next, now + (uint64_t)(alarm * NS_PER_S - wall));
	}
	return next;
}

/* Flags, line and timer. The enables in B and the flags in C have the same places. Locked. */
static void serve(struct rtc *r)
{
	uint8_t *c = &r->s.cmos[REG_C];

	catch_up(r);
	if (*c & r->s.cmos[REG_B] & (C_PF | C_AF | C_UF))
		*c |= C_IRQF;
	else
		*c &= ~C_IRQF;
	irq_set(&r->irq, *c & C_IRQF);
	clock_timer_arm(&r->timer, next_event(r));
}

static void fire(void *opaque)
{
	struct rtc *r = opaque;

	pthread_mutex_lock(&r->lock);
	serve(r);
	pthread_mutex_unlock(&r->lock);
}

static bool is_time(unsigned reg)
{
	return reg == SECOND || reg == MINUTE || reg == HOUR || (reg >= WEEKDAY && reg <= YEAR) ||
	       reg == CENTURY;
}

static void write_time(struct rtc *r, unsigned reg, uint8_t value)
{
	uint64_t now = clock_now(r->clock);

	if (r->s.cmos[REG_B] & B_SET) {
		r->s.cmos[reg] = value;
		return;
	}
	fill_time(r, now);
	r->s.cmos[reg] = value;
	if (reg != WEEKDAY)
		take_time(r, now);
}

static void write_b(struct rtc *r, uint8_t value)
{
	uint8_t *b = &r->s.cmos[REG_B];
	uint64_t now = clock_now(r->clock);

	if (value & B_SET)
		value &= ~B_UIE;
	if (!(*b & B_SET) && (value & B_SET))
		fill_time(r, now); /* stands still from here; in the form it has had so far */
	if ((*b & B_SET) && !(value & B_SET)) {
		/* The form may change with the same write, and then speaks of the values set. */
		*b = value;
		take_time(r, now);
	}
	*b = value;
}

static void write_locked(struct rtc *r, unsigned reg, uint8_t value)
{
	catch_up(r);
	if (is_time(reg)) {
		write_time(r, reg, value);
	} else if (reg == REG_A) {
		if ((value ^ r->s.cmos[REG_A]) & A_RATE)
			r->s.periodic_base = r->s.seen_ns;
		r->s.cmos[REG_A] = value & ~A_UIP;
	} else if (reg == REG_B) {
		write_b(r, value);
	} else if (reg != REG_C && reg != REG_D) {
		r->s.cmos[reg] = value;
	}
	serve(r);
}

static uint8_t read_locked(struct rtc *r, unsigned reg)
{
	uint64_t now = clock_now(r->clock);
	bool set = r->s.cmos[REG_B] & B_SET;
	uint8_t value;

	if (is_time(reg) && !set)
		fill_time(r, now);
	if (reg == REG_C) {
		serve(r);
		value = r->s.cmos[REG_C];
		r->s.cmos[REG_C] = 0;
		serve(r);
		return value;
	}
	value = r->s.cmos[reg];
	if (reg == REG_A && !set && wall_ns(r, now) % NS_PER_S >= NS_PER_S - UPDATE_NS)
		value |= A_UIP;
	return value;
}

static uint64_t rtc_read(void *dev, uint64_t offset, unsigned size)
{
	struct rtc *r = dev;
	uint8_t value = 0xff; /* the index cannot be read back */

	if (offset == 0)
		return value;
	pthread_mutex_lock(&r->lock);
	value = read_locked(r, r->s.index);
	pthread_mutex_unlock(&r->lock);
	return value;
}

static void rtc_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
	struct rtc *r = dev;

	pthread_mutex_lock(&r->lock);
	if (offset == 0)
		r->s.index = value & 0x7f; /* bit 7 gates NMIs, of which the board has none */
	else
		write_locked(r, r->s.index, (uint8_t)value);
	pthread_mutex_unlock(&r->lock);
}

const struct bus_ops rtc_ops = {rtc_read, rtc_write, 1};

static void put16(struct rtc *r, unsigned reg, uint64_t value)
{
	value = MIN(value, 0xffffull);
	r->s.cmos[reg] = (uint8_t)value;
	r->s.cmos[reg + 1] = (uint8_t)(value >> 8);
}

/* As firmware notes the memory: KiB above 1 MiB, 64-KiB units above 16 MiB and 4 GiB. */
static void fill_memory_size(struct rtc *r, const struct rtc_config *cfg)
{
	uint64_t ram = cfg->ram_below_4g, high = cfg->ram_above_4g >> 16;
	uint64_t extended = ram > MIB(1) ? (ram - MIB(1)) >> 10 : 0;

	put16(r, 0x15, MIN(ram >> 10, 640ull));
	put16(r, 0x17, extended);
	put16(r, 0x30, extended);
	put16(r, 0x34, ram > MIB(16) ? (ram - MIB(16)) >> 16 : 0);
	put16(r, 0x5b, high);
	r->s.cmos[0x5d] = (uint8_t)(MIN(high, 0xffffffull) >> 16);
	r->s.cmos[0x5f] = (uint8_t)(cfg->cpus - 1);
}

void rtc_reset(struct rtc *r)
{
	pthread_mutex_lock(&r->lock);
	catch_up(r);
	r->s.index = 0;
	if (r->s.cmos[REG_B] & B_SET)
		write_b(r, r->s.cmos[REG_B] & ~B_SET);
	r->s.cmos[REG_B] &= ~(B_PIE | B_AIE | B_UIE);
	r->s.cmos[REG_C] = 0;
	serve(r);
	pthread_mutex_unlock(&r->lock);
}

int rtc_init(struct rtc *r, const struct rtc_config *cfg)
{
	int ret;

	memset(r, 0, sizeof(*r));
	if (cfg->epoch_ns < 0 || cfg->epoch_ns > WALL_MAX_S * NS_PER_S || !cfg->cpus)
		return -EINVAL;
	r->clock = cfg->clock;
	r->irq = cfg->irq;
	r->s.epoch_ns = cfg->epoch_ns;
	r->s.seen_ns = r->s.periodic_base = clock_now(r->clock);
	r->s.cmos[REG_A] = 0x26; /* 32768-Hz divider, 1024 Hz */
	r->s.cmos[REG_B] = B_24H;
	r->s.cmos[REG_D] = D_VALID;
	fill_memory_size(r, cfg);
	ret = -pthread_mutex_init(&r->lock, NULL);
	if (ret)
		return ret;
	ret = clock_timer_init(r->clock, &r->timer, fire, r);
	if (ret)
		pthread_mutex_destroy(&r->lock);
	return ret;
}

void rtc_finish(struct rtc *r)
{
	clock_timer_finish(&r->timer);
	pthread_mutex_destroy(&r->lock);
}

void rtc_save(struct rtc *r, struct rtc_state *s)
{
	pthread_mutex_lock(&r->lock);
	serve(r);
	*s = r->s;
	pthread_mutex_unlock(&r->lock);
}

int rtc_load(struct rtc *r, const struct rtc_state *s)
{
	uint64_t now = clock_now(r->clock);
	int64_t wall;

	if (s->index >= RTC_CMOS_SIZE || s->seen_ns > now || s->periodic_base > s->seen_ns ||
	    __builtin_add_overflow(s->epoch_ns, (int64_t)s->seen_ns, &wall) || wall < 0 ||
	    s->epoch_ns > WALL_MAX_S * NS_PER_S)
		return -EINVAL;
	pthread_mutex_lock(&r->lock);
	r->s = *s;
	r->s.cmos[REG_A] &= ~A_UIP;
	r->s.cmos[REG_C] &= ~0x0f;
	r->s.cmos[REG_D] = D_VALID;
	serve(r);
	pthread_mutex_unlock(&r->lock);
	return 0;
}
