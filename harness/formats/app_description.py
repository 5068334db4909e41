"""``esp_app_desc_t``: what an application says of itself, 256 bytes at image offset 0x20."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from harness.errors import FormatError

APP_DESCRIPTION_BYTES = 256
APP_DESCRIPTION_MAGIC = 0xABCD5432
RESERVED_BYTES = 72
_LAYOUT = struct.Struct("<II8s32s32s16s16s32s32sHHB3s72s")


@dataclass(frozen=True, slots=True)
class AppDescription:
    """The fields of ``esp_app_desc_t``; texts lose what follows their first NUL."""

    version: str
    """At most 31 bytes."""
    project_name: str
    """At most 31 bytes."""
    time: str = ""
    """Of compilation, at most 15 bytes, as __TIME__."""
    date: str = ""
    """Of compilation, at most 15 bytes, as __DATE__."""
    idf_ver: str = ""
    """At most 31 bytes, e.g. ``v5.5.5``."""
    secure_version: int = 0
    """For anti-rollback, 32 bits."""
    elf_sha256: bytes = bytes(32)
    min_efuse_blk_rev: int = 0
    """major * 100 + minor."""
    max_efuse_blk_rev: int = 9999
    mmu_page_size_log2: int = 16
    """0 in images of ESP-IDF versions without the field."""
    reserved: bytes = bytes(RESERVED_BYTES)
    """72 bytes at offset 184; native images keep their mark here."""

    @staticmethod
    def is_at(data: bytes) -> bool:
        """Whether `data` begins with a whole description, by length and magic."""
        return len(data) >= APP_DESCRIPTION_BYTES and data[:4] == APP_DESCRIPTION_MAGIC.to_bytes(4, "little")

    @classmethod
    def from_bytes(cls, data: bytes) -> AppDescription:
        """The description in the first 256 bytes of `data`.

        Raises:
            FormatError: too short, or another magic.
        """
        if len(data) < APP_DESCRIPTION_BYTES:
            raise FormatError(
                f"application description has {len(data)} bytes, expected {APP_DESCRIPTION_BYTES}",
                todo="give the whole description",
            )
        magic = int.from_bytes(data[:4], "little")
        if magic != APP_DESCRIPTION_MAGIC:
            raise FormatError(
                f"application description has magic {magic:#010x}, expected {APP_DESCRIPTION_MAGIC:#010x}",
                todo="give an application image, not a bootloader; decipher it first if it is enciphered",
            )
        fields = _LAYOUT.unpack_from(data)
        _, secure_version, _, version, project, time, date, idf_ver, elf, min_rev, max_rev, page, _, rest = (
            fields
        )
        return cls(
            version=text_of(version),
            project_name=text_of(project),
            time=text_of(time),
            date=text_of(date),
            idf_ver=text_of(idf_ver),
            secure_version=secure_version,
            elf_sha256=elf,
            min_efuse_blk_rev=min_rev,
            max_efuse_blk_rev=max_rev,
            mmu_page_size_log2=page,
            reserved=rest,
        )

    def to_bytes(self) -> bytes:
        """256 bytes, little endian.

        Raises:
            FormatError: a value does not fit; names the field.
        """
        for field, value, size in (
            ("elf_sha256", self.elf_sha256, 32),
            ("reserved", self.reserved, RESERVED_BYTES),
        ):
            if len(value) != size:
                raise FormatError(
                    f"application description: {field} has {len(value)} bytes", todo=f"give {size}"
                )
        try:
            return _LAYOUT.pack(
                APP_DESCRIPTION_MAGIC,
                self.secure_version,
                bytes(8),
                bytes_of(self.version, 32, "application description: version"),
                bytes_of(self.project_name, 32, "application description: project_name"),
                bytes_of(self.time, 16, "application description: time"),
                bytes_of(self.date, 16, "application description: date"),
                bytes_of(self.idf_ver, 32, "application description: idf_ver"),
                self.elf_sha256,
                self.min_efuse_blk_rev,
                self.max_efuse_blk_rev,
                self.mmu_page_size_log2,
                bytes(3),
                self.reserved,
            )
        except struct.error as error:
            raise FormatError(
                "application description: a number does not fit its field",
                todo="secure_version has 32 bits, eFuse block revisions 16, mmu_page_size_log2 8",
            ) from error


def text_of(field: bytes) -> str:
    """A NUL-terminated text field; bytes that are not UTF-8 become escapes, so that it prints."""
    return field.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def bytes_of(text: str, size: int, what: str) -> bytes:
    """`text` as a NUL-terminated field of `size` bytes.

    Raises:
        FormatError: it does not fit or cannot be stored; `what` names the field.
    """
    try:
        raw = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise FormatError(f"{what} is not Unicode text: {text!a}", todo="use plain text") from error
    if len(raw) >= size or b"\0" in raw:
        raise FormatError(
            f"{what} '{text}' has {len(raw)} bytes",
            todo=f"use at most {size - 1} bytes without NUL characters",
        )
    return raw.ljust(size, b"\0")
