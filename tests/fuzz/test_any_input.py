"""A few inputs for every target, the same ones every time; `python -m tests.fuzz` goes on from there."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import findings
from tests.fuzz.mutation import Mutator
from tests.fuzz.table import TARGETS

# pyserial 3.5 in the modem lines of the twin.
pytestmark = pytest.mark.filterwarnings("ignore:set(Daemon|Name):DeprecationWarning")

SEED = 20261126
SLOW = {
    "boards-yaml": 25,
    "twin-control": 6,
    "rfc2217": 12,
    "app-requests": 6,
    "boot": 4,
    "http-request": 12,
    "recording": 40,
    "run-record": 12,
    "run-parts": 12,
    "history": 5,
    "qualify-yaml": 12,
    "health": 20,
}
"""Inputs for the targets that have a whole board or server behind them; others get `QUICK`."""
QUICK = 120


@pytest.mark.parametrize("name", TARGETS)
def test_good_inputs_and_what_becomes_of_them_are_taken_or_refused(name: str) -> None:
    target = TARGETS[name]
    seeds = list(target.seeds())
    mutator = Mutator(SEED, target.words, target.max_bytes)
    count = SLOW.get(name, QUICK)
    made = [mutator.next(seeds) for _ in range(count)]
    for data in (*seeds[:count], *made):
        # Repetitions belong to test_long_inputs.
        _, finding = findings.run_once(target, data[: target.max_bytes])
        assert finding is None, f"{finding.report}\n{data!r}"


@pytest.mark.parametrize("name", [name for name in TARGETS if name not in SLOW])
def test_pieces_of_good_inputs_in_any_order_are_taken_or_refused(name: str) -> None:
    target = TARGETS[name]
    seeds = list(target.seeds())[:8]
    pieces = st.one_of(
        st.sampled_from([*target.words, b"\0"]),
        st.builds(
            lambda seed, at, size: seed[at : at + size],
            st.sampled_from(seeds),
            st.integers(0, 400),
            st.integers(1, 400),
        ),
        st.binary(max_size=12),
    )

    @settings(max_examples=25, deadline=None, derandomize=True, database=None)
    @given(st.lists(pieces, max_size=12).map(b"".join))
    def anything(data: bytes) -> None:
        _, finding = findings.run_once(target, data)
        assert finding is None, finding.report

    anything()
