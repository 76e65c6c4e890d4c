/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The firmware-configuration device, selector 0x510 and data 0x511, without DMA. */
#ifndef UMBRA_DEVICES_FW_CFG_H
#define UMBRA_DEVICES_FW_CFG_H

#include <pthread.h>

#include "base/types.h"
#include "devices/bus.h"
#include "devices/state.h"

#define FW_CFG_SIGNATURE 0x00 /* "QEMU", the interface's name for itself */
#define FW_CFG_ID	 0x01 /* 1: the port interface alone */
#define FW_CFG_RAM_SIZE	 0x03 /* 8 bytes */
#define FW_CFG_NB_CPUS	 0x05 /* 2 bytes */
#define FW_CFG_MAX_CPUS	 0x0f /* 2 bytes */

#define FW_CFG_ITEMS_MAX 16
#define FW_CFG_INLINE	 8

struct fw_cfg_state {
	uint16_t key, reserved;
	uint32_t offset;
};
extern const struct device_state_desc fw_cfg_state_desc;

struct fw_cfg {
	pthread_mutex_t lock;
	struct fw_cfg_state s;
	unsigned count;
	struct fw_cfg_item {
		uint16_t key;
		uint8_t len;
		uint8_t data[FW_CFG_INLINE];
	} item[FW_CFG_ITEMS_MAX];
};

/* 2 ports from 0x510; dev: struct fw_cfg. Absent keys and bytes past an item's end read as 0. */
extern const struct bus_ops fw_cfg_ops;

int fw_cfg_init(struct fw_cfg *f);
void fw_cfg_finish(struct fw_cfg *f);
void fw_cfg_reset(struct fw_cfg *f);
/* A number of @len (1..8) bytes, little-endian. -EINVAL, -EEXIST or -ENOSPC. Before vCPUs run. */
int fw_cfg_add(struct fw_cfg *f, uint16_t key, uint64_t value, unsigned len);
void fw_cfg_save(struct fw_cfg *f, struct fw_cfg_state *s);
int fw_cfg_load(struct fw_cfg *f, const struct fw_cfg_state *s);

#endif
