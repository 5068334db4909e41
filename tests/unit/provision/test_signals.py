"""SIGTERM at any moment of a plan: burns that have begun are finished, the rest stops, the next run goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuse_bench import MAC, Bench

from harness.chips import ESP32C3, ESP32S3, Chip
from harness.interruption import Interrupted, listen, stop_listening
from harness.provision import Lock, Profile, StepEvent, carry_out
from harness.provision.step_groups import burns_now, groups_of
from harness.provision.steps import BurnKey, LockDownload, WriteRecord

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")


@pytest.fixture(autouse=True)
def listening() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    listen([signal.SIGTERM])
    yield
    stop_listening([signal.SIGTERM])
    signal.signal(signal.SIGTERM, before)


class Struck(Bench):
    """A bench whose run gets SIGTERM at its n-th event: a step's begin, a burn, a flash write."""

    def strike_at(self, number: int) -> tuple[Interrupted | None, list[StepEvent]]:
        """What ended the run (None: nothing did), and the begins and ends of its steps."""
        said: list[StepEvent] = []
        events = iter(range(10**6))

        def event(what: str) -> None:
            if next(events) == number:
                signal.raise_signal(signal.SIGTERM)

        def on_step(step: StepEvent) -> None:
            if not step.done:
                event("step")
            said.append(step)

        self.board.plug.event = event  # type: ignore[method-assign]
        try:
            carry_out(
                self.plan(Profile.RELEASE),
                self.board.session,
                self.vault,
                records=self.records,
                regions=self.regions,
                physical=False,
                on_step=on_step,
            )
        except Interrupted as interrupted:
            return interrupted, said
        finally:
            self.board.plug.event = lambda what: None  # type: ignore[method-assign]
        return None, said


def test_sigterm_at_any_moment_leaves_no_burn_half_done_and_the_next_run_finishes(tmp_path: Path) -> None:
    stopped = 0
    for number in range(0, 200, 4):
        bench = Struck(ESP32C3, tmp_path / str(number))
        interrupted, said = bench.strike_at(number)
        if interrupted is None:
            break
        stopped += 1
        begun = {each.number for each in said if burns_now(each.step) and not each.done}
        assert begun == {each.number for each in said if burns_now(each.step) and each.done}
        assert (interrupted.where or "").startswith(("in step ", "before step ", "after the last step"))
        bench.run(Profile.RELEASE)
        assert bench.board.flash_key() == bench.vault.flash_key(MAC)
        assert bench.vault.intent(MAC) is None
    assert stopped > 8


def test_a_burn_that_has_begun_is_finished_and_the_sentence_says_what_is_next(tmp_path: Path) -> None:
    bench = Struck(ESP32C3, tmp_path)
    # Events: make-key begins, the key's burn begins, its block is programmed.
    interrupted, _ = bench.strike_at(2)
    assert interrupted is not None
    assert interrupted.where == "before step 3/14 (canary); no eFuse burn is half done"
    found = bench.look().key_blocks[0]
    assert not found.readable
    assert not found.writeable
    assert bench.board.flash_key() == bench.vault.flash_key(MAC)


def test_where_nothing_burns_it_stops_in_the_midst(tmp_path: Path) -> None:
    interrupted, said = Struck(ESP32C3, tmp_path).strike_at(0)
    assert said == []
    assert interrupted is not None
    assert str(interrupted) == (
        "SIGTERM: stopped in step 1/14 (make a flash key for this chip, store it in the vault, read it back); "
        "the next run goes on from here"
    )


@pytest.mark.parametrize("chip", [ESP32C3, ESP32S3], ids=lambda chip: chip.name)
def test_not_parted_are_the_halves_of_a_key_and_a_lock_and_its_record(chip: Chip, tmp_path: Path) -> None:
    plan = Bench(chip, tmp_path).plan(Profile.RELEASE, Lock.SECURE_DOWNLOAD)
    groups = groups_of(plan.steps)
    together = [[type(step) for step in group.steps] for group in groups if len(group.steps) > 1]
    halves = [[BurnKey, BurnKey]] if chip is ESP32S3 else []
    assert together == [*halves, [LockDownload, WriteRecord]]
    assert [step for group in groups for step in group.steps] == list(plan.steps)
    assert [group.first for group in groups] == [1 + plan.steps.index(group.steps[0]) for group in groups]
