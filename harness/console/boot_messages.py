"""What one message changes in the record of the boot it belongs to.

Pure functions: a record as far as it has come and a message in, the changed fields out. `BootTracker`
decides which boot a message belongs to.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from enum import IntEnum
from typing import Any

from harness.console import boot_patterns as patterns
from harness.console.boot_record import IMAGE_TAGS, BootError, BootRecord, ImageCheck, Panic, PrintedPartition
from harness.console.log_line import EspLog

MAX_ERRORS = 64
MAX_NOTES = 16
"""Bounds for a board that crashes all night: a record keeps its first errors and notes."""

MAX_PARTITIONS = 95
"""What a partition table of 0xC00 bytes can hold."""

Changes = dict[str, Any]


class Stage(IntEnum):
    """How far a boot has come; it only rises."""

    BEFORE = 0
    ROM = 1
    BOOTLOADER = 2
    APP = 3


_PHASES = {Stage.BEFORE: "rom", Stage.ROM: "rom", Stage.BOOTLOADER: "bootloader", Stage.APP: "app"}
_APP_FIELDS = {
    "Project name": "project",
    "App version": "version",
    "ELF file SHA256": "elf_sha256",
    "ESP-IDF": "app_idf_version",
}
_EVENT_FIELDS: tuple[tuple[str, str, type], ...] = (
    ("slot", "slot", str),
    ("offset", "offset", int),
    ("version", "version", str),
    ("project", "project", str),
    ("app_idf_version", "idf", str),
    ("chip", "chip", str),
    ("secure_version", "secure_version", int),
)


def stage_of(log: EspLog) -> Stage:
    """The stage that a message proves to have been reached; `Stage.BEFORE` when it proves nothing."""
    if log.tag == "boot" or log.tag.startswith("boot."):
        return Stage.BOOTLOADER
    if log.tag in patterns.APP_TAGS or (
        log.tag == "flash_encrypt" and patterns.ENCRYPTION_MODE.search(log.text)
    ):
        return Stage.APP
    return Stage.BEFORE


def changes_by_rom(record: BootRecord, text: str, line_n: int) -> Changes:
    """ROM text other than the banner, the reset line and ``invalid header``."""
    if mode := patterns.ROM_FLASH_MODE.search(text):
        return {"flash_mode": mode[1]}
    if patterns.ROM_VERIFIED.search(text):
        return {"rom_verified": True, "secure_boot": True}
    if patterns.ROM_SECURE_BOOT.search(text):
        return {"secure_boot": True}
    if failure := patterns.ROM_FAILURE.search(text):
        return _with_error(record, Stage.ROM, "", failure[0], line_n)
    return {}


def changes_by_log(record: BootRecord, stage: Stage, log: EspLog, line_n: int) -> Changes:
    """One message in ESP-IDF's log format, printed in `stage`."""
    changes = _by_tag(record, stage, log)
    if log.level == "E" or (log.level == "W" and log.tag == "esp_image"):
        changes |= _with_error(record, stage, log.tag, log.text, line_n)
    return changes


def _by_tag(record: BootRecord, stage: Stage, log: EspLog) -> Changes:
    tag, text = log.tag, log.text
    if tag == "boot" or tag.startswith("boot."):
        # An application may run the bootloader's code, under the bootloader's tag.
        return _by_bootloader(record, log) if stage is not Stage.APP else {}
    if tag in patterns.APP_TAGS:
        return _by_startup(record, text)
    if tag == "esp_image":
        return _by_image_check(record, log) if stage is Stage.APP else {}
    if tag == "flash_encrypt":
        return _by_flash_encryption(text)
    if tag.startswith("secure_boot"):
        if patterns.SECURE_BOOT_ON.search(text):
            return {"secure_boot": True}
        verified = stage is Stage.BOOTLOADER and "Signature verified successfully" in text
        return {"app_signature_verified": True} if verified else {}
    if tag in ("esp_ota_ops", "boot_comm"):
        if patterns.OTADATA_INVALID.search(text):
            return {"otadata_unreadable": True}
        speaks = patterns.ROLLBACK.search(text) or patterns.MARKED_ABORTED.search(text)
        return noted(record, "rollback_notes", text) if speaks else {}
    if writes := patterns.UPDATE_WRITES.search(text):
        return noted(record, "updates", f"{tag} wrote {writes[1] or 'a slot'} at {writes[2]}")
    if stage is Stage.APP and "state" in text and (said := patterns.OTA_STATE.search(text)):
        # A line that names another slot tells the state of that one.
        named = patterns.SLOT.findall(text)
        of_another = record.slot is not None and named and record.slot not in named
        return {} if of_another else _with_state(record, patterns.OTA_STATES[said[1] or said[2]])
    return {}


def _by_bootloader(record: BootRecord, log: EspLog) -> Changes:
    text = log.text
    if log.tag != "boot":
        return {"chip": log.tag.removeprefix("boot.")} if record.chip is None else {}
    if banner := patterns.BOOTLOADER_BANNER.search(text):
        return {"bootloader_version": banner[1]}
    if row := patterns.PARTITION_ROW.match(text):
        return _with_partition(record, row)
    if loaded := patterns.LOADED_APP.search(text):
        offset = int(loaded[1], 16)
        partition = record.partition_at(offset)
        return {"offset": offset, "slot": partition.label if partition else None}
    if failed := patterns.NOT_BOOTABLE.search(text):
        return noted(record, "not_bootable", f"ota_{failed[1]}" if failed[1] else "factory")
    if patterns.OTADATA_INVALID.search(text):
        return {"otadata_unreadable": True}
    if text.startswith("Set actual ota_seq="):
        return {"otadata_written": True}
    if patterns.MARKED_ABORTED.search(text):
        return noted(record, "rollback_notes", text)
    if compiled := patterns.COMPILE_TIME.search(text):
        return {"bootloader_compile_time": compiled[1].strip()}
    if text.startswith("Disabling RNG early entropy") and record.offset is not None:
        # The bootloader's last line: what it is built for it has said by now.
        return {
            "encryption": "off" if record.encryption is None else record.encryption,
            "secure_boot": False if record.secure_boot is None else record.secure_boot,
        }
    return {}


def _with_partition(record: BootRecord, row: re.Match[str]) -> Changes:
    if len(record.partitions) >= MAX_PARTITIONS:
        return {}
    numbers = [int(row[name], 16) for name in ("type", "subtype", "offset", "size")]
    partition = PrintedPartition(row["label"].strip(), row["usage"].strip(), *numbers)
    return {"partitions": (*record.partitions, partition)}


def _by_startup(record: BootRecord, text: str) -> Changes:
    if patterns.APP_MAIN.search(text):
        return {"app_started": True}
    fact = patterns.APP_FACT.match(text)
    if fact is None or record.app_started:
        # Start-up code says who the app is before that starts; later it is the app's own text, of whichever app.
        return {}
    name, value = fact[1], fact[2].strip()
    if name == "Secure version":
        return {"secure_version": int(value[:10])} if value.isascii() and value.isdigit() else {}
    return {_APP_FIELDS[name]: value.rstrip(".") if name == "ELF file SHA256" else value}


def _by_image_check(record: BootRecord, log: EspLog) -> Changes:
    checks = record.image_checks
    earlier = checks[1 - MAX_NOTES :]
    if segment := patterns.SEGMENT_0.search(log.text):
        check = ImageCheck(int(segment[1], 16) - patterns.SEGMENT_DATA_OFFSET, True)
        known = check.offset < 0 or (checks and checks[-1] == check)
        return {} if known else {"image_checks": (*earlier, check)}
    if log.level not in "EW":
        return {}
    if at := patterns.IMAGE_AT.search(log.text):
        return {"image_checks": (*earlier, ImageCheck(int(at[1], 16), False))}
    return {"image_checks": (*checks[:-1], replace(checks[-1], ok=False))} if checks else {}


def _by_flash_encryption(text: str) -> Changes:
    if on := patterns.ENCRYPTION_ON.search(text):
        return {"encryption": "enabled", "plaintext_flashes_left": int(on[1])}
    if mode := patterns.ENCRYPTION_MODE.search(text):
        return {"encryption": mode[1].lower()}
    if text.startswith("Flash encryption completed"):
        return {"encryption": "enabled", "encrypted_in_place": True}
    return {}


def changes_by_boot_event(record: BootRecord, data: Mapping[str, Any]) -> Changes:
    """The firmware's own account: it fills in what was not printed, and overrules what was only concluded."""
    changes: Changes = {"evt_boot": dict(data), "app_started": True}
    for field, key, kind in _EVENT_FIELDS:
        value = data.get(key)
        if getattr(record, field) is None and isinstance(value, kind) and not isinstance(value, bool):
            changes[field] = value
    if data.get("fe") in ("off", "development", "release"):
        changes["encryption"] = data["fe"]
    if isinstance(data.get("sb"), bool):
        changes["secure_boot"] = data["sb"]
    if data.get("state") in patterns.OTA_STATES.values():
        changes |= _with_state(record, data["state"])
    return changes


def changes_by_panic(record: BootRecord, text: str, line_n: int) -> Changes:
    """A line of a panic's report. The first cause counts: failed assertions end in ``abort()``."""
    panic = record.panic
    if panic is not None:
        if panic.pc is None and (at := patterns.PANIC_PC.search(text)):
            return {"panic": replace(panic, pc=int(at[1], 16))}
        if panic.backtrace is None and (trace := patterns.BACKTRACE.search(text)):
            return {"panic": replace(panic, backtrace=trace[1].strip())}
    match = patterns.PANIC.search(text)
    if match is None:
        return {}
    if panic is None:
        return {"panic": _panic(match, line_n), "panics": 1}
    return {} if match["abort"] else {"panics": record.panics + 1}


def _panic(match: re.Match[str], line_n: int) -> Panic:
    if match["cause"]:
        cause = match["cause"]
        kind = "interrupt-watchdog" if cause.startswith("Interrupt wdt") else "exception"
        return Panic(kind, cause, line_n, core=int(match["core"][:4]))
    if match["abort"]:
        core = int(match["abort_core"][:4]) if match["abort_core"] else None
        return Panic("abort", "abort() was called", line_n, pc=int(match["pc"], 16), core=core)
    group = next(name for name in patterns.PANIC_KINDS if match[name])
    return Panic(patterns.PANIC_KINDS[group], match[group].strip(), line_n)


def noted(record: BootRecord, field: str, value: object) -> Changes:
    """`value` appended to a tuple of the record, once, up to `MAX_NOTES`."""
    present: tuple[object, ...] = getattr(record, field)
    return {} if value in present or len(present) >= MAX_NOTES else {field: (*present, value)}


def _with_state(record: BootRecord, state: str) -> Changes:
    first = state if record.ota_state is None else record.ota_state
    return {"ota_state": first, "confirmed": record.confirmed or state == "valid"}


def _with_error(record: BootRecord, stage: Stage, tag: str, text: str, line_n: int) -> Changes:
    if len(record.errors) >= MAX_ERRORS:
        return {"errors_dropped": record.errors_dropped + 1}
    phase = _PHASES[stage]
    if stage <= Stage.ROM and tag:
        # A log that begins in the middle: only the tag tells who speaks.
        phase = "bootloader" if tag in IMAGE_TAGS else "app"
    return {"errors": (*record.errors, BootError(phase, tag, text.strip(), line_n))}
