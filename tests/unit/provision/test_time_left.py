"""A burn is not begun when the time that was stated does not suffice for it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from fuse_bench import MAC, Bench

from harness.chips import ESP32C3
from harness.deadline import Deadline, deadline_in
from harness.errors import RefusedError, UsageError
from harness.provision import Lock, Profile
from harness.provision.step_groups import StepGroup
from harness.provision.steps import BurnFuses, BurnKey, Canary, FirmwareCommand, LockDownload, WriteRecord
from harness.provision.time_needed import PACES, TimeLeft

KEY = BurnKey("BLOCK_KEY0", "BLOCK_KEY0", "XTS_AES_128_KEY", goes_on=False)
HALVES = tuple(
    BurnKey(f"BLOCK_KEY{n}", f"BLOCK_KEY{n}", f"XTS_AES_256_KEY_{n + 1}", goes_on=False, half=n)
    for n in (0, 1)
)
COUNTER = BurnFuses((("SPI_BOOT_CRYPT_CNT", 7),), "for good")
LOCK = (LockDownload(Lock.SECURE_DOWNLOAD, "ENABLE_SECURITY_DOWNLOAD", final=False), WriteRecord())
RELEASE = FirmwareCommand(
    "lock", (("mode", "release"),), "f()", ("A",), lock=Lock.SECURE_DOWNLOAD, final=False
)

NEEDS = [
    ("twin", (KEY,), 5),
    ("serial", (KEY,), 15),
    ("serial", (COUNTER,), 15),
    ("serial", HALVES, 30),
    ("serial", LOCK, 15),
    ("serial", (RELEASE,), 60),
    ("rfc2217", HALVES, 120),
    ("a link of tomorrow", (KEY,), 60),
]


@pytest.fixture(autouse=True)
def no_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)


@pytest.mark.parametrize(("link", "steps", "need_s"), NEEDS, ids=str)
def test_a_group_is_begun_only_with_the_time_that_it_may_take(link, steps, need_s):
    group = StepGroup(4, steps)
    TimeLeft.on(link, Deadline(time.monotonic() + need_s + 1, "told")).require_for(group, 9, board="b")
    with pytest.raises(
        RefusedError, match=rf"step 4/9 \(.* may take {need_s} s, and {need_s - 1} s are left"
    ):
        TimeLeft.on(link, Deadline(time.monotonic() + need_s - 0.9, "told")).require_for(group, 9, board="b")
    TimeLeft.on(link, None).require_for(group, 9, board="b")


def test_every_link_of_the_project_has_its_figures():
    from harness.links.espemu import EspEmuLink
    from harness.links.labgrid import LabgridLink
    from harness.links.qemu import QemuLink
    from harness.links.rfc2217 import Rfc2217Link
    from harness.links.serial_port import SerialLink
    from harness.links.twin import TwinLink
    from harness.links.usb_serial_jtag import UsbSerialJtagLink

    links = (EspEmuLink, LabgridLink, QemuLink, Rfc2217Link, SerialLink, TwinLink, UsbSerialJtagLink)
    assert {link.kind for link in links} == set(PACES)


def test_a_first_boot_that_enciphers_takes_by_the_size_of_the_flash():
    left = TimeLeft.on("serial", Deadline(time.monotonic() + 100, "HARNESS_DEADLINE"))
    left.require_for_first_boot(1 << 19, board="b")
    with pytest.raises(RefusedError, match=r"may take 165 s, and 100 s are left \(HARNESS_DEADLINE\)"):
        left.require_for_first_boot(2 << 20, board="b")


def test_a_run_stops_before_the_burn_and_what_was_done_stays(tmp_path: Path) -> None:
    bench = Bench(ESP32C3, tmp_path)
    too_late = TimeLeft.on("twin", Deadline(time.monotonic() + 1, "--time-left 1"))
    with pytest.raises(
        RefusedError, match=r"step 2/14 \(burn the flash key .*It was not begun; nothing is half done"
    ):
        bench.carry_out(bench.plan(Profile.RELEASE), time_left=too_late)
    assert bench.board.programs == []
    assert bench.vault.key(MAC) is not None
    bench.carry_out(
        bench.plan(Profile.RELEASE), time_left=TimeLeft.on("twin", Deadline(time.monotonic() + 99, ""))
    )
    assert bench.board.flash_key() == bench.vault.flash_key(MAC)


def test_flash_alone_is_written_whatever_time_is_left(tmp_path: Path) -> None:
    bench = Bench(ESP32C3, tmp_path)
    over = TimeLeft.on("twin", Deadline(time.monotonic() - 5, "--time-left 0"))
    bench.carry_out(bench.plan(Profile.OPEN), time_left=over)
    assert not StepGroup(1, (Canary(0x30000),)).burns


@pytest.mark.parametrize(
    ("option", "variable", "told_by"),
    [
        (60.0, None, "--time-left 60"),
        (60.0, "+30", "HARNESS_DEADLINE"),
        (60.0, "+90", "--time-left 60"),
        (None, "+90", "HARNESS_DEADLINE"),
    ],
)
def test_of_option_and_variable_the_sooner_counts(option, variable, told_by):
    environment = {"HARNESS_DEADLINE": str(time.time() + float(variable))} if variable else {}
    found = deadline_in(option, environment)
    assert found is not None
    assert found.told_by == told_by
    assert 20 < found.left_s() <= 90


@pytest.mark.parametrize(("option", "variable"), [(60.0, ""), (None, "+60")])
def test_a_clock_that_is_set_back_gives_no_more_time(option, variable, monkeypatch):
    found = deadline_in(option, {"HARNESS_DEADLINE": variable and str(time.time() + float(variable))})
    yesterday_s = time.time() - 86400
    monkeypatch.setattr(time, "time", lambda: yesterday_s)
    assert found is not None
    assert found.left_s() <= 60


def test_who_says_nothing_has_no_deadline():
    assert deadline_in(None, {}) is None
    assert deadline_in(None, {"HARNESS_DEADLINE": ""}) is None


@pytest.mark.parametrize(
    ("option", "variable"), [(float("nan"), ""), (-1.0, ""), (None, "soon"), (None, "inf"), (None, "nan")]
)
def test_what_is_no_time_is_refused(option, variable):
    with pytest.raises(UsageError, match="not a"):
        deadline_in(option, {"HARNESS_DEADLINE": variable})
