"""otadata as it is recorded: from its raw bytes, or from the firmware's answer to ``otadata``. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.chips import Cipher
from harness.formats.flash_encryption import decrypt
from harness.formats.otadata import RECORD_BYTES, SECTOR_BYTES, OtaData, OtaRecord
from harness.report.run_record import OtadataSector, OtadataView, Source

READ_BYTES = 0x80
"""Of each sector: a multiple of every cipher's block, and all that a record has."""

_STATES = {"pending_verify": "pending"}
_BLANK = OtadataSector(sequence=None, state="blank")


def view_of_raw(
    first: bytes, second: bytes, *, slots: int, offset: int, cipher: Cipher, key: bytes | None
) -> OtadataView:
    """From the beginnings of both sectors as they lie in flash; `key` deciphers them, None where nothing is encrypted."""
    raws = (first, second)
    plains = [
        decrypt(cipher, key, offset + index * SECTOR_BYTES, raw) if key is not None else raw
        for index, raw in enumerate(raws)
    ]
    blank = [raw[:RECORD_BYTES] == b"\xff" * RECORD_BYTES for raw in raws]
    return _view(
        [None if b else OtaRecord.from_bytes(p) for p, b in zip(plains, blank, strict=True)],
        slots,
        "observed",
    )


def view_of_answer(fields: Mapping[str, Any], *, slots: int) -> OtadataView | None:
    """From the result of the firmware's command; None: it is not one."""
    try:
        records = [OtaRecord.from_bytes(bytes.fromhex(str(fields[f"record{index}"]))) for index in (0, 1)]
    except (KeyError, ValueError):
        return None
    return _view([None if each.is_empty else each for each in records], slots, "told")


def _view(records: list[OtaRecord | None], slots: int, source: Source) -> OtadataView:
    first, second = (each or OtaRecord.empty() for each in records)
    return OtadataView(
        sectors=tuple(_sector(each, slots) for each in records),
        active=OtaData((first, second)).select(slots).record_index,
        source=source,
    )


def _sector(record: OtaRecord | None, slots: int) -> OtadataSector:
    if record is None or record.is_empty:
        return _BLANK
    if not record.crc_ok:
        return OtadataSector(sequence=None, state="damaged")
    name = record.state_name
    slot = f"ota_{(record.seq - 1) % slots}" if slots and record.seq else None
    return OtadataSector(sequence=record.seq, state=_STATES.get(name, name), slot=slot)
