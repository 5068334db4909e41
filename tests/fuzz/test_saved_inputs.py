"""Every input that once broke something is taken or refused today; and the fuzzers' own parts do what they say."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fuzz import findings
from tests.fuzz.limits import Hang, cpu_limit
from tests.fuzz.mutation import Mutator
from tests.fuzz.table import TARGETS
from tests.fuzz.target import REGRESSIONS, Target, require

# pyserial 3.5 and the modem lines of the twin.
pytestmark = pytest.mark.filterwarnings("ignore:set(Daemon|Name):DeprecationWarning")

SAVED = sorted(file.relative_to(REGRESSIONS).as_posix() for file in REGRESSIONS.glob("*/*"))


@pytest.mark.parametrize("name", SAVED)
def test_an_input_that_once_broke_something_breaks_nothing(name: str) -> None:
    target, _, _ = name.partition("/")
    _, finding = findings.run_once(TARGETS[target], (REGRESSIONS / name).read_bytes())
    assert finding is None, finding.report


def test_saved_inputs_belong_to_targets_and_there_are_seeds_for_each() -> None:
    assert {name.partition("/")[0] for name in SAVED} <= set(TARGETS)
    assert all(any(True for _ in target.seeds()) for target in TARGETS.values())


def check_planted(data: bytes) -> str:
    """A parser with three faults."""
    if b"slow" in data:
        while True:
            pass
    require(b"wrong" not in data, "a wrong answer")
    return f"{data[:1]!r} {1 // (data.count(b'!') - 1)}" if b"!" in data else "none"


PLANTED = Target("planted", "a parser with faults", check_planted, lambda: [b"good"], limit_s=5)


@pytest.mark.skipif(sys.platform == "win32", reason="no CPU time limits")
@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"abc slow abc", "hang in test_saved_inputs"),
        (b"x" * 99 + b"wrong", "Broken in"),
        (b"a" * 40 + b"!", "ZeroDivisionError in"),
    ],
)
def test_a_fault_is_found_made_small_and_saved_with_the_command_that_repeats_it(
    data: bytes, what: str, tmp_path: Path
) -> None:
    # CPU time of the others is no matter here.
    target = replace(PLANTED, limit_s=0.05) if b"slow" in data else PLANTED
    _, finding = findings.run_once(target, data)
    assert finding is not None
    small = findings.shrink(target, finding, limit_s=120)
    assert small.data in (b"slow", b"wrong", b"!")
    file = findings.save(small, tmp_path)
    text = file.with_suffix(".txt").read_text()
    assert text.startswith(what.split(" in")[0])
    assert f"python -m tests.fuzz --target planted --replay {file}" in text


@pytest.mark.skipif(sys.platform == "win32", reason="no CPU time limits")
def test_a_limit_of_cpu_time_also_strikes_in_a_regular_expression() -> None:
    import re

    with pytest.raises(Hang), cpu_limit(0.1):
        re.match(r"(a+)+$", "a" * 60 + "b")


def test_the_same_seed_makes_the_same_inputs() -> None:
    one, other = (Mutator(5, [b"word"], 64) for _ in range(2))
    made = [one.next([b"seed", b"another"]) for _ in range(50)]
    assert made == [other.next([b"seed", b"another"]) for _ in range(50)]
    assert len(set(made)) > 40
    assert max(map(len, made)) <= 64 * 17
