"""What speaks against taking a locked board for the one that a record tells of, and what a rescue never writes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fuse_bench import MAC, firmware

from harness.chips import ESP32C3
from harness.errors import RefusedError, UsageError
from harness.provision import (
    ChipState,
    DeviceRecord,
    Download,
    FlashRegion,
    Lock,
    Profile,
    SecurityInfo,
    plan_for,
    unreachable_state,
)
from harness.provision.planner import FlashedFirmware
from harness.provision.rescue import SECURITY_FLAGS, only_ciphertext, require_rescuable, require_typed
from harness.vault import KeyRef
from harness.vault.intent import Intent

INFO = SecurityInfo(flags=1 << 2 | 1 << 7 | 1 << 10, crypt_count=7, key_purposes=(4, 0, 0, 0, 0, 0, 12))
STATE = ChipState("esp32c3", None, None, {}, frozenset(), frozenset(), (), Download.SECURE, INFO)
FUSES = {
    "SPI_BOOT_CRYPT_CNT": 7,
    "KEY_PURPOSE_0": 4,
    **{f"KEY_PURPOSE_{number}": 0 for number in range(1, 6)},
    "ENABLE_SECURITY_DOWNLOAD": 0,  # as it was when the snapshot was taken: before the lock
    "SECURE_BOOT_EN": 0,
    "SECURE_BOOT_AGGRESSIVE_REVOKE": 0,
    "SECURE_BOOT_KEY_REVOKE0": 0,
    "SECURE_BOOT_KEY_REVOKE1": 0,
    "SECURE_BOOT_KEY_REVOKE2": 0,
    "SOFT_DIS_JTAG": 0,
    "DIS_PAD_JTAG": 1,
    "DIS_DOWNLOAD_ICACHE": 1,
}
KEY = KeyRef(MAC, "esp32c3", "11" * 8)
RECORD = DeviceRecord(
    mac=MAC,
    chip_name="esp32c3",
    profile=Profile.RELEASE,
    lock=Lock.SECURE_DOWNLOAD,
    key_id=KEY.key_id,
    key_state="test-only",
    key_block="BLOCK_KEY0",
    fuses=FUSES,
    flashed={},
    plan_id="",
    updated="",
)


def intent(lock: Lock) -> Intent:
    return Intent(MAC, "esp32c3", "BLOCK_KEY0", KEY.key_id, "", "release", lock.value, {}, True, "")


def test_a_board_that_shows_what_its_record_says_is_taken_for_it() -> None:
    require_rescuable(STATE, RECORD, KEY)
    # Killed between the lock's burn and the record.
    require_rescuable(STATE, replace(RECORD, lock=Lock.NONE), KEY, intent=intent(Lock.SECURE_DOWNLOAD))


def test_a_counter_that_was_write_protected_instead_of_filled_up_is_that_of_the_record() -> None:
    """The firmware's own way to release leaves it at one bit, and the ROM does not show its write protection."""
    state = replace(STATE, security_info=replace(INFO, crypt_count=1))
    require_rescuable(state, replace(RECORD, fuses={**FUSES, "SPI_BOOT_CRYPT_CNT": 1}), KEY)
    with pytest.raises(RefusedError, match="the flash encryption counter is 0x1"):
        require_rescuable(state, RECORD, KEY)


@pytest.mark.parametrize(
    ("fuse", "value", "said"),
    [
        ("KEY_PURPOSE_0", 9, "KEY_PURPOSE_0 is 4, in the record 9"),
        ("KEY_PURPOSE_5", 4, "KEY_PURPOSE_5 is 0, in the record 4"),
        ("SPI_BOOT_CRYPT_CNT", 1, "SPI_BOOT_CRYPT_CNT is 0x7, in the record 0x1"),
        ("SECURE_BOOT_EN", 1, "SECURE_BOOT_EN is not set, in the record set"),
        ("SECURE_BOOT_AGGRESSIVE_REVOKE", 1, "SECURE_BOOT_AGGRESSIVE_REVOKE is not set"),
        ("SECURE_BOOT_KEY_REVOKE0", 1, "SECURE_BOOT_KEY_REVOKE0 is not set, in the record set"),
        ("SECURE_BOOT_KEY_REVOKE1", 1, "SECURE_BOOT_KEY_REVOKE1 is not set, in the record set"),
        ("SECURE_BOOT_KEY_REVOKE2", 1, "SECURE_BOOT_KEY_REVOKE2 is not set, in the record set"),
        ("SOFT_DIS_JTAG", 7, "SOFT_DIS_JTAG is not set, in the record set"),
        ("DIS_PAD_JTAG", 0, "DIS_PAD_JTAG is set, in the record not set"),
        ("DIS_DOWNLOAD_ICACHE", 0, "DIS_DOWNLOAD_ICACHE is set, in the record not set"),
    ],
)
def test_a_fuse_that_is_not_what_the_record_says_is_named(fuse: str, value: int, said: str) -> None:
    with pytest.raises(RefusedError, match="Nothing was written") as refusal:
        require_rescuable(STATE, replace(RECORD, fuses={**FUSES, fuse: value}), KEY)
    assert said in refusal.value.message


@pytest.mark.parametrize("flag", SECURITY_FLAGS, ids=lambda flag: flag.fuses[0])
def test_a_flag_that_the_chip_shows_and_the_record_has_a_fuse_for_must_agree(flag: Any) -> None:
    shown = replace(INFO, flags=INFO.flags ^ 1 << flag.bit)
    for fuse in flag.fuses:
        value = INFO.flags >> flag.bit & 1
        record = replace(RECORD, fuses={"SPI_BOOT_CRYPT_CNT": 7, fuse: value})
        require_rescuable(STATE, record, KEY)
        with pytest.raises(RefusedError, match=f"{fuse} is "):
            require_rescuable(replace(STATE, security_info=shown), record, KEY)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"key_id": "00" * 8}, "the record tells of key 0000000000000000, the vault has 1111111111111111"),
        ({"profile": Profile.OPEN}, "the record says open: there is no ciphertext for it"),
        ({"chip_name": "esp32"}, "the record is that of an esp32, this is an esp32c3"),
        ({"lock": Lock.NONE}, "the record says lock none, this board is in Secure Download Mode"),
        ({"lock": Lock.DOWNLOAD_OFF}, "the record says lock download-off, this board is in"),
        ({"fuses": {}}, "the record does not tell what SPI_BOOT_CRYPT_CNT is"),
    ],
)
def test_a_record_that_is_not_of_this_board_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(RefusedError, match="Nothing was written") as refusal:
        require_rescuable(STATE, replace(RECORD, **change), KEY)
    assert said in refusal.value.message


def test_everything_that_speaks_against_it_is_said_at_once() -> None:
    record = replace(RECORD, lock=Lock.NONE, fuses={**FUSES, "KEY_PURPOSE_0": 9})
    with pytest.raises(RefusedError) as refusal:
        require_rescuable(STATE, record, None, intent=intent(Lock.NONE))
    for said in ("the record says lock none", f"the vault has no key of {MAC}", "KEY_PURPOSE_0 is 4"):
        assert said in refusal.value.message


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (unreachable_state(ESP32C3, None), "DIS_DOWNLOAD_MODE is burned: nothing but its firmware"),
        (replace(STATE, download=Download.OPEN, mac=MAC), "it is identified by itself and needs no rescue"),
        (replace(STATE, download=Download.OPEN, mac="02:00:00:aa:bb:02"), f"which is not {MAC}"),
        (replace(STATE, security_info=None), "the ROM gave no security information"),
    ],
)
def test_a_board_that_cannot_be_rescued_or_need_not_be_is_told_so(state: ChipState, said: str) -> None:
    with pytest.raises(RefusedError) as refusal:
        require_rescuable(state, RECORD, KEY)
    assert said in refusal.value.message


@pytest.mark.parametrize(
    ("typed", "error"),
    [("02-00-00-AA-BB-01", None), ("02:00:00:aa:bb:02", RefusedError), ("aa:bb:01", UsageError)],
)
def test_the_mac_counts_only_in_full(typed: str, error: type[Exception] | None) -> None:
    if error is None:
        require_typed(typed, RECORD)
        return
    with pytest.raises(error):
        require_typed(typed, RECORD)


def test_what_the_chip_keeps_as_plaintext_is_left_alone() -> None:
    settings = FlashRegion("settings", 0x40000, b"plain", stored_encrypted=False)
    plan = plan_for(
        STATE,
        profile=Profile.RELEASE,
        lock=Lock.SECURE_DOWNLOAD,
        key=KEY,
        regions=(*firmware(ESP32C3), settings),
        record=RECORD,
        reflash=True,
        firmware=FlashedFirmware(flash=("app at 0x20000: written", "settings at 0x40000: written")),
    )
    assert not all(step.enciphered for step in plan.writes)
    kept = only_ciphertext(plan)
    assert [(step.name, step.enciphered) for step in kept.writes] == [
        (name, True) for name in ("bootloader", "partition-table", "otadata", "app")
    ]
    assert len(kept.steps) == len(kept.writes), "the record waits for the proof"
    assert kept.flash == ("app at 0x20000: written",)
    assert "settings is left as it is: the chip keeps it as plaintext" in kept.remarks
    assert "not verified over UART" in kept.text()
