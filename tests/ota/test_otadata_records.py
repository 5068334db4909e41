"""otadata damaged in each way there is: which slot ESP-IDF's bootloader then chooses, what it says, what it writes.

The expected values follow from ESP-IDF's rules (``bootloader_utility.c`` and ``bootloader_common_loader.c``, v5.3 to v6)
and were worked out by hand; no code of this project that chooses a slot is asked. Rollback is on, anti-rollback off.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from row import Row, rows

from harness.board import Board, Running
from harness.formats.otadata import OtaData, OtaRecord, OtaState, sequence_crc
from harness.ota.release import Release

pytestmark = [
    pytest.mark.in_turn,
    pytest.mark.profiles("development", full=("open", "ciphertext-only", "release")),
    pytest.mark.needs("uart-download"),
]

NEW, PENDING, VALID, INVALID, ABORTED, UNDEFINED = 0, 1, 2, 3, 4, 0xFFFFFFFF
ODD = 0x5A
"""No ``esp_ota_img_states_t``."""

SELECT_INFO_INVALID = 0x1502
"""ESP_ERR_OTA_SELECT_INFO_INVALID."""

GARBAGE = "ota data partition invalid and no factory, will try all partitions"
INITIAL = "No factory image, trying OTA 0"
FILLED = "Set actual ota_seq=1 in otadata[0]"
RUUVI = ("ruuvi #1280", "ruuvi PR #1283")
SWITCH_OTA = ("esp-idf test_switch_ota.c",)


@dataclass(frozen=True)
class Record:
    """One record as it is put into flash, and as it is read back."""

    seq: int
    state: int
    crc_ok: bool = True

    def to_record(self) -> OtaRecord:
        if self is EMPTY:
            return OtaRecord.empty()
        crc = sequence_crc(self.seq)
        return OtaRecord(seq=self.seq, state=self.state, crc=crc if self.crc_ok else crc ^ 0x80)


EMPTY = Record(0xFFFFFFFF, UNDEFINED, crc_ok=False)
"""A sector that was never written."""


def bad(seq: int, state: int) -> Record:
    return Record(seq, state, crc_ok=False)


@dataclass(frozen=True)
class Choice(Row):
    """Both records, the slot that boots, and what is left of the records afterwards."""

    name: str
    first: Record
    second: Record
    slot: int
    states: tuple[int, int]
    """Of both records after the boot."""
    said: str = ""
    """The bootloader's line; none when it found a record that counts."""
    numbers: tuple[int, int] | None = None
    """Sequence numbers after the boot; None: as before."""


def choice(
    name: str,
    first: Record,
    second: Record,
    slot: int,
    states: tuple[int, int] | None = None,
    **more: object,
) -> Choice:
    return Choice(name, first, second, slot, states or (first.state, second.state), **more)  # type: ignore[arg-type]


R = Record

CHOICES = (
    # The larger number counts, whichever sector it is in; the slot is (number - 1) modulo 2.
    choice("larger number second", R(5, VALID), R(6, VALID), 1),
    choice("larger number first", R(6, VALID), R(5, VALID), 1),
    choice("larger number second, an odd one", R(6, VALID), R(7, VALID), 0),
    choice("numbers far apart", R(3, VALID), R(1000, VALID), 1, full=True),
    # Equal numbers: the first sector.
    choice("equal numbers", R(6, VALID), R(6, VALID), 1),
    choice("equal numbers, the first confirmed, the second new", R(6, VALID), R(6, NEW), 1, source=RUUVI),
    choice(
        "equal numbers, the first new, the second confirmed",
        R(6, NEW),
        R(6, VALID),
        1,
        (PENDING, VALID),
        source=RUUVI,
    ),
    choice("two for one slot", R(4, VALID), R(6, VALID), 1, source=RUUVI),
    choice("two new for one slot", R(4, NEW), R(6, NEW), 1, (NEW, PENDING), source=RUUVI),
    # Only one record counts.
    choice("first alone", R(2, VALID), EMPTY, 1),
    choice("second alone", EMPTY, R(2, VALID), 1),
    choice("first damaged", bad(7, VALID), R(6, VALID), 1, source=SWITCH_OTA),
    choice("second damaged", R(6, VALID), bad(7, VALID), 1, source=SWITCH_OTA),
    choice("newer one damaged, older one undefined", R(5, UNDEFINED), bad(6, VALID), 0, full=True),
    choice("newer one invalid", R(7, INVALID), R(6, VALID), 1),
    choice("newer one aborted", R(7, ABORTED), R(6, VALID), 1),
    choice("newer one aborted and damaged", bad(7, ABORTED), R(6, VALID), 1, full=True),
    # Neither counts, but one of them is not ruled out by its state: that is no initial state.
    choice("both damaged", bad(7, VALID), bad(6, VALID), 0, said=GARBAGE, source=SWITCH_OTA),
    choice("first damaged, second empty", bad(2, VALID), EMPTY, 0, said=GARBAGE),
    choice("first empty, second damaged", EMPTY, bad(2, VALID), 0, said=GARBAGE),
    choice("first damaged, second aborted", bad(2, VALID), R(4, ABORTED), 0, said=GARBAGE, full=True),
    choice("first damaged, second pending", bad(2, VALID), R(4, PENDING), 0, (VALID, ABORTED), said=GARBAGE),
    # Both are ruled out: the initial state. It is filled in unless a number is sound.
    choice("both empty", EMPTY, EMPTY, 0, (VALID, UNDEFINED), said=FILLED, numbers=(1, 0xFFFFFFFF)),
    choice("both rejected", R(6, INVALID), R(7, ABORTED), 0, said=INITIAL),
    choice("first rejected, second empty", R(6, ABORTED), EMPTY, 0, said=INITIAL),
    choice("first empty, second rejected", EMPTY, R(6, INVALID), 0, said=INITIAL, full=True),
    choice(
        "both rejected and damaged",
        bad(6, ABORTED),
        bad(7, INVALID),
        0,
        (VALID, INVALID),
        said=FILLED,
        numbers=(1, 7),
    ),
    choice(
        "first rejected and damaged, second rejected",
        bad(6, ABORTED),
        R(8, INVALID),
        0,
        said=INITIAL,
        full=True,
    ),
    # States. What waits for its confirmation has had its chance: it is aborted before the choice is made.
    choice("new", R(6, NEW), R(5, VALID), 1, (PENDING, VALID)),
    choice("new in the second", R(5, VALID), R(6, NEW), 1, (VALID, PENDING)),
    choice("an older one new", R(5, NEW), R(6, VALID), 1),
    choice("both new", R(5, NEW), R(6, NEW), 1, (NEW, PENDING)),
    choice("pending", R(7, PENDING), R(6, VALID), 1, (ABORTED, VALID)),
    choice("pending in the second", R(5, VALID), R(6, PENDING), 0, (VALID, ABORTED)),
    choice("an older one pending", R(5, PENDING), R(6, VALID), 1, (ABORTED, VALID)),
    choice("pending and damaged", R(5, VALID), bad(6, PENDING), 0, (VALID, ABORTED)),
    choice("both pending", R(5, PENDING), R(6, PENDING), 0, (ABORTED, ABORTED), said=INITIAL),
    choice("pending, then empty", R(2, PENDING), EMPTY, 0, (ABORTED, UNDEFINED), said=INITIAL),
    choice("undefined", R(6, UNDEFINED), R(5, VALID), 1),
    choice("both undefined", R(5, UNDEFINED), R(6, UNDEFINED), 1),
    choice("a state that there is not", R(5, VALID), R(6, ODD), 1),
    choice("a state that there is not, the other empty", R(2, ODD), EMPTY, 1, full=True),
    # The ends of 32 bits. Number 0 counts: one less is 0xFFFFFFFF, which is odd.
    choice("number 0", R(0, VALID), EMPTY, 1),
    choice("number 0 and number 1", R(0, VALID), R(1, VALID), 0),
    choice("number 0xFFFFFFFF with its CRC is empty all the same", R(0xFFFFFFFF, VALID), R(2, VALID), 1),
    choice(
        "0xFFFFFFFF twice with its CRC",
        R(0xFFFFFFFF, VALID),
        R(0xFFFFFFFF, NEW),
        0,
        (VALID, NEW),
        said=FILLED,
        numbers=(1, 0xFFFFFFFF),
    ),
    choice("the largest number there is", R(0xFFFFFFFE, VALID), R(1, VALID), 1),
    choice("the largest one in the second", R(2, VALID), R(0xFFFFFFFE, VALID), 1, full=True),
    choice("the largest odd one", R(2, VALID), R(0xFFFFFFFD, VALID), 0),
    choice("numbers are not signed", R(0x80000001, VALID), R(2, VALID), 0),
)


_FILLED: dict[str, dict[str, str]] = {}
"""Which version lies in which slot, of boards both of whose slots were filled for this table; no row touches them."""


@pytest.fixture
def both_slots(board: Board, confirm_in: Callable[[str], Release]) -> dict[str, str]:
    """Both slots hold an app that boots; gives the version in each."""
    if "anti-rollback" in board.capabilities:
        pytest.skip("with anti-rollback ESP-IDF chooses by other rules: test_anti_rollback.py")
    filled = _FILLED.get(board.name, {})
    running = board.boots[-1]
    if filled.get(running.slot or "") != running.version:
        newest = confirm_in("ota_1")
        older = next(r.version for r in reversed(board.boots) if r.slot == "ota_0")
        assert older is not None
        _FILLED[board.name] = {"ota_0": older, "ota_1": newest.version}
    return _FILLED[board.name]


LARGE = 1 << 16


def small_numbers(board: Board, slot: int) -> None:
    """After the largest number there is none: what follows such a row must not count on."""
    board.write_otadata(OtaData.for_slot(slot, len(board.slots), OtaState.VALID))
    board.restart()


def records_read_by(board: Board) -> tuple[tuple[int, int], tuple[int, int]]:
    """(sequence number, state) of both records, as the firmware deciphers them."""
    fields = board.command("otadata").fields
    found = [struct.unpack("<I20xI", bytes.fromhex(fields[name])[:28]) for name in ("record0", "record1")]
    return (found[0], found[1])


@pytest.mark.parametrize("row", rows(CHOICES))
def test_the_bootloader_chooses_as_esp_idf_does(
    board: Board, both_slots: dict[str, str], row: Choice, request: pytest.FixtureRequest
) -> None:
    if any(record.seq > LARGE for record in (row.first, row.second) if record is not EMPTY):
        request.addfinalizer(lambda: small_numbers(board, row.slot))
    board.write_otadata(OtaData((row.first.to_record(), row.second.to_record())))
    mark = board.console.mark()
    boot = board.restart()
    label = f"ota_{row.slot}"
    assert (boot.slot, boot.version) == (label, both_slots[label])
    said = [line.text for line in board.console.lines_since(mark)]
    for text in (GARBAGE, INITIAL, FILLED):
        wanted = text == row.said or (text == INITIAL and row.said == FILLED)
        assert any(text in line for line in said) is wanted, (
            f"{text!r} {'is missing' if wanted else 'was said'}"
        )
    (first, first_state), (second, second_state) = records_read_by(board)
    assert (first_state, second_state) == row.states
    assert (first, second) == (row.numbers or (row.first.seq, row.second.seq))


def test_otadata_that_was_damaged_is_mended_by_a_repair_and_by_an_update(
    board: Board, confirm_in: Callable[[str], Release], fresh: Callable[[], Release]
) -> None:
    confirm_in("ota_1")
    for mend in (board.repair, lambda: board.update(fresh())):
        board.write_otadata(OtaData((bad(7, VALID).to_record(), bad(6, VALID).to_record())))
        assert not any(GARBAGE in error.text for error in board.boots[-1].errors)
        assert any(GARBAGE in error.text for error in board.restart().errors)
        assert mend().ok
        assert not any(GARBAGE in error.text for error in board.reboot().errors)
        assert board.status().agrees


@pytest.mark.full
def test_after_the_largest_number_there_is_none_and_the_update_says_so(
    board: Board,
    confirm_in: Callable[[str], Release],
    fresh: Callable[[], Release],
    request: pytest.FixtureRequest,
) -> None:
    """The next number would be 0xFFFFFFFF, which means empty; ESP-IDF writes it. A chip counts up to it for a minute."""
    newest = confirm_in("ota_1")
    request.addfinalizer(lambda: small_numbers(board, 1))
    board.write_otadata(OtaData((R(0xFFFFFFFE, VALID).to_record(), R(1, VALID).to_record())))
    assert board.restart().slot == "ota_1"
    answer = board.update(fresh())
    assert (answer.error, answer.code) == ("flash", SELECT_INFO_INVALID), answer
    again = board.reboot()
    assert (again.slot, again.version) == ("ota_1", newest.version)
    assert board.status().agrees


# ---- both records name a slot that does not boot ------------------------------------------------------------


def fallen_back(board: Board, first: Record, second: Record) -> Running:
    """Both records name ota_1, which is spoilt: ota_0 runs."""
    board.write_otadata(OtaData((first.to_record(), second.to_record())))
    board.overwrite(board.slot("ota_1").offset, bytes(4096))
    boot = board.restart()
    assert (boot.slot, boot.not_bootable) == ("ota_0", ("ota_1",))
    running = board.status()
    assert not running.agrees
    return running


BAD_SLOTS = (
    choice("both confirmed", R(4, VALID), R(6, VALID), 0, source=RUUVI),
    choice("both undefined", R(4, UNDEFINED), R(6, UNDEFINED), 0, source=RUUVI),
    choice("equal numbers", R(6, VALID), R(6, VALID), 0, source=RUUVI),
    choice("newer one new", R(4, VALID), R(6, NEW), 0, source=RUUVI),
    choice("one of them empty", R(2, VALID), EMPTY, 0, source=RUUVI),
)


@pytest.mark.parametrize("row", rows(BAD_SLOTS))
def test_with_both_records_on_a_bad_slot_an_update_is_taken_and_can_still_be_rolled_back(
    board: Board, confirm_in: Callable[[str], Release], fresh: Callable[[], Release], row: Choice
) -> None:
    confirm_in("ota_1")
    running = fallen_back(board, row.first, row.second)
    release = fresh()
    answer = board.update(release)
    assert answer.ok, answer
    assert answer.fields["repaired"] is True
    boot = board.reboot()
    assert (boot.slot, boot.version) == ("ota_1", release.version)
    assert board.status().state == "pending", "without a pending state there is no way back"
    back = board.restart()
    assert (back.slot, back.version) == ("ota_0", running.version)


@pytest.mark.parametrize("row", rows(BAD_SLOTS))
def test_with_both_records_on_a_bad_slot_a_repair_brings_otadata_in_step(
    board: Board, confirm_in: Callable[[str], Release], row: Choice
) -> None:
    confirm_in("ota_1")
    running = fallen_back(board, row.first, row.second)
    assert board.repair().ok
    repaired = board.status()
    assert (repaired.agrees, repaired.state) == (True, "valid")
    again = board.restart()
    assert (again.slot, again.version, again.not_bootable) == ("ota_0", running.version, ())


@pytest.mark.profiles("development", full=("ciphertext-only", "release"))
def test_an_update_for_the_slot_that_runs_after_a_fall_back_is_refused(
    board: Board, confirm_in: Callable[[str], Release], fresh: Callable[[], Release]
) -> None:
    """otadata names the other slot as the running one; what counts is what runs."""
    confirm_in("ota_1")
    running = fallen_back(board, R(4, VALID), R(6, VALID))
    kept = board.slot_digest(running.slot)
    release = fresh()
    slot = board.slot(running.slot)
    assert board.take(board.package(release, slot)).error == "wrong-slot"
    assert board.take(board.body(release, slot), name="bare.bin", bare=1).error == "not-deciphered"
    assert board.slot_digest(running.slot) == kept, "the running slot was written to"
