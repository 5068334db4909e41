"""What one chip is: eFuses, key blocks, download mode. Data only; nothing here talks to a board.

No key is in it. A key block that software can read is named by its key id, to compare with the vault's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any

from harness.chips import Chip, chip_named
from harness.errors import FormatError
from harness.vault.record_file import canonical


class Download(str, Enum):
    """What the ROM's UART download mode still offers."""

    OPEN = "open"
    SECURE = "secure"
    """Secure Download Mode: flash can be written, nothing can be read, eFuses are out of reach."""
    OFF = "off"


@dataclass(frozen=True, slots=True)
class KeyBlock:
    """One eFuse block that may hold a key."""

    name: str
    """espefuse's name, e.g. ``BLOCK_KEY0``; ``BLOCK1`` on ESP32."""
    purpose: str | None
    """espefuse's word, ``USER`` while unused; None on ESP32, whose blocks have fixed purposes."""
    empty: bool
    """All bits 0 as far as software sees; a read-protected block looks so, too."""
    readable: bool
    writeable: bool
    purpose_writeable: bool
    key_id: str | None
    """Key id of the content taken as a flash key; None if empty or not readable."""
    coding_errors: int
    """Bytes that the block's error correction had to repair (-1: beyond repair); 0 on ESP32."""
    digest: str | None = None
    """Hexadecimal digest of a boot key, from a readable block whose purpose says that it holds one; not secret."""

    @property
    def unused(self) -> bool:
        """Nothing was ever burned here and anything still can be."""
        return (
            self.empty
            and self.readable
            and self.writeable
            and self.purpose_writeable
            and self.purpose in (None, "USER")
            and self.coding_errors == 0
        )


@dataclass(frozen=True, slots=True)
class SecurityInfo:
    """The ROM's answer to GET_SECURITY_INFO; all that can be learned in Secure Download Mode."""

    flags: int
    """Bit 0 secure boot, 2 Secure Download Mode, 6/7 JTAG off, 10 download cache off (esptool's map)."""
    crypt_count: int
    key_purposes: tuple[int, ...]

    @property
    def secure_download(self) -> bool:
        return bool(self.flags & 1 << 2)

    @property
    def secure_boot(self) -> bool:
        return bool(self.flags & 1 << 0)


@dataclass(frozen=True, slots=True)
class ChipState:
    """One chip as it was read. `mac` and `revision` are None where the ROM no longer tells."""

    chip_name: str
    mac: str | None
    """Base MAC, lower case with colons."""
    revision: int | None
    """major * 100 + minor."""
    fuses: Mapping[str, int]
    """Every number in BLOCK0 by espefuse's name, and SECURE_VERSION, which ESP32 has elsewhere."""
    write_protected: frozenset[str]
    """Fields of BLOCK0 that take no more bits."""
    hidden: frozenset[str]
    """Fields of BLOCK0 that software cannot read."""
    key_blocks: tuple[KeyBlock, ...]
    download: Download
    security_info: SecurityInfo | None = None

    @property
    def chip(self) -> Chip:
        return chip_named(self.chip_name)

    @property
    def encrypted(self) -> bool:
        """Flash encryption is on: an odd number of ones in the counter."""
        return bin(self.crypt_count).count("1") % 2 == 1

    @property
    def crypt_count(self) -> int:
        """The flash encryption counter, from eFuses or from the security info."""
        if self.security_info is not None and self.chip.fuses.counter not in self.fuses:
            return self.security_info.crypt_count
        return self.fuses.get(self.chip.fuses.counter, 0)

    @property
    def permanent(self) -> bool:
        """Encryption is on for good: all bits of the counter, or no more can be burned."""
        counter = self.chip.fuses.counter
        return self.encrypted and (
            self.crypt_count == self.chip.fuses.counter_release or counter in self.write_protected
        )

    @property
    def manual_encryption(self) -> bool:
        """The ROM still enciphers what it is given to write (``write-flash --encrypt``)."""
        return not self.fuses.get(self.chip.fuses.manual_encrypt_disable, 0)

    def is_set(self, fuse: str) -> bool:
        """Whether a fuse is not 0."""
        return bool(self.fuses.get(fuse, 0))

    def block(self, name: str) -> KeyBlock | None:
        """The key block of that name."""
        return next((block for block in self.key_blocks if block.name == name), None)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with anything in this state."""
        return hashlib.sha256(canonical(self.to_fields())).hexdigest()[:16]

    def to_fields(self) -> dict[str, Any]:
        """For JSON."""
        info = self.security_info
        return {
            "chip": self.chip_name,
            "mac": self.mac,
            "revision": self.revision,
            "fuses": dict(sorted(self.fuses.items())),
            "write_protected": sorted(self.write_protected),
            "hidden": sorted(self.hidden),
            "key_blocks": [
                {field.name: getattr(block, field.name) for field in fields(KeyBlock)}
                for block in self.key_blocks
            ],
            "download": self.download.value,
            "security_info": None
            if info is None
            else {
                "flags": info.flags,
                "crypt_count": info.crypt_count,
                "key_purposes": list(info.key_purposes),
            },
        }

    @classmethod
    def from_fields(cls, data: Mapping[str, Any]) -> ChipState:
        """The inverse of `to_fields`.

        Raises:
            FormatError: a field is missing or of the wrong kind.
        """
        try:
            info = data["security_info"]
            return cls(
                chip_name=data["chip"],
                mac=data["mac"],
                revision=data["revision"],
                fuses={str(name): int(value) for name, value in data["fuses"].items()},
                write_protected=frozenset(data["write_protected"]),
                hidden=frozenset(data["hidden"]),
                key_blocks=tuple(KeyBlock(**block) for block in data["key_blocks"]),
                download=Download(data["download"]),
                security_info=None
                if info is None
                else SecurityInfo(info["flags"], info["crypt_count"], tuple(info["key_purposes"])),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FormatError(
                f"a stored chip state is not readable: {type(error).__name__} {error}"
            ) from error

    def differences(self, later: ChipState) -> tuple[str, ...]:
        """What has changed from this state to `later`, in words; empty when nothing has."""
        found = []
        for name in ("chip_name", "mac", "revision", "download", "security_info"):
            before, after = getattr(self, name), getattr(later, name)
            if before != after:
                found.append(f"{name.replace('_', ' ')}: {before} -> {after}")
        for fuse in sorted({*self.fuses, *later.fuses}):
            if self.fuses.get(fuse) != later.fuses.get(fuse):
                found.append(f"{fuse}: {self.fuses.get(fuse)} -> {later.fuses.get(fuse)}")
        if self.write_protected != later.write_protected:
            changed = ", ".join(sorted(self.write_protected ^ later.write_protected))
            found.append(f"write protection of {changed}")
        if self.hidden != later.hidden:
            found.append(f"read protection of {', '.join(sorted(self.hidden ^ later.hidden))}")
        before_blocks = {block.name: block for block in self.key_blocks}
        found += [
            f"key block {block.name}" for block in later.key_blocks if before_blocks.get(block.name) != block
        ]
        return tuple(found)


def unreachable_state(chip: Chip, mac: str | None) -> ChipState:
    """The state of a board whose ROM no longer speaks on the UART: only a device record knows more."""
    return ChipState(chip.name, mac, None, {}, frozenset(), frozenset(), (), Download.OFF)
