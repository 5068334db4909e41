"""What is done to flash, operation by operation, is what ESP-IDF does; so is what ROM and bootloader say meanwhile.

The application's handler is the shipping code everywhere. ``esp_ota_*`` and the bootloader are ESP-IDF's own on a
chip and models on a twin: these scenarios hold the models against recordings of the real thing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from flash_recording import Recorder, keep, recorded

from harness.board import Board
from harness.formats.ota_package import HEADER_BYTES
from harness.formats.otadata import OtaData, OtaRecord, OtaState
from harness.links.flash_log import SECTOR_BYTES
from harness.ota import variants
from harness.ota.faults import Fault, FaultKind
from harness.ota.release import Release
from harness.ota.variants import Recipe

pytestmark = pytest.mark.profiles("release", "development", secure_boot=False)

CUT_AT = HEADER_BYTES + 20_000
"""Where transfers are cut: a place that does not depend on the size of the image."""

DAMAGED = 0x4000
"""A sector that lies within the first segment of any image."""


NEW, PENDING, VALID = OtaState.NEW, OtaState.PENDING_VERIFY, OtaState.VALID
INVALID, ABORTED, UNDEFINED = OtaState.INVALID, OtaState.ABORTED, OtaState.UNDEFINED
record = OtaRecord.make


def damaged(seq: int, state: OtaState) -> OtaRecord:
    """A record whose CRC is wrong."""
    good = record(seq, state)
    return replace(good, crc=good.crc ^ 1)


ODD_OTADATA = {
    "equal numbers": (record(6, VALID), record(6, VALID)),
    "both new": (record(5, NEW), record(6, NEW)),
    "both pending": (record(5, PENDING), record(6, PENDING)),
    "older one pending": (record(5, PENDING), record(6, VALID)),
    "newer one pending": (record(7, PENDING), record(6, VALID)),
    "newer one invalid": (record(7, INVALID), record(6, VALID)),
    "newer one aborted, other undefined": (record(7, ABORTED), record(6, UNDEFINED)),
    "both rejected": (record(7, INVALID), record(6, ABORTED)),
    "newer one damaged": (damaged(7, VALID), record(6, VALID)),
    "damaged and pending": (record(5, VALID), damaged(6, PENDING)),
    "both damaged": (damaged(7, NEW), damaged(6, VALID)),
    "number zero": (record(0, VALID), OtaRecord.empty()),
    "second record alone": (OtaRecord.empty(), record(2, NEW)),
    "two new for one slot": (record(4, NEW), record(6, NEW)),
}


@dataclass(frozen=True)
class Bench:
    """What a scenario works with: a board whose two slots hold confirmed versions, and its recorder."""

    board: Board
    recorder: Recorder
    fresh: Callable[[], Release]
    confirmed: bytes
    """What lies in the slot that ran at the beginning."""

    def update(self, name: str = "update") -> None:
        with self.recorder.step(name):
            answer = self.board.update(self.fresh())
        assert answer.ok, answer

    def refused(self, name: str, data: bytes, error: str, **arguments: int) -> None:
        with self.recorder.step(name):
            answer = self.board.take(data, **arguments)
        assert answer.error == error, answer

    def reboot(self) -> None:
        with self.recorder.step("reboot"):
            self.board.reboot()

    def restart(self) -> None:
        with self.recorder.step("restart"):
            self.board.restart()

    def confirm(self) -> None:
        with self.recorder.step("confirm"):
            assert self.board.confirm().ok

    def repair(self) -> None:
        with self.recorder.step("repair"):
            assert self.board.repair().ok

    def recipe(self) -> Recipe:
        return self.board.recipe(self.fresh(), self.board.slot(self.board.status().next_slot))


def update_and_confirm(b: Bench) -> None:
    b.update()
    b.reboot()
    b.confirm()
    b.restart()


def update_that_is_never_confirmed(b: Bench) -> None:
    b.update()
    b.reboot()
    b.restart()
    b.update("update over the aborted one")


def update_that_crashes(b: Bench) -> None:
    b.update()
    b.reboot()
    with b.recorder.step("abort()"):
        b.board.crash("abort")


def update_that_rejects_itself(b: Bench) -> None:
    b.update()
    b.reboot()
    with b.recorder.step("rollback"):
        mark = b.board.console.mark()
        assert b.board.command("rollback").ok
        b.board.console.wait_for_boot(lambda boot: boot.evt_boot is not None, 30, since=mark)


def confirmed_version_that_rejects_itself(b: Bench) -> None:
    with b.recorder.step("rollback"):
        mark = b.board.console.mark()
        assert b.board.command("rollback").ok
        b.board.console.wait_for_boot(lambda boot: boot.evt_boot is not None, 30, since=mark)


def updates_while_unconfirmed(b: Bench) -> None:
    b.update()
    b.reboot()
    b.refused("raw update", b.board.package(b.fresh()), "pending-verify")
    with b.recorder.step("stock update"):
        answer = b.board.take(b.fresh().image, command="ota-stock")
    assert answer.error == "pending-verify"


def update_twice_without_a_reboot(b: Bench) -> None:
    b.update()
    b.update("update again")
    b.reboot()


def bare_update(b: Bench) -> None:
    body = b.board.body(b.fresh())
    with b.recorder.step("bare update"):
        assert b.board.take(body, name="bare.bin", bare=1).ok
    b.reboot()


def stock_update(b: Bench) -> None:
    image = b.fresh().image
    with b.recorder.step("stock update"):
        assert b.board.take(image, name="plain.bin", command="ota-stock").ok
    b.reboot()


def stock_update_of_ciphertext(b: Bench) -> None:
    body = b.board.body(b.fresh())
    with b.recorder.step("stock update"):
        answer = b.board.take(body, name="cipher.bin", command="ota-stock")
    assert answer.code == 0x1503
    b.restart()


def resumed_update(b: Bench) -> None:
    b.board.server.faults.add(Fault(FaultKind.RESET, at_byte=CUT_AT))
    b.update()
    b.reboot()


def wrong_slot(b: Bench) -> None:
    recipe = b.recipe()
    other = b.board.other_slot(recipe.slot.label)
    b.refused("wrong slot", variants.for_other_slot(recipe, other), "wrong-slot")


def enciphered_for_the_other_slot(b: Bench) -> None:
    recipe = b.recipe()
    other = b.board.other_slot(recipe.slot.label)
    b.refused("wrong tweak", variants.enciphered_for_slot(recipe, other), "not-deciphered")
    b.restart()
    b.update("the next good update")


def plaintext_in_a_package(b: Bench) -> None:
    b.refused("plaintext", variants.plaintext_under_cipher(b.recipe()), "plaintext-image")


def truncated_on_the_way(b: Bench) -> None:
    b.board.server.faults.add(Fault(FaultKind.TRUNCATE, at_byte=CUT_AT, times=None))
    b.refused("truncated", b.recipe().package(), "truncated")
    b.board.server.faults.clear()


def flipped_in_the_last_byte(b: Bench) -> None:
    b.refused("last byte flipped", variants.flipped(b.recipe().package(), -1), "body-hash")


def flipped_with_a_hash_that_fits(b: Bench) -> None:
    recipe = b.recipe()
    b.refused("flipped", variants.flipped_body(recipe, len(recipe.body()) // 2), "image-hash")
    b.restart()


def not_erased(b: Bench) -> None:
    b.refused("not erased", b.recipe().package(), "not-erased", noerase=1)
    b.restart()


def otadata_as_plaintext(b: Bench) -> None:
    _damage(b, "plaintext")
    b.restart()
    b.repair()
    b.restart()


def otadata_erased(b: Bench) -> None:
    _damage(b, "erase")
    b.restart()
    b.repair()
    b.restart()


def update_over_damaged_otadata(b: Bench) -> None:
    _damage(b, "plaintext")
    b.restart()
    b.update()
    b.reboot()


def _damage(b: Bench, kind: str) -> None:
    with b.recorder.step(f"otadata-raw {kind}"):
        assert b.board.command("otadata-raw", kind=kind).ok


def enciphered_blank_otadata(b: Bench) -> None:
    b.board.write_otadata(OtaData.blank())
    b.restart()
    b.restart()
    b.update()
    b.reboot()
    b.confirm()


def odd_otadata(b: Bench) -> None:
    for name, records in ODD_OTADATA.items():
        b.board.write_otadata(OtaData(records))
        with b.recorder.step(name):
            b.board.restart()
        with b.recorder.step(f"{name}: repair"):
            assert b.board.repair().ok
        b.restart()


def update_after_a_fall_back_boot(b: Bench) -> None:
    b.board.overwrite(b.board.slot(b.recorder.trace.running).offset, bytes(4096), enciphered=True)
    b.restart()
    b.update()
    b.reboot()
    b.restart()


def fall_back_from_damage_in_the_middle(b: Bench) -> None:
    slot = b.board.slot(b.recorder.trace.running)
    b.board.overwrite(slot.offset + DAMAGED, bytes(SECTOR_BYTES))
    b.restart()


def nothing_boots(b: Bench) -> None:
    running = b.board.slot(b.recorder.trace.running)
    other = b.board.other_slot(running.label)
    # One key in 256 makes the first byte of an image of noise.
    b.board.overwrite(other.offset, bytes(SECTOR_BYTES), enciphered=True)
    b.board.overwrite(running.offset, bytes(SECTOR_BYTES), enciphered=True)
    with b.recorder.step("no app"):
        assert not b.board.watch_boot().app_started
    b.board.overwrite(running.offset, b.confirmed[:SECTOR_BYTES])
    b.restart()


def repair_after_a_fall_back_boot(b: Bench) -> None:
    b.board.overwrite(b.board.slot(b.recorder.trace.running).offset, bytes(4096), enciphered=True)
    b.restart()
    b.repair()
    b.repair()


@dataclass(frozen=True)
class Scenario:
    """One line of the table."""

    run: Callable[[Bench], None]
    destroys_otadata: bool = False
    """What counts then are numbers of records and slots, not what they were: it starts in ota_1."""
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.run.__name__.replace("_", " ")


SCENARIOS = (
    Scenario(update_and_confirm),
    Scenario(update_that_is_never_confirmed),
    Scenario(update_that_crashes),
    Scenario(update_that_rejects_itself),
    Scenario(confirmed_version_that_rejects_itself),
    Scenario(updates_while_unconfirmed),
    Scenario(update_twice_without_a_reboot),
    Scenario(bare_update),
    Scenario(stock_update),
    Scenario(stock_update_of_ciphertext),
    Scenario(resumed_update),
    Scenario(wrong_slot),
    Scenario(enciphered_for_the_other_slot),
    Scenario(plaintext_in_a_package),
    Scenario(truncated_on_the_way),
    Scenario(flipped_in_the_last_byte),
    Scenario(flipped_with_a_hash_that_fits),
    Scenario(not_erased),
    Scenario(otadata_as_plaintext, destroys_otadata=True),
    Scenario(otadata_erased, destroys_otadata=True),
    Scenario(update_over_damaged_otadata, destroys_otadata=True),
    Scenario(enciphered_blank_otadata, destroys_otadata=True, needs=("uart-download",)),
    Scenario(odd_otadata, destroys_otadata=True, needs=("uart-download",)),
    Scenario(update_after_a_fall_back_boot, needs=("uart-download",)),
    Scenario(repair_after_a_fall_back_boot, needs=("uart-download",)),
    Scenario(fall_back_from_damage_in_the_middle, needs=("uart-download",)),
    Scenario(nothing_boots, needs=("uart-download",)),
)


def _bench(board: Board, fresh: Callable[[], Release], scenario: Scenario) -> Bench:
    """Both slots hold confirmed versions, both otadata records count, the newest runs."""
    assert board.table is not None
    assert board.table.otadata is not None
    for _ in range(2):
        with board.watching_flash() as changes:
            release = fresh()
            assert board.update(release).ok
        assert board.reboot().version == release.version
        assert board.confirm().ok
        running = board.status().slot
        if running == "ota_1" or not scenario.destroys_otadata:
            break
    written = [change.offset for change in changes if change.kind == "write-encrypted"][-1]
    active = (written - board.table.otadata.offset) // SECTOR_BYTES
    assert active in (0, 1)
    body = board.body(release, board.slot(running))
    recorder = Recorder(board, running, None if scenario.destroys_otadata else active, len(body))
    return Bench(board, recorder, fresh, body)


@pytest.mark.parametrize(
    "scenario",
    [pytest.param(s, id=s.name, marks=pytest.mark.needs("flash-log", *s.needs)) for s in SCENARIOS],
)
def test_flash_is_changed_as_esp_idf_changes_it(
    board: Board, fresh: Callable[[], Release], scenario: Scenario
) -> None:
    assert board.profile is not None
    real = recorded(board.chip.name, board.profile.value, scenario.name)
    if real is None:
        pytest.skip(f"nobody has recorded this on {board.chip.title} in {board.profile.value}")
    bench = _bench(board, fresh, scenario)
    scenario.run(bench)
    trace = bench.recorder.trace
    keep(trace, board.folder / "flash", scenario.name)
    assert trace.readable(board) == real.readable(board)
    assert trace.said(board) == real.said(board)
