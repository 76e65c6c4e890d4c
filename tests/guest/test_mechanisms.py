# SPDX-License-Identifier: LGPL-2.1-or-later
"""No mechanism of the MMU is there in name only: its counter leaves zero with it, and not without it."""
import pytest

from mechanisms import ROWS, Run


@pytest.mark.parametrize("row", ROWS, ids=[r.name.replace(" ", "-").replace(",", "") for r in ROWS])
def test_mechanism(row):
    on, off = Run(row, False), Run(row, True)
    for run in (on, off):
        assert run.status == 1 and run.text.startswith("sum "), run.text
    assert on.counter(row.counter) > 0
    assert off.counter(row.counter) == row.left
    assert on.text == off.text
