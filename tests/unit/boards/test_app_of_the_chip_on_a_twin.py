"""A firmware that stays down: on a twin the app of the chip, which it cannot run; else what leads out is named."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import BoardError, RefusedError
from harness.preparation import Demand, settle_after
from harness.provision.chip_state import Download
from harness.provision.profile import Lock, Profile
from harness.rack.health import latches
from harness.say import Say

TWIN_SAYS = "twin: this image holds target code, which does not run on the twin"


def board_that_ends_with(text: str) -> Any:
    def settle() -> None:
        raise BoardError("waited for the firmware's boot event", board="t")

    said = ("I (1) boot: Disabling RNG early entropy source...", text)
    lines = tuple(SimpleNamespace(text=line) for line in said)
    return SimpleNamespace(
        name="t",
        settle=settle,
        log_path=Path("serial.log"),
        uart_bytes=0,
        run_note=SimpleNamespace(doing=lambda what: None),
        console=SimpleNamespace(mark=lambda: 7, lines_since=lambda mark: lines if mark == 7 else ()),
    )


def boots(board: Any, *, writes: tuple[str, ...] = ("app",), download: Download = Download.OPEN) -> None:
    plan = SimpleNamespace(lock=Lock.NONE, by_itself=(), writes=writes, profile=Profile.RELEASE)
    planned: Any = SimpleNamespace(plan=plan, state=SimpleNamespace(download=download))
    settle_after(board, planned, Demand(Profile.RELEASE), say=Say(quiet=True))


def test_it_is_refused_with_the_way_to_run_it_and_not_latched_broken() -> None:
    with pytest.raises(RefusedError, match="an app that was built for the chip") as refused:
        boots(board_that_ends_with(TWIN_SAYS))
    assert refused.value.todo is not None
    assert "link: qemu" in refused.value.todo
    assert not latches(refused.value)


def test_a_firmware_that_does_not_come_up_is_the_boards_fault() -> None:
    with pytest.raises(BoardError, match="does not come up") as failed:
        boots(board_that_ends_with("abort() was called at PC 0x42000000"))
    assert latches(failed.value)


@pytest.mark.parametrize(
    ("writes", "download", "told"),
    [
        ((), Download.OPEN, True),
        ((), Download.SECURE, True),
        ((), Download.OFF, False),
        (("app",), Download.OPEN, False),
    ],
    ids=["nothing-written", "secure-download", "download-off", "just-written"],
)
def test_a_flash_that_may_have_been_spoiled_is_written_again_where_that_is_possible(
    writes: tuple[str, ...], download: Download, told: bool
) -> None:
    with pytest.raises(BoardError) as failed:
        boots(board_that_ends_with("ets_main.c 333"), writes=writes, download=download)
    assert failed.value.todo is not None
    assert ("harness provision --board t --profile release --reflash" in failed.value.todo) is told
