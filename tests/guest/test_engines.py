# SPDX-License-Identifier: LGPL-2.1-or-later
"""A payload cannot tell which engine runs it, nor whose the interrupt controllers are."""
import functools

import pytest

from conftest import LONG, kvm_missing
from engines import ENGINES, ROWS, Row, Run, is_pvm

pytestmark = pytest.mark.skipif(bool(kvm_missing()), reason=kvm_missing() or "kvm")
CHOSEN = [r for r in ROWS if LONG or not r.long]


@functools.lru_cache(maxsize=1)
def soft(row):
    return Run(row, "soft")


@pytest.mark.parametrize("engine", list(ENGINES)[1:], ids=["kernel", "split"])
@pytest.mark.parametrize("row", CHOSEN, ids=[r.name.replace(", ", "-").replace(" ", "-") for r in CHOSEN])
def test_same(row, engine):
    want, run = soft(row), Run(row, engine)
    assert want.console or want.end
    if row.pvm and is_pvm() and run.end != want.end:
        assert "crash" in run.end, run.errors
        pytest.skip(f"kvm_pvm: {row.pvm}: {run.end}")
    assert run.console == want.console, run.errors
    assert run.end == want.end, run.errors
    assert run.status == want.status


@pytest.mark.parametrize("engine", list(ENGINES)[1:], ids=["kernel", "split"])
def test_kvmclock(engine):
    assert Run(Row("kvmclock"), engine).console == b"has a kvmclock: 0\n"
    run = Run(Row("kvmclock", cpu="+kvmclock"), engine)
    assert run.console == b"has a kvmclock: 1\n10 ms later\n", run.errors
