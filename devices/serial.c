/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The 16550A (TI SLLS057). Sending takes no time; receiving never overruns but in loopback. */
#include "devices/serial.h"

#include <errno.h>
#include <string.h>

enum { RBR_THR, IER, IIR_FCR, LCR, MCR, LSR, MSR, SCR };

#define IER_RDA	 0x01
#define IER_THRE 0x02
#define IER_LINE 0x04
#define IER_MSR	 0x08

#define IIR_MODEM   0x00
#define IIR_NONE    0x01
#define IIR_THRE    0x02
#define IIR_RDA	    0x04
#define IIR_LINE    0x06
#define IIR_TIMEOUT 0x0c
#define IIR_FIFO    0xc0

#define FCR_ENABLE   0x01
#define FCR_CLEAR_RX 0x02

#define LCR_DLAB 0x80

#define MCR_OUT2 0x08
#define MCR_LOOP 0x10

#define LSR_DR	 0x01
#define LSR_OE	 0x02
#define LSR_BI	 0x10
#define LSR_IDLE 0x60 /* THRE and TEMT */
#define LSR_FIFO 0x80

#define MSR_CTS 0x10
#define MSR_DSR 0x20
#define MSR_RI	0x40
#define MSR_DCD 0x80

#define CHAR_NS_AT_1 86806ull /* ten bits at divisor 1, 115200 baud */

const struct device_state_desc serial_state_desc = {"serial", 1, sizeof(struct serial_state)};

static bool fifo_on(const struct serial *s)
{
	return s->s.fcr & FCR_ENABLE;
}

static unsigned rx_capacity(const struct serial *s)
{
	return fifo_on(s) ? SERIAL_FIFO : 1;
}

static unsigned rx_trigger(const struct serial *s)
{
	static const uint8_t levels[4] = {1, 4, 8, 14};

	return fifo_on(s) ? levels[s->s.fcr >> 6] : 1;
}

/* The reason for an interrupt with the highest priority. */
static uint8_t interrupt_id(const struct serial *s)
{
	const struct serial_state *st = &s->s;

	if ((st->ier & IER_LINE) && st->lsr_error)
		return IIR_LINE;
	if ((st->ier & IER_RDA) && st->rx_len >= rx_trigger(s))
		return IIR_RDA;
	if ((st->ier & IER_RDA) && st->rx_timeout)
		return IIR_TIMEOUT;
	if ((st->ier & IER_THRE) && st->iir_thre)
		return IIR_THRE;
	if ((st->ier & IER_MSR) && st->msr_delta)
		return IIR_MODEM;
	return IIR_NONE;
}

/* On a PC, OUT2 opens the gate between the chip and the interrupt line. */
static void update_irq(struct serial *s)
{
	irq_set(&s->irq, interrupt_id(s) != IIR_NONE && (s->s.mcr & MCR_OUT2));
}

static void flush_locked(struct serial *s)
{
	if (s->out_len)
		s->cfg.output(s->cfg.opaque, s->out, s->out_len);
	s->out_len = 0;
	clock_timer_arm(&s->flush_timer, CLOCK_NEVER);
}

static void flush_fire(void *opaque)
{
	serial_flush(opaque);
}

void serial_flush(struct serial *s)
{
	pthread_mutex_lock(&s->lock);
	flush_locked(s);
	pthread_mutex_unlock(&s->lock);
}

/* Four characters' time without a byte read or received, while some wait below the trigger. */
static void restart_timeout(struct serial *s)
{
	uint64_t ns = 4 * CHAR_NS_AT_1 * s->s.divisor;

	s->s.rx_timeout = 0;
	s->rx_deadline = CLOCK_NEVER;
	if (fifo_on(s) && s->s.rx_len)
		s->rx_deadline = clock_now(s->cfg.clock) + MAX(100000ull, MIN(ns, 10000000ull));
	clock_timer_arm(&s->rx_timer, s->rx_deadline);
}

static void rx_fire(void *opaque)
{
	struct serial *s = opaque;

	pthread_mutex_lock(&s->lock);
	if (s->rx_deadline <= clock_now(s->cfg.clock)) {
		s->rx_deadline = CLOCK_NEVER;
		s->s.rx_timeout = 1;
		update_irq(s);
	}
	pthread_mutex_unlock(&s->lock);
}

static void receive(struct serial *s, uint8_t byte)
{
	if (s->s.rx_len >= rx_capacity(s)) {
		s->s.lsr_error |= LSR_OE;
		if (!fifo_on(s))
			s->s.rx[0] = byte;
		return;
	}
	s->s.rx[s->s.rx_len++] = byte;
}

size_t serial_input(struct serial *s, const uint8_t *data, size_t len)
{
	size_t taken = 0;

	pthread_mutex_lock(&s->lock);
	/* In loopback the input pin is not connected. */
	while (taken < len && s->s.rx_len < rx_capacity(s) && !(s->s.mcr & MCR_LOOP))
		receive(s, data[taken++]);
	s->input_refused = taken < len;
	if (taken)
		restart_timeout(s);
	update_irq(s);
	pthread_mutex_unlock(&s->lock);
	return taken;
}

void serial_break(struct serial *s)
{
	pthread_mutex_lock(&s->lock);
	if (!(s->s.mcr & MCR_LOOP)) {
		if (s->s.rx_len < rx_capacity(s))
			receive(s, 0);
		s->s.lsr_error |= LSR_BI;
		restart_timeout(s);
		update_irq(s);
	}
	pthread_mutex_unlock(&s->lock);
}

static void transmit(struct serial *s, uint8_t byte)
{
	if (s->s.mcr & MCR_LOOP) {
		receive(s, byte);
		restart_timeout(s);
	} else {
		if (!s->out_len)
			clock_timer_arm(&s->flush_timer, clock_now(s->cfg.clock) + SERIAL_FLUSH_NS);
		s->out[s->out_len++] = byte;
		if (s->out_len == SERIAL_OUT_BATCH)
			flush_locked(s);
	}
	/* The line falls and rises again, as an edge-triggered input needs it. */
	s->s.iir_thre = 0;
	update_irq(s);
	s->s.iir_thre = 1;
	update_irq(s);
}

static uint8_t pop(struct serial *s)
{
	uint8_t byte = s->s.rx[0];

	if (!s->s.rx_len)
		return 0;
	s->s.rx_len--;
	memmove(s->s.rx, s->s.rx + 1, s->s.rx_len);
	restart_timeout(s);
	return byte;
}

static uint8_t modem_lines(const struct serial *s)
{
	uint8_t mcr = s->s.mcr;

	if (!(mcr & MCR_LOOP))
		return MSR_CTS | MSR_DSR | MSR_DCD;
	return (uint8_t)((mcr & 1 ? MSR_DSR : 0) | (mcr & 2 ? MSR_CTS : 0) |
			 (mcr & 4 ? MSR_RI : 0) | (mcr & 8 ? MSR_DCD : 0));
}

static void write_mcr(struct serial *s, uint8_t value)
{
	uint8_t before = modem_lines(s), changed;

	s->s.mcr = value & 0x1f;
	changed = before ^ modem_lines(s);
	/* The ring indicator reports only its trailing edge. */
	if (!(before & MSR_RI))
		changed &= ~MSR_RI;
	s->s.msr_delta |= changed >> 4;
}

static void write_fcr(struct serial *s, uint8_t value)
{
	if ((value ^ s->s.fcr) & FCR_ENABLE)
		value |= FCR_CLEAR_RX;
	s->s.fcr = value & FCR_ENABLE ? value & 0xc9 : 0;
	if (value & FCR_CLEAR_RX) {
		s->s.rx_len = 0;
		restart_timeout(s);
	}
}

static void write_ier(struct serial *s, uint8_t value)
{
	if ((value & ~s->s.ier & IER_THRE))
		s->s.iir_thre = 1;
	s->s.ier = value & 0x0f;
}

static void write_locked(struct serial *s, unsigned reg, uint8_t value)
{
	bool dlab = s->s.lcr & LCR_DLAB;

	switch (reg) {
	case RBR_THR:
		if (dlab)
			s->s.divisor = (s->s.divisor & 0xff00) | value;
		else
			transmit(s, value);
		break;
	case IER:
		if (dlab)
			s->s.divisor = (uint16_t)(value << 8) | (s->s.divisor & 0xff);
		else
			write_ier(s, value);
		break;
	case IIR_FCR: write_fcr(s, value); break;
	case LCR: s->s.lcr = value; break;
	case MCR: write_mcr(s, value); break;
	case SCR: s->s.scr = value; break;
	default: break; /* LSR and MSR: factory tests */
	}
	update_irq(s);
}

static uint8_t read_lsr(struct serial *s)
{
	uint8_t value = LSR_IDLE | s->s.lsr_error;

	if (s->s.rx_len)
		value |= LSR_DR;
	if (fifo_on(s) && (s->s.lsr_error & ~LSR_OE))
		value |= LSR_FIFO;
	s->s.lsr_error = 0;
	return value;
}

static uint8_t read_iir(struct serial *s)
{
	uint8_t id = interrupt_id(s);

	if (id == IIR_THRE)
		s->s.iir_thre = 0;
	return id | (fifo_on(s) ? IIR_FIFO : 0);
}

static uint8_t read_locked(struct serial *s, unsigned reg)
{
	bool dlab = s->s.lcr & LCR_DLAB;
	uint8_t value;

	switch (reg) {
	case RBR_THR: value = dlab ? (uint8_t)s->s.divisor : pop(s); break;
	case IER: value = dlab ? s->s.divisor >> 8 : s->s.ier; break;
	case IIR_FCR: value = read_iir(s); break;
	case LCR: value = s->s.lcr; break;
	case MCR: value = s->s.mcr; break;
	case LSR: value = read_lsr(s); break;
	case MSR:
		value = modem_lines(s) | s->s.msr_delta;
		s->s.msr_delta = 0;
		break;
	default: value = s->s.scr; break;
	}
	update_irq(s);
	return value;
}

/* With the lock held: may those who had too much come again? */
static bool take_room(struct serial *s)
{
	if (!s->input_refused || s->s.rx_len || (s->s.mcr & MCR_LOOP))
		return false;
	s->input_refused = false;
	return true;
}

static void say_room(struct serial *s, bool room)
{
	if (room && s->cfg.input_ready)
		s->cfg.input_ready(s->cfg.opaque);
}

static uint64_t serial_read(void *dev, uint64_t offset, unsigned size)
{
	struct serial *s = dev;
	uint8_t value;
	bool room;

	pthread_mutex_lock(&s->lock);
	value = read_locked(s, (unsigned)offset);
	room = take_room(s);
	pthread_mutex_unlock(&s->lock);
	say_room(s, room);
	return value;
}

static void serial_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
	struct serial *s = dev;
	bool room;

	pthread_mutex_lock(&s->lock);
	write_locked(s, (unsigned)offset, (uint8_t)value);
	room = take_room(s);
	pthread_mutex_unlock(&s->lock);
	say_room(s, room);
}

const struct bus_ops serial_ops = {serial_read, serial_write, 1};

void serial_reset(struct serial *s)
{
	bool room;

	pthread_mutex_lock(&s->lock);
	flush_locked(s);
	s->s = (struct serial_state){.divisor = 12, .iir_thre = 1};
	restart_timeout(s);
	update_irq(s);
	room = take_room(s);
	pthread_mutex_unlock(&s->lock);
	say_room(s, room);
}

int serial_init(struct serial *s, const struct serial_config *cfg)
{
	int ret;

	memset(s, 0, sizeof(*s));
	s->cfg = *cfg;
	s->irq = cfg->irq;
	ret = -pthread_mutex_init(&s->lock, NULL);
	if (ret)
		return ret;
	ret = clock_timer_init(cfg->clock, &s->flush_timer, flush_fire, s);
	if (!ret)
		ret = clock_timer_init(cfg->clock, &s->rx_timer, rx_fire, s);
	if (ret) {
		serial_finish(s);
		return ret;
	}
	serial_reset(s);
	return 0;
}

void serial_finish(struct serial *s)
{
	clock_timer_finish(&s->flush_timer);
	clock_timer_finish(&s->rx_timer);
	pthread_mutex_destroy(&s->lock);
}

void serial_save(struct serial *s, struct serial_state *st)
{
	pthread_mutex_lock(&s->lock);
	flush_locked(s);
	*st = s->s;
	pthread_mutex_unlock(&s->lock);
}

int serial_load(struct serial *s, const struct serial_state *st)
{
	bool timed_out = st->rx_timeout && st->rx_len;

	if (st->rx_len > (st->fcr & FCR_ENABLE ? SERIAL_FIFO : 1) || (st->ier & ~0x0f) ||
	    (st->mcr & ~0x1f) || (st->fcr & ~0xc9) || (st->msr_delta & ~0x0f) ||
	    (st->lsr_error & ~(LSR_OE | LSR_BI)))
		return -EINVAL;
	pthread_mutex_lock(&s->lock);
	s->s = *st;
	restart_timeout(s);
	s->s.rx_timeout = timed_out;
	update_irq(s);
	pthread_mutex_unlock(&s->lock);
	return 0;
}
