"""otadata: two flash sectors that say which OTA slot boots, and in what state its app is.

Layout: ``esp_ota_select_entry_t`` (32 bytes, little endian) at the start of each sector. Choice of slot:
``bootloader_utility_get_selected_boot_partition`` of ESP-IDF v5.3 to v6, without anti-rollback.
"""

from __future__ import annotations

import binascii
import struct
from dataclasses import dataclass
from enum import Enum, IntEnum

from harness.errors import FormatError

SECTOR_BYTES = 0x1000
OTADATA_SIZE_BYTES = 2 * SECTOR_BYTES
RECORD_BYTES = 32

_RECORD = struct.Struct("<I20sII")
_EMPTY_SEQ = 0xFFFFFFFF
_EMPTY_LABEL = b"\xff" * 20


class OtaState(IntEnum):
    """``esp_ota_img_states_t``."""

    NEW = 0
    """Just installed; the bootloader makes it PENDING_VERIFY at the first boot (rollback enabled)."""
    PENDING_VERIFY = 1
    """Booted once and not confirmed; the next boot makes it ABORTED."""
    VALID = 2
    INVALID = 3
    """The app rejected itself."""
    ABORTED = 4
    UNDEFINED = 0xFFFFFFFF
    """Rollback is not in use."""


def sequence_crc(seq: int) -> int:
    """The CRC that a record with this sequence number must carry: CRC-32 over its 4 bytes, initial value ~0.

    Raises:
        FormatError: `seq` is not a 32-bit number.
    """
    return binascii.crc32(_u32(seq, "ota_seq").to_bytes(4, "little"), 0xFFFFFFFF)


def _u32(value: int, field: str) -> int:
    if not 0 <= value <= 0xFFFFFFFF:
        raise FormatError(f"otadata {field} {value} is not a 32-bit number", todo="use 0..0xFFFFFFFF")
    return value


@dataclass(frozen=True, slots=True)
class OtaRecord:
    """One ``esp_ota_select_entry_t`` as it stands in (deciphered) flash, right or wrong."""

    seq: int
    """1-based; slot = (seq - 1) modulo number of slots. 0xFFFFFFFF is empty."""
    state: int
    """An `OtaState`, or whatever else was found."""
    crc: int
    label: bytes = _EMPTY_LABEL
    """Unused by ESP-IDF, 20 bytes of 0xFF."""

    @classmethod
    def from_bytes(cls, data: bytes) -> OtaRecord:
        """The record in the first 32 bytes of `data`; any content is accepted.

        Raises:
            FormatError: fewer than 32 bytes.
        """
        if len(data) < RECORD_BYTES:
            raise FormatError(
                f"otadata record has {len(data)} bytes, expected {RECORD_BYTES}", todo="read the whole sector"
            )
        seq, label, state, crc = _RECORD.unpack_from(data)
        return cls(seq=seq, state=_known_state(state), crc=crc, label=label)

    @classmethod
    def make(cls, seq: int, state: OtaState) -> OtaRecord:
        """A record with the right CRC.

        Raises:
            FormatError: `seq` is not a 32-bit number.
        """
        return cls(seq=seq, state=state, crc=sequence_crc(seq))

    @classmethod
    def empty(cls) -> OtaRecord:
        """What 32 bytes of 0xFF read as."""
        return cls(seq=_EMPTY_SEQ, state=OtaState.UNDEFINED, crc=0xFFFFFFFF)

    def to_bytes(self) -> bytes:
        """32 bytes, little endian.

        Raises:
            FormatError: a value does not fit its field.
        """
        if len(self.label) != len(_EMPTY_LABEL):
            raise FormatError(f"otadata seq_label has {len(self.label)} bytes", todo="it must have 20")
        return _RECORD.pack(
            _u32(self.seq, "ota_seq"), self.label, _u32(self.state, "ota_state"), _u32(self.crc, "crc")
        )

    @property
    def is_empty(self) -> bool:
        """Sequence number never written."""
        return self.seq == _EMPTY_SEQ

    @property
    def crc_ok(self) -> bool:
        return self.crc == sequence_crc(self.seq)

    @property
    def is_ruled_out(self) -> bool:
        """Empty, INVALID or ABORTED: the bootloader does not even look at the CRC."""
        return self.is_empty or self.state in (OtaState.INVALID, OtaState.ABORTED)

    @property
    def is_bootable(self) -> bool:
        """Not ruled out, and the CRC is right."""
        return not self.is_ruled_out and self.crc_ok

    @property
    def state_name(self) -> str:
        """Lower case for people, ``pending_verify``, or the number of an unknown state."""
        return self.state.name.lower() if isinstance(self.state, OtaState) else f"{self.state:#010x}"


def _known_state(state: int) -> int:
    try:
        return OtaState(state)
    except ValueError:
        return state


class Verdict(str, Enum):
    """How the bootloader's choice came about."""

    BOTH = "both"
    """Both records are good: the larger sequence number wins, the first record when they are equal."""
    ONE = "one"
    """Only one record is good."""
    INITIAL = "initial"
    """Both are empty or ruled out, or there is no slot: factory, else ota_0."""
    GARBAGE = "garbage"
    """Neither is good and not both are ruled out: ``ota data partition invalid``."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What otadata tells the bootloader."""

    verdict: Verdict
    record_index: int | None = None
    """0 or 1: the record that decides, None without one."""
    slot_index: int | None = None
    """k of ota_k, None when no record decides."""


@dataclass(frozen=True, slots=True)
class OtaData:
    """Both records, deciphered: a chip with flash encryption on always keeps otadata enciphered."""

    records: tuple[OtaRecord, OtaRecord]

    @classmethod
    def from_bytes(cls, data: bytes) -> OtaData:
        """The records of the first two sectors of `data`; any content is accepted.

        Raises:
            FormatError: fewer than 0x1020 bytes.
        """
        if len(data) < SECTOR_BYTES + RECORD_BYTES:
            raise FormatError(
                f"otadata has {len(data)} bytes, its second record begins at {SECTOR_BYTES:#x}",
                todo=f"read the whole partition, {OTADATA_SIZE_BYTES:#x} bytes",
            )
        return cls((OtaRecord.from_bytes(data), OtaRecord.from_bytes(data[SECTOR_BYTES:])))

    @classmethod
    def blank(cls) -> OtaData:
        """Two empty records. On an encrypted chip flash their *ciphertext*: raw 0xFF deciphers to noise."""
        return cls((OtaRecord.empty(), OtaRecord.empty()))

    @classmethod
    def for_slot(cls, slot_index: int, slot_count: int, state: OtaState) -> OtaData:
        """otadata of a fresh device that is to boot ota_`slot_index`.

        Raises:
            FormatError: there is no such slot.
        """
        if not 0 <= slot_index < slot_count:
            raise FormatError(
                f"otadata for slot ota_{slot_index}, but there are {slot_count} slots",
                todo=f"use 0..{slot_count - 1}",
            )
        return cls((OtaRecord.make(slot_index + 1, state), OtaRecord.empty()))

    def to_bytes(self) -> bytes:
        """0x2000 bytes: each record at the start of its sector, the rest 0xFF."""
        return b"".join(record.to_bytes().ljust(SECTOR_BYTES, b"\xff") for record in self.records)

    @property
    def is_initial_or_damaged(self) -> bool:
        """Each record is empty or has a wrong CRC, whatever its state.

        A bootloader that then boots ota_k without a factory app writes sequence number k + 1, VALID, into the
        first record. With anti-rollback this condition alone makes otadata count as initial.
        """
        return all(record.is_empty or not record.crc_ok for record in self.records)

    def select(self, slot_count: int) -> Selection:
        """What the bootloader boots with `slot_count` OTA slots (0..16), rollback bookkeeping done before.

        A bootloader with rollback first rewrites PENDING_VERIFY as ABORTED; that is the caller's to do.
        """
        first, second = self.records
        if slot_count <= 0 or (first.is_ruled_out and second.is_ruled_out):
            return Selection(Verdict.INITIAL)
        if first.is_bootable and second.is_bootable:
            return self._chosen(Verdict.BOTH, 0 if first.seq >= second.seq else 1, slot_count)
        if first.is_bootable or second.is_bootable:
            return self._chosen(Verdict.ONE, 0 if first.is_bootable else 1, slot_count)
        return Selection(Verdict.GARBAGE)

    def _chosen(self, verdict: Verdict, record_index: int, slot_count: int) -> Selection:
        # The chip computes in 32 bits: sequence number 0 wraps to 0xFFFFFFFF before the modulo.
        slot_index = (self.records[record_index].seq - 1 & 0xFFFFFFFF) % slot_count
        return Selection(verdict, record_index, slot_index)
