"""otadata written wrongly, damaged, or out of step: what boots then, what is said, and how it is mended."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.board import Board
from harness.formats.otadata import OtaData, OtaState
from harness.ota.release import Release

pytestmark = pytest.mark.profiles("release", full=("development", "ciphertext-only"))

LOST = "ota data partition invalid and no factory, will try all partitions"


@pytest.fixture
def confirmed_in_ota_1(confirm_in: Callable[[str], Release]) -> Release:
    """A confirmed version runs in ota_1, an older one lies in ota_0."""
    return confirm_in("ota_1")


@pytest.mark.source("esp-idf #253", "esp-matter #490")
@pytest.mark.parametrize("kind", ["plaintext", "erase"])
def test_otadata_written_raw_costs_the_confirmed_version_silently_and_the_harness_says_so(
    board: Board, confirmed_in_ota_1: Release, kind: str
) -> None:
    assert board.command("otadata-raw", kind=kind).ok
    boot = board.restart()
    assert boot.slot == "ota_0", "the bootloader takes the first slot that boots"
    assert any(LOST in error.text for error in boot.errors)
    assert boot.version != confirmed_in_ota_1.version
    assert any("silent-downgrade" in note for note in boot.inferred), boot.inferred

    running = board.status()
    assert not running.agrees, "the firmware reports at boot that otadata does not name what runs"
    assert board.restart().errors, "nothing repairs it on boot"
    assert board.repair().ok
    mended = board.restart()
    assert mended.slot == "ota_0"
    assert not any(LOST in error.text for error in mended.errors)
    assert board.status().agrees


@pytest.mark.profiles("development", full=("ciphertext-only",))
@pytest.mark.needs("uart-download")
def test_the_host_repairs_otadata_over_the_uart_and_the_intended_slot_boots(
    board: Board, confirmed_in_ota_1: Release
) -> None:
    assert board.command("otadata-raw", kind="plaintext").ok
    assert board.restart().slot == "ota_0"
    assert not any(record.is_bootable for record in board.read_otadata().records)
    board.write_otadata(OtaData.for_slot(1, len(board.slots), OtaState.VALID))
    boot = board.restart()
    assert (boot.slot, boot.version) == ("ota_1", confirmed_in_ota_1.version)
    assert board.status().agrees


@pytest.mark.source("esp-idf #253")
@pytest.mark.profiles("development", full=("ciphertext-only",))
@pytest.mark.needs("uart-download")
@pytest.mark.parametrize(
    ("enciphered", "line"),
    [(True, "No factory image, trying OTA 0"), (False, LOST)],
    ids=["enciphered blank", "erased"],
)
def test_blank_otadata_is_initial_only_when_it_is_enciphered(
    board: Board, enciphered: bool, line: str
) -> None:
    board.write_otadata(OtaData.blank(), enciphered=enciphered)
    mark = board.console.mark()
    boot = board.restart()
    board.console.wait_for(line, 5, since=mark)
    assert boot.slot == "ota_0"
    assert boot.otadata_written is enciphered
    assert board.status().agrees is enciphered
    assert board.repair().ok


@pytest.mark.source("ruuvi #1280", "ruuvi PR #1283")
@pytest.mark.needs("uart-download")
@pytest.mark.parametrize("active", ["ota_0", "ota_1"])
def test_an_update_after_a_fall_back_boot_keeps_rollback(
    board: Board, confirm_in: Callable[[str], Release], fresh: Callable[[], Release], active: str
) -> None:
    """otadata names one slot, the other runs: the new record must not take the sequence number of the old one."""
    confirm_in(active)
    start = board.status()
    board.overwrite(board.slot(active).offset, bytes(4096))
    fallen = board.restart()
    assert fallen.slot == start.next_slot
    assert active in fallen.not_bootable
    assert not board.status().agrees

    release = fresh()
    answer = board.update(release)
    assert answer.ok
    assert answer.fields["repaired"] is True
    boot = board.reboot()
    assert (boot.slot, boot.version) == (active, release.version)
    assert board.status().state == "pending", "without a pending state there is no way back"
    back = board.restart()
    assert (back.slot, back.version) == (fallen.slot, fallen.version)
