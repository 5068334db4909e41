"""The flash driver in mask ROM: what the download loop and the flasher stub do their work with.

Rules are those of the mask ROMs of ESP32 (revision 3) and ESP32-C3: ranges are checked against the parameters
that the host sets, not against the chip; the address lines then wrap at the chip's real size.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.twin.cipher import FlashCipher
from harness.twin.efuses import Efuses
from harness.twin.flash import SECTOR_BYTES, Flash, FlashFault

WORD = 0xFFFFFFFF
ADDRESS_LINES = 0xFFFFFF
BLOCK_BYTES = 0x10000


@dataclass(slots=True)
class FlashParameters:
    """``esp_rom_spiflash_chip_t``; the values before the host's SPI_SET_PARAMS are those in ROM (2 MiB)."""

    device_id: int = 0x1540EF
    chip_size: int = 0x200000
    block_size: int = BLOCK_BYTES
    sector_size: int = SECTOR_BYTES
    page_size: int = 0x100
    status_mask: int = 0xFFFF


class RomSpiFlash:
    """Reads, programs and erases `flash` on behalf of `who`; True is success as far as the ROM can tell."""

    def __init__(self, flash: Flash, cipher: FlashCipher, efuses: Efuses, who: str) -> None:
        self.flash = flash
        self.parameters = FlashParameters()
        self._cipher = cipher
        self._efuses = efuses
        self._who = who

    def read(self, addr: int, size: int, *, whole_words: bool = False) -> bytes | None:
        """Raw bytes (never deciphered); None when the range does not fit the parameters.

        The ROM copies whole words, beyond `size` too; `whole_words` asks for those as well.
        """
        if not self._fits(addr, size):
            return None
        if whole_words:
            size = (size + 3) & ~3
        try:
            return b"".join(self.flash.read(at, n, who=self._who) for at, n in self._pieces(addr, size))
        except FlashFault:
            return None

    def write(self, addr: int, data: bytes) -> bool:
        """Program `data`, page by page; the ROM takes whole words only in each page."""
        if not self._fits(addr, len(data)):
            return False
        page = self.parameters.page_size or 0x100
        head = page - addr % page
        if (len(data) if len(data) < head else head) % 4:
            return False
        odd = len(data) % 4
        # A last part that is not whole words is refused only when the pages before it are written.
        accepted = data[: len(data) - (len(data) - head) % page] if odd else data
        try:
            self._program(addr, accepted)
        except FlashFault:
            return False
        return not odd

    def write_encrypted(self, addr: int, data: bytes) -> bool:
        """Program the ciphertext of `data`; address and length are multiples of 16.

        Where an eFuse closes the engine in download mode, ESP32 programs the bytes as they are and ESP32-C3
        programs nothing: its engine never hands over a result.
        """
        if addr % 16 or len(data) % 16 or not self._fits(addr, len(data)):
            return False
        if self._efuses.field(self._efuses.chip.fuses.manual_encrypt_disable):
            return self.write(addr, data) if self._efuses.has_field("DISABLE_DL_ENCRYPT") else True
        try:
            # The tweak is the address as the engine gets it, before the address lines wrap.
            self._program(addr, self._cipher.encipher(addr, data), kind="write-encrypted")
        except FlashFault:
            return False
        return True

    def erase_area(self, addr: int, size: int) -> bool:
        """``SPIEraseArea``: from a sector bound, `size` rounded up to sectors.

        The check of the range wraps at 32 bits, so a size near 4 GiB passes it; the ROM then erases sector by
        sector up to the end of the chip and fails there.
        """
        sector = self.parameters.sector_size or SECTOR_BYTES
        chip_size = self.parameters.chip_size
        if (addr + size) & WORD > chip_size or addr % sector:
            return False
        wanted = -(-size // sector) * sector
        fitting = min(wanted, max(0, chip_size - addr))
        return self.erase_raw(addr, fitting) and fitting == wanted

    def erase_raw(self, addr: int, size: int) -> bool:
        """Erase whole sectors without asking the parameters, as the chip's erase commands do."""
        try:
            for at, count in self._pieces(addr, min(size, self.flash.size_bytes)):
                if count:
                    self.flash.erase(at, count, who=self._who)
        except FlashFault:
            return False
        return True

    def erase_chip(self) -> bool:
        return self.erase_raw(0, self.flash.size_bytes)

    def _program(self, addr: int, data: bytes, *, kind: str = "write") -> None:
        done = 0
        for at, count in self._pieces(addr, len(data)):
            if count:
                self.flash.program(at, data[done : done + count], who=self._who, kind=kind)
            done += count

    def _fits(self, addr: int, size: int) -> bool:
        return (addr + size) & WORD <= self.parameters.chip_size

    def _pieces(self, addr: int, size: int) -> list[tuple[int, int]]:
        """The stretches of real flash that a range of bus addresses means, in order."""
        total = self.flash.size_bytes
        pieces: list[tuple[int, int]] = []
        while True:
            at = (addr & ADDRESS_LINES) % total
            count = min(size, total - at)
            pieces.append((at, count))
            addr, size = addr + count, size - count
            if size <= 0:
                return pieces
