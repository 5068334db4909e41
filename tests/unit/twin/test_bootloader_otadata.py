"""Which slot the bootloader starts, what it says, and what lies in otadata afterwards, byte for byte."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import boot_board
import pytest
from boot_board import CSV_FACTORY, OTA_0, OTA_1, OTADATA, Board, app_image, otadata, record

from harness.formats.otadata import OtaData, OtaRecord, OtaState
from harness.twin.boot_context import LoadedApp, Reset
from harness.twin.bootloader import SECTOR_BYTES

NEW, PENDING, VALID = OtaState.NEW, OtaState.PENDING_VERIFY, OtaState.VALID
INVALID, ABORTED, UNDEFINED = OtaState.INVALID, OtaState.ABORTED, OtaState.UNDEFINED
BAD_CRC = OtaRecord(seq=5, state=VALID, crc=0x12345678)
NO_FACTORY = "I No factory image, trying OTA 0"
ACTUAL_1 = "I Set actual ota_seq=1 in otadata[0]"
GARBAGE = "E ota data partition invalid and no factory, will try all partitions"


@dataclass(frozen=True)
class Case:
    name: str
    before: OtaData
    boots: int
    after: tuple[OtaRecord, OtaRecord]
    says: tuple[str, ...] = ()
    """Lines of tag ``boot`` about the choice, in order and complete."""
    rollback: bool = True


def case(
    name: str,
    before: tuple[OtaRecord | None, OtaRecord | None],
    boots: int,
    after: tuple[OtaRecord | None, OtaRecord | None] | None = None,
    says: tuple[str, ...] = (),
    rollback: bool = True,
) -> Case:
    end = otadata(*(after or before)).records
    return Case(name, otadata(*before), boots, end, says, rollback)


CASES = [
    case("blank", (None, None), OTA_0, (record(1, VALID), None), (NO_FACTORY, ACTUAL_1)),
    case("first valid", (record(1, VALID), None), OTA_0),
    case("second valid", (None, record(2, VALID)), OTA_1),
    case("larger sequence wins", (record(3, VALID), record(4, VALID)), OTA_1),
    case("larger sequence wins, other order", (record(5, VALID), record(4, VALID)), OTA_0),
    case("equal sequences take the first", (record(2, VALID), record(2, NEW)), OTA_1),
    case("undefined state boots", (record(2, UNDEFINED), None), OTA_1, rollback=False),
    case(
        "a new record becomes pending",
        (record(1, VALID), record(2, NEW)),
        OTA_1,
        (record(1, VALID), record(2, PENDING)),
    ),
    case(
        "an unconfirmed record is aborted and the other boots",
        (record(1, VALID), record(2, PENDING)),
        OTA_0,
        (record(1, VALID), record(2, ABORTED)),
    ),
    case(
        "both unconfirmed: both aborted, OTA 0 is tried and nothing is set",
        (record(1, PENDING), record(2, PENDING)),
        OTA_0,
        (record(1, ABORTED), record(2, ABORTED)),
        (NO_FACTORY,),
    ),
    case("invalid falls back", (record(1, VALID), record(2, INVALID)), OTA_0),
    case("both invalid", (record(3, INVALID), record(2, ABORTED)), OTA_0, None, (NO_FACTORY,)),
    case("one with a wrong sum", (BAD_CRC, record(2, VALID)), OTA_1),
    case("both with a wrong sum", (BAD_CRC, BAD_CRC), OTA_0, None, (GARBAGE,)),
    case("a wrong sum beside an empty one", (BAD_CRC, None), OTA_0, None, (GARBAGE,)),
    case(
        "aborted with a wrong sum beside an empty one counts as initial",
        (replace(BAD_CRC, state=ABORTED), None),
        OTA_0,
        (record(1, VALID), None),
        (NO_FACTORY, ACTUAL_1),
    ),
    case("new stays new without rollback", (record(1, VALID), record(2, NEW)), OTA_1, rollback=False),
    case("pending boots without rollback", (record(1, VALID), record(2, PENDING)), OTA_1, rollback=False),
]
ABOUT_THE_CHOICE = ("otadata", "ota data", "factory", "OTA 0")


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
@pytest.mark.parametrize("chip_name", boot_board.KINDS)
@pytest.mark.parametrize("given", CASES, ids=lambda given: given.name)
def test_otadata_decides(given: Case, chip_name: str, encrypted: bool, tmp_path: Path) -> None:
    board = Board.named(chip_name, tmp_path, encrypted=encrypted)
    config = boot_board.CONFIG if encrypted else boot_board.PLAIN_CONFIG
    board.provision(config=replace(config, rollback=given.rollback), otadata=given.before)
    outcome = board.boot()
    assert isinstance(outcome, LoadedApp)
    assert outcome.offset == given.boots
    said = [line for line in board.boot_lines if any(word in line for word in ABOUT_THE_CHOICE)]
    assert [line for line in said if "OTA data " not in line] == list(given.says)
    assert board.records() == given.after
    unchanged = [a == b for a, b in zip(given.before.records, given.after, strict=True)]
    for index, same in enumerate(unchanged):
        rest = board.flash.read(OTADATA + SECTOR_BYTES * index + 32, SECTOR_BYTES - 32)
        # A rewritten sector holds its 32 bytes and nothing else; one left alone is as it was provisioned.
        assert (rest == b"\xff" * len(rest)) is (not same or not encrypted)


@pytest.mark.parametrize("chip_name", boot_board.KINDS)
@pytest.mark.parametrize(
    "content",
    [b"\xff" * 0x2000, OtaData.for_slot(1, 2, VALID).to_bytes()],
    ids=["erased", "plaintext"],
)
def test_otadata_written_raw_on_an_encrypted_board_is_garbage_and_stays_so(
    content: bytes, chip_name: str, tmp_path: Path
) -> None:
    board = Board.named(chip_name, tmp_path, encrypted=True)
    board.provision()
    board.put(OTADATA, content, raw=True)
    for reason in (1, 0xC):
        outcome = board.boot(reason)
        assert isinstance(outcome, LoadedApp)
        assert outcome.offset == OTA_0
        assert GARBAGE in board.boot_lines
        assert board.flash.read(OTADATA, 0x2000) == content


@pytest.mark.parametrize(
    ("before", "line", "label"),
    [
        (otadata(None, None), "I Defaulting to factory image", "factory"),
        (otadata(BAD_CRC, BAD_CRC), "E ota data partition invalid, falling back to factory", "factory"),
        (otadata(record(2, VALID), None), "I Loaded app from partition at offset 0x1a0000", "ota_1"),
    ],
)
def test_a_factory_app_is_the_fallback(before: OtaData, line: str, label: str, tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path)
    versions = {0x20000: "0.9.0", 0xA0000: "1.0.0", OTA_1: "1.1.0"}
    board.provision(csv=CSV_FACTORY, otadata=before, versions=versions)
    outcome = board.boot()
    assert isinstance(outcome, LoadedApp)
    assert outcome.label == label
    assert line in board.boot_lines
    assert board.records() == before.records


@pytest.mark.parametrize("chip_name", boot_board.KINDS)
def test_a_slot_that_is_not_bootable_is_passed_over_downwards_then_upwards(
    chip_name: str, tmp_path: Path
) -> None:
    board = Board.named(chip_name, tmp_path, encrypted=True)
    csv = boot_board.CSV.replace("0x180000", "0x40000") + "ota_2,app,ota_2,0x1e0000,0x20000\n"
    before = otadata(record(2, VALID), None)
    board.provision(csv=csv, otadata=before, versions={0x1E0000: "1.2.0"})
    outcome = board.boot()
    assert isinstance(outcome, LoadedApp)
    assert outcome.offset == 0x1E0000
    errors = [line for line in board.lines if line.startswith("E ")]
    assert errors == [
        f"E esp_image: image at 0x{OTA_1:x} has invalid magic byte (nothing flashed here?)",
        "E boot: OTA app partition slot 1 is not bootable",
        f"E esp_image: image at 0x{OTA_0:x} has invalid magic byte (nothing flashed here?)",
        "E boot: OTA app partition slot 0 is not bootable",
    ]
    assert board.records() == before.records


def test_the_slot_that_really_started_is_what_gets_into_blank_otadata(tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path, encrypted=True)
    board.provision(versions={OTA_1: "1.1.0"})
    board.boot()
    assert "I Set actual ota_seq=2 in otadata[0]" in board.boot_lines
    assert board.records() == (record(2, VALID), OtaRecord.empty())


def test_nothing_bootable_resets_by_software(tmp_path: Path) -> None:
    board = Board.named("esp32", tmp_path, encrypted=True)
    board.provision(versions={})
    board.flash.erase(OTA_0, 0x1000, who="stub")
    board.flash.erase(OTA_1, 0x1000, who="stub")
    outcome = board.boot()
    assert board.lines[-1] == "E boot: No bootable app partitions in the partition table"
    assert isinstance(outcome, Reset)
    assert outcome.reset_reason == 3
    assert 0.05 < outcome.after_s < 2


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_a_state_change_is_one_erase_and_one_write_of_32_bytes(encrypted: bool, tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path, encrypted=encrypted)
    board.provision(otadata=otadata(record(1, VALID), record(2, NEW)))
    board.boot()
    done = [(op.kind, op.offset, op.length) for op in board.flash.ops if op.who == "bootloader"]
    write = "write-encrypted" if encrypted else "write"
    assert done == [("erase", OTADATA + 0x1000, 0x1000), (write, OTADATA + 0x1000, 32)]


def test_a_failing_otadata_write_is_logged_and_the_app_starts(tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path, encrypted=True)
    board.provision(otadata=otadata(record(1, VALID), record(2, NEW)))
    board.flash.operations.add_fault("write-encrypted", 0x6001)
    outcome = board.boot()
    assert "E Error in write_otadata operation. err = 0x6001" in board.boot_lines
    assert isinstance(outcome, LoadedApp)
    assert outcome.offset == OTA_1


def test_an_otadata_of_one_sector_stops_the_boot(tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path)
    board.provision()
    table = bytearray(board.flash.read(boot_board.TABLE_OFFSET, 0xC00))
    table[32 + 8 : 32 + 12] = (0x1000).to_bytes(4, "little")
    table[5 * 32 : 6 * 32] = b"\xff" * 32  # without its MD5 entry
    board.put(boot_board.TABLE_OFFSET, bytes(table))
    outcome = board.boot()
    assert board.lines[-1] == "E boot: ota_info partition size 4096 is too small (minimum 8192 bytes)"
    assert isinstance(outcome, Reset)


def test_debug_level_names_the_state_changes(tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path)
    config = replace(boot_board.PLAIN_CONFIG, log_level=4)
    board.provision(config=config, otadata=otadata(record(3, NEW), record(2, PENDING)))
    board.boot()
    debug = [line for line in board.boot_lines if line.startswith("D ")]
    assert debug == [
        "D otadata[0]: sequence values 0x00000003",
        "D otadata[1]: sequence values 0x00000002",
        "D otadata[1] is marking as ABORTED",
        "D Active otadata[0]",
        "D Mapping seq 2 -> OTA slot 0",
        "D otadata[0] is selected as new and marked PENDING_VERIFY state",
    ]


def test_at_error_level_a_good_boot_prints_only_the_roms_lines(tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path)
    board.provision(config=replace(boot_board.PLAIN_CONFIG, log_level=1))
    assert isinstance(board.boot(), LoadedApp)
    assert board.lines[-1].startswith("entry 0x")


# Anti-rollback

ANTI = replace(boot_board.CONFIG, anti_rollback=True)


@pytest.mark.parametrize("chip_name", boot_board.KINDS)
def test_with_anti_rollback_garbage_counts_as_initial_and_is_repaired(chip_name: str, tmp_path: Path) -> None:
    board = Board.named(chip_name, tmp_path, encrypted=True)
    board.provision(config=ANTI)
    board.put(OTADATA, b"\xff" * 0x2000, raw=True)
    outcome = board.boot()
    assert isinstance(outcome, LoadedApp)
    assert outcome.offset == OTA_0
    at = board.boot_lines.index("I Enabled a check secure version of app for anti rollback")
    assert board.boot_lines[at + 1 : at + 3] == [
        "I Secure version (from eFuse) = 0",
        "I otadata[0..1] in initial state",
    ]
    assert ACTUAL_1 in board.boot_lines
    assert board.records()[0] == record(1, VALID)


@pytest.mark.parametrize("chip_name", boot_board.KINDS)
def test_booting_a_confirmed_app_raises_the_efuse_to_its_version(chip_name: str, tmp_path: Path) -> None:
    board = Board.named(chip_name, tmp_path, encrypted=True)
    board.provision(config=ANTI, otadata=otadata(record(2, VALID), None))
    board.put(OTA_1, app_image(board.chip, "1.1.0", secure_version=2))
    board.boot()
    assert board.efuses.field("SECURE_VERSION") == 0b11
    assert "I efuse: Anti-rollback is set. eFuse field is updated(2)." in board.lines
    board.boot(0xC)
    assert "I boot: Secure version (from eFuse) = 2" in board.lines
    assert not any("Anti-rollback is set" in line for line in board.lines)


@pytest.mark.parametrize(("chip_name", "bits"), [("esp32", 32), ("esp32c3", 16)])
def test_a_version_beyond_the_fuses_boots_and_burns_nothing(
    chip_name: str, bits: int, tmp_path: Path
) -> None:
    board = Board.named(chip_name, tmp_path, encrypted=True)
    board.provision(config=ANTI, otadata=otadata(record(2, VALID), None))
    board.put(OTA_1, app_image(board.chip, "1.1.0", secure_version=bits + 1))
    assert isinstance(board.boot(), LoadedApp)
    assert board.efuses.field("SECURE_VERSION") == 0
    assert (
        f"E efuse: Max secure version is {bits}. Given {bits + 1} version can not be written." in board.lines
    )


def test_a_build_that_uses_fewer_bits_counts_and_burns_only_those(tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path, encrypted=True)
    board.provision(config=replace(ANTI, secure_version_bits=4), otadata=otadata(record(2, VALID), None))
    board.put(OTA_1, app_image(board.chip, "1.1.0", secure_version=5))
    board.efuses.burn_field("SECURE_VERSION", 1 << 9)
    assert isinstance(board.boot(), LoadedApp)
    assert "I boot: Secure version (from eFuse) = 0" in board.lines
    assert "E efuse: Max secure version is 4. Given 5 version can not be written." in board.lines


def test_esp32_with_a_coding_scheme_cannot_raise_its_version(tmp_path: Path) -> None:
    board = Board.named("esp32", tmp_path)
    board.efuses.burn_field("CODING_SCHEME", 1)
    board.provision(
        config=replace(ANTI, flash_encryption="off", require_encrypted=False),
        otadata=otadata(record(2, VALID), None),
    )
    board.put(OTA_1, app_image(board.chip, "1.1.0", secure_version=1))
    assert isinstance(board.boot(), LoadedApp)
    assert "E efuse: Anti rollback is not supported with any coding scheme." in board.lines
    assert board.efuses.field("SECURE_VERSION") == 0


def test_fuses_that_are_write_protected_stay_whatever_the_bootloader_says(tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path, encrypted=True)
    board.provision(config=ANTI, otadata=otadata(record(2, VALID), None))
    board.put(OTA_1, app_image(board.chip, "1.1.0", secure_version=1))
    board.efuses.burn_field("WR_DIS", 1 << 18)
    assert isinstance(board.boot(), LoadedApp)
    assert board.efuses.field("SECURE_VERSION") == 0
    assert [line for line in board.lines if " efuse: " in line] == [
        "I efuse: BURN BLOCK0",
        "E efuse: BURN BLOCK0 - ERROR (written bits != read bits)",
        "W efuse: BLOCK0: next retry to fix an error [1/3]...",
        "I efuse: BURN BLOCK0",
        "E efuse: BURN BLOCK0 - ERROR (written bits != read bits)",
        "W efuse: BLOCK0: next retry to fix an error [2/3]...",
        "I efuse: BURN BLOCK0",
        "E efuse: BURN BLOCK0 - ERROR (written bits != read bits)",
        "W efuse: BLOCK0: next retry to fix an error [3/3]...",
        "E efuse: Written data are incorrect",
        # What the write returned is not looked at.
        "I efuse: Anti-rollback is set. eFuse field is updated(1).",
    ]


def test_an_older_app_is_not_selected_whatever_its_sequence(tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path, encrypted=True)
    board.provision(config=ANTI, otadata=otadata(record(2, VALID), record(3, VALID)))
    board.put(OTA_1, app_image(board.chip, "1.1.0", secure_version=1))
    board.efuses.burn_field("SECURE_VERSION", 1)
    outcome = board.boot()
    assert isinstance(outcome, LoadedApp)
    assert outcome.offset == OTA_1
    assert not any("esp_image" in line and f"{OTA_0 + 0x20:08x}" in line for line in board.lines)


def test_a_fallback_to_an_app_that_is_too_old_is_refused(tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path, encrypted=True)
    board.provision(config=ANTI, otadata=otadata(record(2, VALID), None))
    board.efuses.burn_field("SECURE_VERSION", 1)
    outcome = board.boot()
    assert isinstance(outcome, Reset)
    assert board.boot_lines[-5:] == [
        GARBAGE,
        "E OTA app partition slot 0 is not bootable",
        "E OTA app partition slot 1 is not bootable",
        # The test app that there is not: ESP_ERR_INVALID_ARG.
        "E Failed to get partition description 258",
        "E No bootable app partitions in the partition table",
    ]
