"""What a log says of one boot, from the ROM's banner to the next reset.

A record holds only what was printed. What follows from two records together (a rollback prints nothing at
INFO level) is `harness.console.inference`'s, and ends up in ``inferred``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from harness.console.boot_patterns import ROM_REFUSES
from harness.console.reset_reason import ResetKind, reset_kind

FORMAT = 1
"""Version of the JSON form. A reader of version N understands all versions up to N."""


class Outcome(str, Enum):
    """How far a boot came."""

    APP = "app"
    LOADED = "loaded"
    """The bootloader loaded an application that was not (yet) seen to start."""
    DOWNLOAD = "download"
    ENCRYPTED = "encrypted-in-place"
    """First boot of a build that encrypts by itself: it ends in a reset on purpose."""
    ROM_FAILED = "rom-failed"
    """The ROM finds no bootloader it would start."""
    BOOTLOADER_FAILED = "bootloader-failed"
    UNFINISHED = "unfinished"


@dataclass(frozen=True, slots=True)
class PrintedPartition:
    """One row of the partition table as the bootloader printed it; offset and size in bytes."""

    label: str
    usage: str
    type: int
    subtype: int
    offset: int
    size: int

    @property
    def is_app(self) -> bool:
        return self.type == 0


@dataclass(frozen=True, slots=True)
class BootError:
    """An error that ROM, bootloader or application printed."""

    phase: str
    """``rom``, ``bootloader`` or ``app``."""
    tag: str
    text: str
    line: int

    def __str__(self) -> str:
        return f"{self.tag}: {self.text}" if self.tag else self.text


@dataclass(frozen=True, slots=True)
class Panic:
    """How an application died."""

    kind: str
    """One of exception, abort, assert, error-check, stack-overflow, stack-smash, task-watchdog,
    interrupt-watchdog, brownout."""
    text: str
    line: int
    pc: int | None = None
    core: int | None = None
    backtrace: str | None = None

    def __str__(self) -> str:
        at = f" at 0x{self.pc:08x}" if self.pc is not None else ""
        return f"{self.kind}: {self.text}{at}"


@dataclass(frozen=True, slots=True)
class ImageCheck:
    """The running application had ESP-IDF verify the image at flash offset ``offset``."""

    offset: int
    ok: bool


@dataclass(frozen=True, slots=True)
class BootRecord:
    """One boot. None and empty mean: not printed."""

    number: int
    started_at: float
    """Monotonic seconds of the first line (0 for a file without time stamps)."""
    first_line: int
    last_line: int
    started_wall: float = 0.0
    """Unix seconds of the first line."""
    from_start: bool = True
    """False when the log begins in the middle of this boot."""
    caused_by: str | None = None
    """What the harness did that this boot comes of, as the log's mark has it: ``reset: into run``, ``power: on``,
    ``command 'reboot'``; None: nothing, the chip started by itself."""

    chip: str | None = None
    rom_banner: str | None = None
    reset_code: int | None = None
    reset_reason: str | None = None
    """As the ROM printed it."""
    boot_code: int | None = None
    boot_mode: str | None = None
    flash_mode: str | None = None
    rom_header_word: int | None = None
    """What the ROM read where a bootloader's header should be (``invalid header``)."""
    rom_header_lines: int = 0
    """How many times it said so, over all ``repeats``."""
    repeats: int = 0
    """How many further boots failed in the very same way after this one: a reboot loop is one record."""

    bootloader_version: str | None = None
    bootloader_compile_time: str | None = None
    partitions: tuple[PrintedPartition, ...] = ()
    slot: str | None = None
    """Label of the partition that was loaded, e.g. ``ota_0``."""
    offset: int | None = None
    project: str | None = None
    version: str | None = None
    secure_version: int | None = None
    app_idf_version: str | None = None
    elf_sha256: str | None = None
    """First digits of the ELF's SHA-256, as many as were printed."""

    encryption: str | None = None
    """``off``, ``development``, ``release``; ``enabled`` when it is on and no line said which mode.

    ``off`` is concluded from a bootloader that loaded an app and said nothing of flash encryption: one that
    is built for it always does at INFO. The firmware's boot event overrules.
    """
    plaintext_flashes_left: int | None = None
    encrypted_in_place: bool = False
    secure_boot: bool | None = None
    """Whether secure boot is on at the end of this boot; False is concluded like ``off`` above."""
    rom_verified: bool = False
    app_signature_verified: bool = False

    app_started: bool = False
    ota_state: str | None = None
    """State of the running slot in otadata as first printed: pending, valid, new, invalid, aborted,
    undefined."""
    confirmed: bool = False
    """The running version was seen confirmed (state valid) in this boot."""
    otadata_unreadable: bool = False
    """The bootloader or the application found no valid otadata record where one should be."""
    otadata_written: bool = False
    """The bootloader wrote otadata for the slot it chose (``Set actual ota_seq``)."""
    not_bootable: tuple[str, ...] = ()
    """Slots that the bootloader tried and gave up, e.g. ``("ota_1",)``."""
    image_checks: tuple[ImageCheck, ...] = ()
    updates: tuple[str, ...] = ()
    """Evidence of an update during this boot, in the log's words."""
    rollback_notes: tuple[str, ...] = ()
    """Lines that speak of a rollback. At INFO the bootloader prints none."""

    errors: tuple[BootError, ...] = ()
    errors_dropped: int = 0
    panic: Panic | None = None
    panics: int = 0
    evt_boot: Mapping[str, Any] | None = None
    bad_events: int = 0
    missed_events: int = 0
    inferred: tuple[str, ...] = ()

    @property
    def reset_kind(self) -> ResetKind:
        return reset_kind(self.reset_reason)

    @property
    def download(self) -> bool:
        """The ROM waits for a download instead of booting."""
        return self.boot_mode is not None and "DOWNLOAD" in self.boot_mode

    @property
    def rom_refused(self) -> bool:
        """The ROM has verified the bootloader's signature, and does not start it."""
        return any(error.phase == "rom" and ROM_REFUSES.search(error.text) for error in self.errors)

    @property
    def outcome(self) -> Outcome:
        if self.app_started:
            return Outcome.APP
        if self.download:
            return Outcome.DOWNLOAD
        if self.encrypted_in_place:
            return Outcome.ENCRYPTED
        if self.offset is not None or self.version is not None:
            return Outcome.LOADED
        phases = {error.phase for error in self.errors}
        if self.bootloader_version is not None or "bootloader" in phases:
            return Outcome.BOOTLOADER_FAILED if "bootloader" in phases else Outcome.UNFINISHED
        if self.rom_header_lines or "rom" in phases:
            return Outcome.ROM_FAILED
        return Outcome.UNFINISHED

    @property
    def boot_errors(self) -> tuple[BootError, ...]:
        """Errors of ROM and bootloader, and those of the application that concern images and otadata."""
        return tuple(e for e in self.errors if e.phase != "app" or e.tag in IMAGE_TAGS)

    def partition_at(self, offset: int) -> PrintedPartition | None:
        """The printed partition that starts at `offset`."""
        return next((p for p in self.partitions if p.offset == offset), None)

    def summary(self) -> str:
        """One line: ``boot 3: SW_CPU_RESET → ota_1 @ 0x1a0000, 1.1.0, flash encryption RELEASE``."""
        return summary_of(self)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; ``format`` is `FORMAT`."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        fields["partitions"] = [dataclasses.asdict(p) for p in self.partitions]
        fields["errors"] = [dataclasses.asdict(e) for e in self.errors]
        fields["image_checks"] = [dataclasses.asdict(c) for c in self.image_checks]
        fields["panic"] = dataclasses.asdict(self.panic) if self.panic else None
        fields["evt_boot"] = dict(self.evt_boot) if self.evt_boot is not None else None
        extra = {
            "reset_kind": self.reset_kind.value,
            "outcome": self.outcome.value,
            "summary": self.summary(),
        }
        lists = {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()}
        return {"format": FORMAT, **lists, **extra}


IMAGE_TAGS = frozenset(
    {
        "boot",
        "boot_comm",
        "esp_image",
        "esp_ota_ops",
        "flash_encrypt",
        "secure_boot",
        "secure_boot_v2",
        "efuse",
    }
)
"""Log tags of ESP-IDF's parts that decide whether and what a chip boots."""


def records_to_json(records: Iterable[BootRecord]) -> dict[str, Any]:
    """All records of a log as one JSON object with a format version."""
    return {"format": FORMAT, "boots": [record.to_json() for record in records]}


def summary_of(record: BootRecord) -> str:
    """One line for a person; see `BootRecord.summary`."""
    reset = record.reset_reason or (f"reset 0x{record.reset_code:x}" if record.reset_code is not None else "")
    if not reset:
        reset = "ROM silent" if record.from_start else "beginning not seen"
    parts = [_destination(record)]
    if record.version is not None:
        parts.append(record.version)
    if record.encryption is not None and record.encryption != "off":
        mode = "on" if record.encryption == "enabled" else record.encryption.upper()
        parts.append(f"flash encryption {mode}")
    if record.secure_boot:
        parts.append("secure boot")
    if record.ota_state == "pending" and not record.confirmed:
        parts.append("pending verification")
    if record.not_bootable:
        parts.append(f"not bootable: {', '.join(record.not_bootable)}")
    if record.otadata_unreadable:
        parts.append("otadata unreadable")
    if record.panic is not None:
        parts.append(f"PANIC {record.panic}")
    text = f"boot {record.number}: {reset} → {', '.join(parts)}"
    for note in record.inferred:
        text += f" [{note}]"
    return text


def _destination(record: BootRecord) -> str:
    """Where the boot went, in a few words."""
    outcome = record.outcome
    if record.slot is not None and record.offset is not None:
        place = f"{record.slot} @ 0x{record.offset:x}"
    elif record.offset is not None:
        place = f"app @ 0x{record.offset:x}"
    else:
        place = record.slot or "app"
    if outcome is Outcome.APP:
        return place
    if outcome is Outcome.LOADED:
        return f"{place} (app not seen to start)"
    if outcome is Outcome.DOWNLOAD:
        return "download mode"
    if outcome is Outcome.ENCRYPTED:
        return "flash encrypted in place"
    loop = f", {record.repeats + 1} boots alike" if record.repeats else ""
    if outcome is Outcome.ROM_FAILED and record.rom_header_word is not None:
        seen = f"{record.rom_header_lines} lines{loop}"
        return f"no bootloader: invalid header 0x{record.rom_header_word:08x} ({seen})"
    failures: Sequence[BootError] = [e for e in record.errors if e.phase != "app"]
    if failures:
        # The last one is what the boot ended with; the first may be a warning on the way.
        return f"fails: {failures[-1]}{loop}"
    return f"unfinished{loop}"
