"""RAM that the second-stage bootloader itself lies in while it loads an app: no segment may go over it.

The rules are those of ESP-IDF v5.5 (``verify_load_addresses`` in ``esp_image_format.c``), the addresses those of its
bootloaders' linker scripts and of ``soc.h``. How deep the stack is at that moment was found under the mask ROMs of
ESP32 and ESP32-C3, by moving a segment until it was refused; other chips are taken to need as much as ESP32-C3.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.chips import Chip

_STACK_HEADROOM_BYTES = 0x8000
"""Below the stack pointer nothing is loaded either (``STACK_LOAD_HEADROOM``)."""
_STACK_BYTES = 0x4A0

BAD_ADDRESSES = "bad load address range"

Range = tuple[int, int]
"""First address, first behind."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where one chip's bootloader is linked to."""

    loader: Range
    """The code that loads the app."""
    data: Range
    stack_top: int
    dram: Range
    iram: Range
    shared_dram: Range
    """Memory that the instruction bus reaches, too, from `shared_iram` on."""
    shared_iram: int
    is_inverted: bool = False
    """The instruction bus sees the words of shared memory in inverse order."""
    stack_bytes: int = _STACK_BYTES


def _one_bus(loader: int, stack_top: int, ram: Range) -> _Layout:
    """Chips whose two buses have the same addresses: data lie behind the code."""
    data = loader + 0x7000
    return _Layout((loader, data), (data, data + 0x5000), stack_top, ram, ram, ram, ram[0])


_LAYOUTS = {
    "esp32": _Layout(
        loader=(0x40078000, 0x40080000),
        data=(0x3FFF0000, 0x3FFF6000),
        stack_top=0x3FFE3F20,
        dram=(0x3FFAE000, 0x40000000),
        iram=(0x40080000, 0x400AA000),
        shared_dram=(0x3FFE0000, 0x40000000),
        shared_iram=0x400A0000,
        is_inverted=True,
        stack_bytes=0x3B0,
    ),
    "esp32s2": _Layout(
        loader=(0x4004E000, 0x40055000),
        data=(0x3FFE5000, 0x3FFEAB00),
        stack_top=0x3FFFE70C,
        dram=(0x3FFB0000, 0x40000000),
        iram=(0x40020000, 0x40070000),
        shared_dram=(0x3FFB0000, 0x40000000),
        shared_iram=0x40020000,
    ),
    "esp32s3": _Layout(
        loader=(0x403CB700, 0x403D2700),
        data=(0x3FCE2700, 0x3FCE7700),
        stack_top=0x3FCEB710,
        dram=(0x3FC88000, 0x3FD00000),
        iram=(0x40370000, 0x403E0000),
        shared_dram=(0x3FC88000, 0x3FCF0000),
        shared_iram=0x40378000,
    ),
    "esp32c2": _Layout(
        loader=(0x403AEB70, 0x403B5B70),
        data=(0x3FCD5B70, 0x3FCDAB70),
        stack_top=0x3FCDEB70,
        dram=(0x3FCA0000, 0x3FCE0000),
        iram=(0x4037C000, 0x403C0000),
        shared_dram=(0x3FCA0000, 0x3FCE0000),
        shared_iram=0x40380000,
    ),
    "esp32c3": _Layout(
        loader=(0x403CE710, 0x403D5710),
        data=(0x3FCD5710, 0x3FCDA710),
        stack_top=0x3FCDE710,
        dram=(0x3FC80000, 0x3FCE0000),
        iram=(0x4037C000, 0x403E0000),
        shared_dram=(0x3FC80000, 0x3FCE0000),
        shared_iram=0x40380000,
    ),
    "esp32c5": _one_bus(0x4084E5A0, 0x4085E5A0, (0x40800000, 0x40860000)),
    "esp32c6": _one_bus(0x4086E610, 0x4087E610, (0x40800000, 0x40880000)),
    "esp32h2": _one_bus(0x4083EFD0, 0x4084F380, (0x40800000, 0x40850000)),
    "esp32p4": _one_bus(0x4FFAEFC0, 0x4FFBCFC0, (0x4FF00000, 0x4FFC0000)),
}


@dataclass(frozen=True, slots=True)
class Clash:
    """Why a segment is not loaded; `first` and `end` are the addresses as the bootloader prints them."""

    first: int
    end: int
    reason: str


@dataclass(frozen=True, slots=True)
class BootloaderMemory:
    """The RAM of one bootloader."""

    layout: _Layout
    loader: Range
    data: Range

    @classmethod
    def of(cls, chip: Chip, segments: Iterable[Range]) -> BootloaderMemory:
        """The RAM of the bootloader whose image has `segments`, (load address, size) each.

        What it leaves free of the regions that are set apart for it may be loaded over.
        """
        layout, loaded = _LAYOUTS[chip.name], [(first, first + size) for first, size in segments]
        return cls(layout, _used(layout.loader, loaded), _used(layout.data, loaded))

    def clash(self, first: int, end: int) -> Clash | None:
        """What of the bootloader a load to `first` up to `end` would overwrite, None if nothing.

        Memory outside of the two buses' RAM holds nothing of it.
        """
        return self._clash(first, end, also_other_bus=True)

    def _clash(self, first: int, end: int, *, also_other_bus: bool) -> Clash | None:
        layout = self.layout
        if _holds(layout.dram, first, end):
            stack = layout.stack_top - layout.stack_bytes - _STACK_HEADROOM_BYTES, layout.stack_top
            for used, what in ((stack, "stack"), (self.data, "data")):
                if _overlap(used, (first, end)):
                    return Clash(first, end, f"overlaps bootloader {what}")
            shared = layout.shared_dram
        elif _holds(layout.iram, first, end):
            if _overlap(self.loader, (first, end)):
                return Clash(first, end, "overlaps loader IRAM")
            size = layout.shared_dram[1] - layout.shared_dram[0]
            shared = layout.shared_iram, layout.shared_iram + size
        elif also_other_bus:
            return None
        else:
            return Clash(first, end, BAD_ADDRESSES)
        if not also_other_bus or not _overlap(shared, (first, end)):
            return None
        other = self._on_other_bus(shared, max(first, shared[0]), min(end, shared[1]))
        return self._clash(*other, also_other_bus=False)

    def _on_other_bus(self, shared: Range, first: int, end: int) -> Range:
        layout = self.layout
        base = layout.shared_iram if shared == layout.shared_dram else layout.shared_dram[0]
        if layout.is_inverted:
            # Each end is the address of a word, seen from the other side.
            return base + shared[1] - end - 4, base + shared[1] - first - 4
        return base + first - shared[0], base + end - shared[0]


def _used(region: Range, loaded: list[Range]) -> Range:
    """`region` up to where the last segment in it ends; all of it when there is none."""
    ends = [end for first, end in loaded if region[0] <= first < region[1]]
    return region[0], max(ends, default=region[1])


def _overlap(one: Range, other: Range) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def _holds(region: Range, first: int, end: int) -> bool:
    return region[0] <= first and end <= region[1]
