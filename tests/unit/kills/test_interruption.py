"""Signals that end a run: they strike at once, or right behind what must not be broken off."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from harness.interruption import STOPPING, Interrupted, listen, unbroken

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")


@pytest.fixture(autouse=True)
def listening() -> Iterator[None]:
    """As the command line does; pytest's own handlers come back."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    for number in STOPPING:
        signal.signal(number, signal.SIG_DFL)
    listen()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def burn(*numbers: int, done: list[str], fails: bool = False) -> None:
    """What must not be broken off, with signals in the midst of it."""
    with unbroken("eFuses are being burned (burn X)"):
        for number in numbers:
            signal.raise_signal(number)
        if fails:
            raise ValueError("the burn did not take")
        done.append("the burn")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_waits_for_the_end_of_what_must_not_be_broken_off(number: int, status: int) -> None:
    done: list[str] = []
    with pytest.raises(Interrupted) as caught:
        burn(number, done=done)
    assert done == ["the burn"]
    assert caught.value.exit_status == status
    with pytest.raises(Interrupted):
        signal.raise_signal(number)


def test_a_second_signal_is_told_that_it_stops_in_a_moment(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Interrupted):
        burn(signal.SIGTERM, signal.SIGINT, done=[])
    assert capfd.readouterr().err.splitlines() == [
        "harness: SIGTERM: eFuses are being burned (burn X); this is not broken off, it stops in a moment",
        "harness: SIGINT: still eFuses are being burned (burn X); this is not broken off, it stops in a moment",
    ]


def test_in_nested_blocks_it_waits_for_the_outermost() -> None:
    done: list[str] = []

    def plan() -> None:
        with unbroken("the plan"):
            burn(signal.SIGTERM, done=done)
            done.append("the record")

    with pytest.raises(Interrupted):
        plan()
    assert done == ["the burn", "the record"]


def test_what_fails_meanwhile_is_not_lost_over_the_signal() -> None:
    with pytest.raises(Interrupted) as caught:
        burn(signal.SIGTERM, done=[], fails=True)
    assert str(caught.value.failed) == "the burn did not take"


def test_what_fails_without_a_signal_stays_what_it_is() -> None:
    with pytest.raises(ValueError, match="did not take"):
        burn(done=[], fails=True)


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """``nohup harness …`` goes on when the terminal is gone."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    listen()
    with unbroken("burning"):
        signal.raise_signal(signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_in_another_thread_nothing_is_touched() -> None:
    handlers: list[object] = []

    def look() -> None:
        with unbroken("burning"):
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGTERM)]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_during_the_imports_of_a_command_ends_it_with_a_sentence(number: int, status: int) -> None:
    # The first module that main() imports sends it: from then on half a second would go by.
    script = f"""
import builtins, os, sys, harness.cli
load = builtins.__import__
def strike(name, *more):
    if name == "harness.cli.main":
        os.kill(os.getpid(), {int(number)})
    return load(name, *more)
builtins.__import__ = strike
sys.argv = ["harness", "--version"]
harness.cli.main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert done.stderr.strip() == "harness: interrupted before anything began"
