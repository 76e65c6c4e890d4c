#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# vectors.sh DIFF_CPU TEST...: run the unit tests and tell which privileged forms they ran.
set -eu
diff=$1
shift
UMBRA_VECTORS=$(mktemp)
export UMBRA_VECTORS
trap 'rm -f "$UMBRA_VECTORS"' EXIT
for test; do
	"$test" >/dev/null 2>&1 || { echo "$test fails"; exit 1; }
done
"$diff" -p "$UMBRA_VECTORS"
