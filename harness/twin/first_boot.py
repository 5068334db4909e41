"""The first start of a bootloader with flash encryption on a chip without: a key, fuses, and the flash in place.

What ``flash_encrypt.c`` of ESP-IDF v5.5 does, in its order and words: key and fuses in one batch, then every sector
that is to be encrypted is read, erased and written enciphered, and only then the counter rises. Until that last burn
the ROM reads the flash as it is: a chip whose supply fails in between has an enciphered bootloader and encryption
off, and cannot start (``invalid header``) until everything is flashed again as plaintext.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from harness.chips.idf_burns import FlashKey, idf_burns
from harness.formats.bootloader_config import BootloaderConfig
from harness.twin.boot_context import RESET_SOFTWARE_SYSTEM, BootContext, Halted, Outcome, Reset
from harness.twin.boot_lines import BootLog
from harness.twin.boot_table import (
    TABLE_BYTES,
    TYPE_APP,
    TYPE_BOOTLOADER,
    TYPE_DATA,
    TYPE_TABLE,
    Entry,
    TableRejected,
    verified_entries,
)
from harness.twin.efuse_driver import ERR_NOT_SUPPORTED, FAIL, OK, EfuseDriver
from harness.twin.image_verify import ImageCheck, ImageRejected
from harness.twin.operations import FlashFault
from harness.twin.security import flash_encryption_enabled, key_purpose

SECTOR_BYTES = 0x1000
WHO = "bootloader"

_TAG = "flash_encrypt"
_ERR_INVALID_STATE = 0x103
_ERR_NOT_FOUND = 0x105
_ERR_NOT_ENOUGH_KEY_BLOCKS = 0x1605

_ALWAYS_ENCRYPTED = ((TYPE_DATA, 0x00), (TYPE_DATA, 0x90), (TYPE_DATA, 0x04))
"""otadata, TEE's otadata and NVS keys, whatever their flag."""
_PRIMARY = 0x00
"""Subtype of the bootloader and table that the fixed offsets name: done before the table is gone through."""

_SECTOR_MS = 60.0
"""What a sector costs on silicon: about 45 ms of erasing, and sixteen pages."""
_RESET_S = 0.1

_CODING_NONE, _CODING_3_4, _CODING_BOTH = 0, 1, 3


class FirstBoot:
    """One attempt, after an app was found that would start.

    `image_check` gives the bootloader's check of an image that is only verified. `batch` is a driver in whose open
    batch secure boot has been noted, on a chip where the keys of both go into one block: then all is burned together.
    """

    def __init__(
        self,
        ctx: BootContext,
        config: BootloaderConfig,
        log: BootLog,
        image_check: Callable[[], ImageCheck],
        flash_size_bytes: int,
        batch: EfuseDriver | None = None,
    ) -> None:
        self._ctx = ctx
        self._efuses = ctx.efuses
        self._config = config
        self._log = log
        self._image_check = image_check
        self._flash_size_bytes = flash_size_bytes
        """As the bootloader's own header has it: what the table is checked against."""
        self._burns = idf_burns(ctx.chip.name)
        self._batch = batch
        self._driver = batch or EfuseDriver(ctx.efuses, log, who=WHO)

    def run(self) -> Outcome | None:
        """Encrypt, and reset; None when the bootloader refuses or fails: then it does not start this app.

        Raises:
            PowerLost: the supply was cut at one of the burns or flash operations.
        """
        if self._counter_is_frozen():
            return None
        error = self._prepare()
        if error:
            self._log.error("boot", f"Initialization of Flash Encryption key failed ({error})")
            return None
        if self._batch is not None:
            error = self._batch.commit()
            if error:
                self._log.error("boot", f"Error programming eFuses (err=0x{error & 0xFFFFFFFF:x}).")
                return None
            self._log.info("boot", "Secure boot permanently enabled")
        try:
            error = self._encrypt_contents()
        except _Stopped:
            return Halted("reset while it encrypted its flash")
        if error:
            self._log.error("boot", f"Encryption flash contents failed ({error})")
            return None
        error = self._enable()
        if error:
            self._log.error("boot", f"Enabling of Flash encryption failed ({error})")
            return None
        if not flash_encryption_enabled(self._efuses):
            return None
        self._log.info("boot", "Resetting with flash encryption enabled...")
        return Reset(RESET_SOFTWARE_SYSTEM, _RESET_S)

    def _counter_is_frozen(self) -> bool:
        if not self._efuses.write_protected(self._ctx.chip.fuses.counter):
            return False
        self._log.error(
            _TAG, f"Flash Encryption cannot be enabled (CRYPT_CNT ({self._count}) is write protected)"
        )
        return True

    @property
    def _count(self) -> int:
        return bin(self._efuses.field(self._ctx.chip.fuses.counter)).count("1")

    # Key and fuses, one batch

    def _prepare(self) -> int:
        if self._count:
            # Encryption was on before: key and fuses are there.
            return OK
        self._driver.begin()
        error = self._check_or_make_key()
        if error:
            self._driver.cancel()
            return error
        self._note_secure_features()
        error = self._driver.commit()
        if error:
            self._log.error(_TAG, f"Error programming security eFuses (err=0x{error & 0xFFFFFFFF:x}).")
        return error

    def _check_or_make_key(self) -> int:
        if self._key_coding_is_unknown():
            return ERR_NOT_SUPPORTED
        kind = self._burns.keys.get(self._config.flash_key)
        if kind is None:
            # No build for this chip has such a key; ESP-IDF's Kconfig does not offer it.
            return ERR_NOT_SUPPORTED
        if len(kind.purposes) == 2 and self._block_with(self._burns.keys["aes128"].purposes[0]) is not None:
            self._log.error(_TAG, "XTS_AES_128_KEY is already in use, XTS_AES_256_KEY_1/2 can not be used")
            return _ERR_INVALID_STATE
        blocks = [self._block_with(purpose) for purpose in kind.purposes]
        present = [block is not None and not self._is_unused(block) for block in blocks]
        if len(present) == 2 and present[0] != present[1]:
            self._log.error(_TAG, "Invalid efuse key blocks: Both AES-256 key blocks must be set.")
            return _ERR_INVALID_STATE
        if not all(present):
            self._log.info(_TAG, "Generating new flash encryption key...")
            return self._make_key(kind)
        for block in blocks:
            if block is not None and not self._is_well_protected(block, kind):
                self._log.error(
                    _TAG,
                    "Invalid key state, check read&write protection for key and keypurpose(if exists)",
                )
                return _ERR_INVALID_STATE
        self._log.info(_TAG, "Using pre-loaded flash encryption key in efuse")
        return OK

    def _key_coding_is_unknown(self) -> bool:
        if not self._efuses.has_field("CODING_SCHEME"):
            return False
        found = self._efuses.field("CODING_SCHEME")
        if found in (_CODING_NONE, _CODING_3_4, _CODING_BOTH):
            return False
        self._log.error(_TAG, f"Unknown/unsupported CODING_SCHEME value 0x{found:x}")
        return True

    @property
    def _key_blocks(self) -> tuple[str, ...]:
        """Where a key may go; on ESP32 its one block."""
        blocks = tuple(block.name for block in self._efuses.geometry.key_blocks)
        return blocks or (self._ctx.chip.fuses.key_storage_block,)

    def _purpose_fields(self, block: str) -> tuple[str, ...]:
        return self._efuses.geometry.purpose_fields(block)

    def _block_with(self, purpose: int) -> str | None:
        """``esp_efuse_find_purpose``; without purpose fields the one block that there is."""
        for block in self._key_blocks:
            if not self._purpose_fields(block) or key_purpose(self._efuses, block) == purpose:
                return block
        return None

    def _is_unused(self, block: str) -> bool:
        """``esp_efuse_key_block_unused``."""
        for field in self._purpose_fields(block):
            if self._efuses.field(field) or self._efuses.write_protected(field):
                return False
        return not (
            self._efuses.read_protected(block)
            or self._efuses.write_protected(block)
            or any(self._efuses.block_for_software(block))
        )

    def _is_well_protected(self, block: str, kind: FlashKey) -> bool:
        bits = self._read_disable(block, kind)
        hidden = all(self._efuses.field("RD_DIS") >> bit & 1 for bit in bits)
        kept = all(self._efuses.write_protected(field) for field in self._purpose_fields(block))
        return hidden and kept and self._efuses.write_protected(block)

    def _read_disable(self, block: str, kind: FlashKey) -> tuple[int, ...]:
        if kind.read_disable is not None:
            return kind.read_disable
        bit = self._efuses.geometry.block(block).read_disable
        return () if bit is None else (bit,)

    def _make_key(self, kind: FlashKey) -> int:
        """``esp_efuse_write_keys``: into the first blocks that nothing uses. The key never leaves the eFuses."""
        driver, free = self._driver, [block for block in self._key_blocks if self._is_unused(block)]
        driver.begin()
        if len(free) < len(kind.purposes):
            if self._purpose_fields(self._key_blocks[0]):
                self._log.error(
                    "efuse",
                    f"Not enough unused key blocks available. Required {len(kind.purposes)}, was {len(free)}",
                )
            driver.cancel()
            self._log.error(_TAG, f"Not enough free efuse key blocks (need {len(kind.purposes)}) to continue")
            return _ERR_NOT_ENOUGH_KEY_BLOCKS
        for block, purpose in zip(free, kind.purposes, strict=False):
            self._log.info(
                "efuse", f"Writing EFUSE_BLK_KEY{self._key_blocks.index(block)} with purpose {purpose}"
            )
            error = self._write_key(block, purpose, kind)
            if error:
                self._log.error(
                    "efuse",
                    f"Failed to write EFUSE_BLK_KEY{self._key_blocks.index(block)} with purpose {purpose}. "
                    "Can't continue.",
                )
                driver.cancel()
                self._log.error(
                    _TAG, f"Failed to write efuse block with purpose (err=0x{error:x}). Can't continue."
                )
                return error
        return driver.commit()

    def _write_key(self, block: str, purpose: int, kind: FlashKey) -> int:
        """``esp_efuse_write_key``."""
        driver, index = self._driver, self._efuses.geometry.block(block).index
        driver.begin()
        driver.write_block(block, self._random_key(kind))
        driver.protect_writing(block)
        if block in self._ctx.chip.key_blocks_without_flash_keys:
            self._log.error(
                "efuse",
                f"BLOCK{index} can not have the {purpose} purpose because of HW bug (see TRM for more details)",
            )
            driver.cancel()
            return ERR_NOT_SUPPORTED
        for bit in self._read_disable(block, kind):
            driver.set_protection_bit("RD_DIS", bit)
        shift = 0
        for field in self._purpose_fields(block):
            driver.write(field, purpose >> shift)
            driver.protect_writing(field)
            shift += self._efuses.geometry.field(field).bits
        for name in kind.burned_with:
            driver.set_bit(name)
        return driver.commit()

    def _random_key(self, kind: FlashKey) -> bytes:
        if self._efuses.has_field("CODING_SCHEME") and self._efuses.field("CODING_SCHEME") == _CODING_3_4:
            return self._ctx.random_bytes(24)
        return self._ctx.random_bytes(kind.size_bytes)

    def _note_secure_features(self) -> None:
        """``esp_flash_encryption_enable_secure_features``; what each call returns is nobody's concern there."""
        driver = self._driver
        for name, value in self._ctx.chip.fuses.key_config:
            self._note_key_config(name, value)
        for door in self._burns.doors:
            if getattr(self._config, door.left_open_by):
                self._log.warn(_TAG, door.left_open)
                continue
            self._log.info(_TAG, door.closing)
            for fuse in door.fuses:
                driver.set_bit(fuse)
        for fuse in self._burns.always:
            driver.set_bit(fuse)
        if self._burns.pseudo_rounds is not None and self._config.pseudo_rounds:
            self._log.info(_TAG, "Enable XTS-AES pseudo rounds function...")
            driver.write(self._burns.pseudo_rounds, self._config.pseudo_rounds)
        self._note_hidden_digests()
        if self._burns.write_protect is not None and not self._config.skip_cache_write_protect:
            driver.protect_writing(self._burns.write_protect)

    def _note_key_config(self, name: str, value: int) -> None:
        """ESP32's FLASH_CRYPT_CONFIG; ESP-IDF has another name for it in its texts."""
        self._log.info(_TAG, f"Setting CRYPT_CONFIG efuse to 0x{value:X}")
        found = self._efuses.field(name)
        if not found:
            self._driver.write(name, value)
        elif found != value:
            self._log.error(_TAG, f"EFUSE_ENCRYPT_CONFIG should be set 0x{value:X} but it is 0x{found:x}")

    def _note_hidden_digests(self) -> None:
        """With secure boot RD_DIS is frozen only now: before, the flash key could not have been hidden."""
        if self._config.secure_boot and self._burns.digest_write_protect is not None:
            self._driver.protect_writing(self._burns.digest_write_protect)

    # Flash

    def _encrypt_contents(self) -> int:
        error = self._encrypt_bootloader()
        if error:
            return error
        entries = self._plaintext_table(self._config.table_offset)
        if entries is None:
            return FAIL
        self._log.debug(_TAG, "partition table is plaintext. Encrypting...")
        error = self._encrypt_region(self._config.table_offset, SECTOR_BYTES)
        if error:
            self._log.error(_TAG, f"Failed to encrypt partition table in place. {error & 0xFFFFFFFF:x}")
            return error
        self._log.info(_TAG, "partition table encrypted and loaded successfully")
        for index, entry in enumerate(entries):
            if entry.type in (TYPE_BOOTLOADER, TYPE_TABLE) and entry.subtype == _PRIMARY:
                continue
            error = self._encrypt_partition(index, entry)
            if error:
                return error
        self._log.debug(_TAG, "All flash regions checked for encryption pass")
        return OK

    def _encrypt_bootloader(self) -> int:
        offset = self._ctx.chip.bootloader_offset
        try:
            image = self._image_check().verify(offset, self._config.table_offset - offset)
        except ImageRejected:
            self._log.warn(_TAG, "no valid bootloader was found")
            return _ERR_NOT_FOUND
        self._log.debug(_TAG, "bootloader is plaintext. Encrypting...")
        error = self._encrypt_region(offset, image.size_bytes)
        if error:
            self._log.error(_TAG, f"Failed to encrypt bootloader in place: 0x{error & 0xFFFFFFFF:x}")
            return error
        self._log.info(_TAG, "bootloader encrypted successfully")
        return OK

    def _plaintext_table(self, offset: int) -> list[Entry] | None:
        """The entries of a table that lies there as plaintext; None (and a line) otherwise."""
        try:
            return verified_entries(
                self._ctx.flash.read(offset, TABLE_BYTES, who=WHO), self._flash_size_bytes
            )
        except FlashFault:
            self._log.error(_TAG, f"Failed to read partition table data at 0x{offset:x}")
        except TableRejected:
            self._log.error(_TAG, "Failed to read partition table data - not plaintext or empty?")
        return None

    def _encrypt_partition(self, index: int, entry: Entry) -> int:
        size = self._size_to_encrypt(entry)
        if size is None:
            return OK
        self._log.info(
            _TAG, f"Encrypting partition {index} at offset 0x{entry.offset:x} (length 0x{size:x})..."
        )
        error = self._encrypt_region(entry.offset, size)
        self._log.info(_TAG, "Done encrypting")
        if error:
            self._log.error(_TAG, f"Failed to encrypt partition {index}")
        return error

    def _size_to_encrypt(self, entry: Entry) -> int | None:
        """How much of a partition is enciphered, in bytes; None: nothing."""
        if entry.type in (TYPE_APP, TYPE_BOOTLOADER):
            check = self._image_check()
            if entry.type == TYPE_BOOTLOADER:
                check = replace(check, other_bootloader=entry.offset)
            try:
                image = check.verify(entry.offset, entry.size)
            except ImageRejected:
                return None
            only_image = entry.type == TYPE_APP and not self._config.encrypt_whole_app
            return image.size_bytes if only_image else entry.size
        if entry.type == TYPE_TABLE:
            return entry.size if self._plaintext_table(entry.offset) else None
        always = (entry.type, entry.subtype) in _ALWAYS_ENCRYPTED
        return entry.size if always or entry.is_flagged_encrypted else None

    def _encrypt_region(self, offset: int, size: int) -> int:
        """``esp_flash_encrypt_region``: whole sectors, each read, erased, and written enciphered."""
        if offset % SECTOR_BYTES:
            self._log.error(_TAG, f"esp_flash_encrypt_region bad src_addr 0x{offset:x}")
            return FAIL
        flash, cipher = self._ctx.flash, self._ctx.cipher
        try:
            for at in range(offset, offset + size, SECTOR_BYTES):
                if self._ctx.stop.is_set():
                    raise _Stopped
                plain = flash.read(at, SECTOR_BYTES, who=WHO)
                flash.erase(at, SECTOR_BYTES, who=WHO)
                cipher.write_enciphered(at, plain, who=WHO)
                self._log.spent(_SECTOR_MS)
        except FlashFault as fault:
            self._log.error(_TAG, f"flash operation failed: 0x{fault.code:x}")
            return fault.code
        return OK

    # The counter, last

    def _enable(self) -> int:
        if self._counter_is_frozen():
            return FAIL
        fuses = self._ctx.chip.fuses
        count, new = self._count, 1
        if self._config.flash_encryption == "release":
            self._log.info(_TAG, "Setting CRYPT_CNT for permanent encryption")
            new = fuses.counter_bits - count
        self._log.debug(_TAG, f"CRYPT_CNT {count} -> {new}")
        error = self._driver.raise_count(fuses.counter, new)
        if self._config.flash_encryption == "release" and self._burns.counter_write_protect:
            self._driver.protect_writing(fuses.counter)
        self._log.info(_TAG, "Flash encryption completed")
        return error


class _Stopped(Exception):  # noqa: N818 - somebody resets the board
    pass
