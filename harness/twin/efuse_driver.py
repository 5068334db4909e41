"""ESP-IDF's eFuse driver as bootloader and application use it: write registers, batches, and its lines.

Fields are gathered in write registers and burned block by block, the highest first, since block 0 holds the
protection of the others. Order, checks and texts are those of ``esp_efuse_api.c`` and ``esp_efuse_utility.c`` of
ESP-IDF v5.5.
"""

from __future__ import annotations

from typing import Protocol

from harness.chips.efuses import Coding, EfuseBlock, EfuseField
from harness.twin.boot_lines import Level
from harness.twin.efuses import Efuses

OK = 0
FAIL = -1
ERR_NOT_SUPPORTED = 0x106
ERR_CNT_IS_FULL = 0x1602
ERR_REPEATED_PROGRAMMING = 0x1603

_TAG = "efuse"
_ATTEMPTS = 3


class DriverLog(Protocol):
    """Where the driver reports: the bootloader's log, or lines collected for an application."""

    def log(self, level: Level, tag: str, text: str) -> None: ...


class EfuseDriver:
    """The driver for one program on the board; `who` is its name in the operation log."""

    def __init__(self, efuses: Efuses, log: DriverLog, *, who: str) -> None:
        self._efuses = efuses
        self._log = log
        self._who = who
        self._depth = 0
        self._pending: dict[int, int] = {}

    # Batches nest: only the outermost commit burns.

    def begin(self) -> None:
        """``esp_efuse_batch_write_begin``."""
        self._depth += 1
        if self._depth == 1:
            self._pending.clear()
            self._say(Level.INFO, "Batch mode of writing fields is enabled")

    def cancel(self) -> None:
        """``esp_efuse_batch_write_cancel``: forgets what was noted, when it is the outermost batch."""
        self._depth -= 1
        if self._depth == 0:
            self._pending.clear()
            self._say(Level.INFO, "Batch mode of writing fields is cancelled")

    def commit(self) -> int:
        """``esp_efuse_batch_write_commit``: burns when it is the outermost batch; returns an ``esp_err_t``.

        Raises:
            PowerLost: the supply was cut at one of the burns.
        """
        self._depth -= 1
        if self._depth:
            return OK
        error = self._burn()
        self._say(Level.INFO, "Batch mode. Prepared fields are committed")
        return error

    # Fields. Outside a batch each of these burns at once.

    def set_bit(self, name: str) -> int:
        """``esp_efuse_write_field_bit`` of a one-bit field: nothing to do when it is set already."""
        return OK if self._efuses.field(name) else self.write(name, 1)

    def write_bit(self, block: int, bit: int) -> int:
        """One bit of a block, whatever field it belongs to; refused when it is set already."""
        return self._note(block, 1 << bit)

    def write(self, name: str, value: int) -> int:
        """``esp_efuse_write_field_blob`` of a field; bits that are set already are refused."""
        row = self._efuses.geometry.field(name)
        return self._note(row.block, value << row.bit & row.mask)

    def raise_count(self, name: str, count: int) -> int:
        """``esp_efuse_write_field_cnt``: sets the `count` lowest bits of a field that are still 0.

        Where there are not so many, an error; within a batch those that there are will be burned all the same.
        """
        row = self._efuses.geometry.field(name)
        present, new = self._efuses.field(name), 0
        for bit in range(row.bits):
            if count and not present >> bit & 1:
                new |= 1 << bit
                count -= 1
        if count:
            self._say(Level.ERROR, f"The required number of bits can not be set. [Not set {count}]")
            if self._depth:
                self._note(row.block, new << row.bit)
            return ERR_CNT_IS_FULL
        return self._note(row.block, new << row.bit)

    def write_block(self, name: str | int, data: bytes) -> int:
        """``esp_efuse_write_block`` from bit 0 on; `data` in register order."""
        return self._note(self._efuses.geometry.block(name).index, int.from_bytes(data, "little"))

    def protect_writing(self, name: str | int) -> int:
        """Sets the WR_DIS bit of a block, or of a field; OK where nothing protects it."""
        return self._set_protection("WR_DIS", self._row(name).write_disable)

    def set_protection_bit(self, field: str, bit: int) -> int:
        """Sets one bit of ``WR_DIS`` or ``RD_DIS``, as `set_bit` does."""
        return self._set_protection(field, bit)

    def _row(self, name: str | int) -> EfuseBlock | EfuseField:
        geometry = self._efuses.geometry
        if isinstance(name, str) and not geometry.has_block(name):
            return geometry.field(name)
        return geometry.block(name)

    def _set_protection(self, field: str, bit: int | None) -> int:
        if bit is None or self._efuses.field(field) >> bit & 1:
            return OK
        return self.write(field, 1 << bit)

    # Burning

    def _note(self, block: int, bits: int) -> int:
        repeated = int.from_bytes(self._efuses.block_for_software(block), "little") & bits
        if repeated:
            while not repeated & 0xFFFFFFFF:
                repeated >>= 32
            self._say(
                Level.ERROR,
                f"Repeated programming of programmed bits is strictly forbidden 0x{repeated & 0xFFFFFFFF:08x}",
            )
            return ERR_REPEATED_PROGRAMMING
        self._pending[block] = self._pending.get(block, 0) | bits
        return OK if self._depth else self._burn()

    def _burn(self) -> int:
        error = OK
        for block in sorted(self._pending, reverse=True):
            if not self._pending[block]:
                continue
            if error:
                self._say(
                    Level.ERROR,
                    f"BLOCK{block} can not be burned because a previous block got an error, skipped.",
                )
            elif not self._burn_block(block, self._pending[block]):
                self._say(Level.ERROR, "Written data are incorrect")
                error = FAIL
        self._pending.clear()
        return error

    def _burn_block(self, block: int, bits: int) -> bool:
        size_bytes = self._efuses.geometry.block(block).size_bytes
        for attempt in range(1, _ATTEMPTS + 1):
            self._say(Level.INFO, f"BURN BLOCK{block}")
            self._efuses.burn_block(block, bits.to_bytes(size_bytes, "little"), who=self._who)
            found = int.from_bytes(self._efuses.block_for_software(block), "little")
            if found & bits == bits:
                # ESP32 compares with its controller's registers byte by byte, which never agree: its recorded
                # logs show the second text for blocks that were blank before, too.
                same = found == bits and self._efuses.geometry.coding is Coding.REED_SOLOMON
                how = "write block == read block" if same else "all write block bits are set"
                self._say(Level.INFO, f"BURN BLOCK{block} - OK ({how})")
                return True
            self._say(Level.ERROR, f"BURN BLOCK{block} - ERROR (written bits != read bits)")
            self._say(Level.WARN, f"BLOCK{block}: next retry to fix an error [{attempt}/{_ATTEMPTS}]...")
        return False

    def _say(self, level: Level, text: str) -> None:
        self._log.log(level, _TAG, text)
