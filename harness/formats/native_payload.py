"""How a program for the host travels inside an application image, so that a twin can run it.

The image is a real one with a single segment in the chip's data-from-flash window: application description,
then the program. The description's reserved bytes hold a mark that says where the program is and what its
SHA-256 is. An image without the mark is one for the chip itself.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, replace

from harness.chips import Chip
from harness.errors import FormatError
from harness.formats.app_description import APP_DESCRIPTION_BYTES, RESERVED_BYTES, AppDescription
from harness.formats.app_image import APP_DESCRIPTION_OFFSET, AppImage, Segment

NATIVE_MARK_MAGIC = b"NATIVE1\0"
NATIVE_MARK_BYTES = 48
_LAYOUT = struct.Struct("<8sII32s")


@dataclass(frozen=True, slots=True)
class NativeMark:
    """Where the native program lies in segment 0."""

    offset: int
    """Of the program's first byte, from the start of the segment's data; 256 or more."""
    size: int
    """Of the program, in bytes."""
    sha256: bytes
    """Of the program."""

    def to_bytes(self) -> bytes:
        """48 bytes, little endian, for the start of `AppDescription.reserved`.

        Raises:
            FormatError: a value does not fit its field.
        """
        if len(self.sha256) != 32:
            raise FormatError(f"native mark: sha256 has {len(self.sha256)} bytes", todo="give 32")
        try:
            return _LAYOUT.pack(NATIVE_MARK_MAGIC, self.offset, self.size, self.sha256)
        except struct.error as error:
            raise FormatError(
                f"native mark: offset {self.offset} or size {self.size} is not a 32-bit number",
                todo="give byte counts inside the segment",
            ) from error

    @classmethod
    def from_description(cls, description: AppDescription) -> NativeMark | None:
        """The mark of a native image, None for an image of the chip's own code.

        Raises:
            FormatError: there is a mark, but it points into the description or at nothing.
        """
        if not description.reserved.startswith(NATIVE_MARK_MAGIC):
            return None
        if len(description.reserved) < NATIVE_MARK_BYTES:
            raise FormatError(
                f"native mark has {len(description.reserved)} bytes, expected {NATIVE_MARK_BYTES}",
                todo="give the whole application description",
            )
        _, offset, size, sha256 = _LAYOUT.unpack_from(description.reserved)
        if offset < APP_DESCRIPTION_BYTES or size == 0:
            raise FormatError(
                f"native mark: program of {size} bytes at segment offset {offset:#x}, expected it behind the "
                f"application description ({APP_DESCRIPTION_BYTES:#x}) and not empty",
                todo="build the native image again",
            )
        return cls(offset=offset, size=size, sha256=sha256)


def native_segment(chip: Chip, description: AppDescription, program: bytes) -> Segment:
    """The one segment of a native image: `description` with the mark added, then `program`.

    Raises:
        FormatError: the program is empty, or a field of the description does not fit.
    """
    if not program:
        raise FormatError("native program is empty", todo="build it first")
    mark = NativeMark(APP_DESCRIPTION_BYTES, len(program), hashlib.sha256(program).digest())
    marked = replace(description, reserved=mark.to_bytes().ljust(RESERVED_BYTES, b"\0"))
    return Segment(chip.drom_base + APP_DESCRIPTION_OFFSET, marked.to_bytes() + program)


def native_program(image: AppImage) -> bytes | None:
    """The program inside a native image, None for an image of the chip's own code.

    Raises:
        FormatError: the mark points outside segment 0, or the program is not the one that was marked.
    """
    mark = None if image.description is None else NativeMark.from_description(image.description)
    if mark is None:
        return None
    data = image.segments[0].data
    if mark.offset + mark.size > len(data):
        raise FormatError(
            f"native mark: program ends at {mark.offset + mark.size:#x}, segment 0 has {len(data):#x} bytes",
            todo="build the native image again",
        )
    program = data[mark.offset : mark.offset + mark.size]
    if hashlib.sha256(program).digest() != mark.sha256:
        raise FormatError(
            "native mark: the program's SHA-256 differs from the marked one",
            todo="build the native image again",
        )
    return program
