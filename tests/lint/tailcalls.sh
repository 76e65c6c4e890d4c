#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A handler must jump to the next one. Where a local's address escapes the compiler makes it a call, and chained
# blocks then eat the host's stack. The dispatchers, which are meant to call, are named here.
#
# usage: tailcalls.sh LIBRARY        (libumbra_cpu.a of an optimized build)
set -euo pipefail

# fn of the next instruction is 0x28 from this one's; of a block's first, and the jump cache's, below.
bad=$(objdump -d --no-show-raw-insn "$1" | awk '
	/^[0-9a-f]+ <.*>:$/ { name = $2 }
	/call +\*0x28\(|call +\*0x58\(|call.*<cpu_jump>/ { print name, $0 }' |
	grep -v -E '^<(cpu_run|cpu_step|cpu_emulate|enter_block|dispatch|go_carefully)(\.[a-z0-9.]+)?>:' || true)
[ -z "$bad" ] && { echo "tailcalls: every handler jumps"; exit 0; }
echo "tailcalls: these handlers call the next one instead of jumping to it:"
echo "$bad"
exit 1
