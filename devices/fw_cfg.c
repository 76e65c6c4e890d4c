/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A selector, and the selected item's bytes one after another. */
#include "devices/fw_cfg.h"

#include <errno.h>
#include <string.h>

const struct device_state_desc fw_cfg_state_desc = {"fw-cfg", 1, sizeof(struct fw_cfg_state)};

static const struct fw_cfg_item *find(const struct fw_cfg *f, uint16_t key)
{
	for (unsigned i = 0; i < f->count; i++)
		if (f->item[i].key == key)
			return &f->item[i];
	return NULL;
}

static uint8_t next_byte(struct fw_cfg *f)
{
	const struct fw_cfg_item *item = find(f, f->s.key);

	if (!item || f->s.offset >= item->len)
		return 0;
	return item->data[f->s.offset++];
}

/* Only byte reads of the data port; wider ones arrive here in pieces. */
static uint64_t fw_cfg_read(void *dev, uint64_t offset, unsigned size)
{
	struct fw_cfg *f = dev;
	uint64_t value = bus_ones(size);

	pthread_mutex_lock(&f->lock);
	if (offset == 1 && size == 1)
		value = next_byte(f);
	pthread_mutex_unlock(&f->lock);
	return value;
}

static void fw_cfg_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
	struct fw_cfg *f = dev;

	if (offset != 0 || size != 2)
		return;
	pthread_mutex_lock(&f->lock);
	f->s = (struct fw_cfg_state){.key = (uint16_t)value};
	pthread_mutex_unlock(&f->lock);
}

const struct bus_ops fw_cfg_ops = {fw_cfg_read, fw_cfg_write, 1 | 2};

int fw_cfg_add(struct fw_cfg *f, uint16_t key, uint64_t value, unsigned len)
{
	struct fw_cfg_item *item = &f->item[f->count];

	if (!len || len > FW_CFG_INLINE)
		return -EINVAL;
	if (find(f, key))
		return -EEXIST;
	if (f->count == FW_CFG_ITEMS_MAX)
		return -ENOSPC;
	item->key = key;
	item->len = (uint8_t)len;
	memcpy(item->data, &value, len);
	f->count++;
	return 0;
}

int fw_cfg_init(struct fw_cfg *f)
{
	memset(f, 0, sizeof(*f));
	return -pthread_mutex_init(&f->lock, NULL);
}

void fw_cfg_finish(struct fw_cfg *f)
{
	pthread_mutex_destroy(&f->lock);
}

void fw_cfg_reset(struct fw_cfg *f)
{
	pthread_mutex_lock(&f->lock);
	f->s = (struct fw_cfg_state){0};
	pthread_mutex_unlock(&f->lock);
}

void fw_cfg_save(struct fw_cfg *f, struct fw_cfg_state *s)
{
	pthread_mutex_lock(&f->lock);
	*s = f->s;
	pthread_mutex_unlock(&f->lock);
}

int fw_cfg_load(struct fw_cfg *f, const struct fw_cfg_state *s)
{
	if (s->offset > FW_CFG_INLINE)
		return -EINVAL;
	pthread_mutex_lock(&f->lock);
	f->s = *s;
	pthread_mutex_unlock(&f->lock);
	return 0;
}
