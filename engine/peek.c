/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Guest memory by linear address, for inspection. */
#include "engine/engine_internal.h"

unsigned engine_peek(struct mmu_vcpu *mmu, gva_t gva, void *data, unsigned len)
{
	unsigned done = 0;

	while (done < len) {
		unsigned n = MIN(len - done, (unsigned)(PAGE_SIZE - ((gva + done) & ~PAGE_MASK)));
		struct mmu_walk_result walk;

		if (mmu_gva_to_gpa(mmu, gva + done, MMU_ACC_PEEK, &walk) ||
		    slot_read(mmu_vcpu_vm(mmu), walk.gpa, (char *)data + done, n) < 0)
			break;
		done += n;
	}
	return done;
}
