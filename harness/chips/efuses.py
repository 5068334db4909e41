"""eFuse geometry: where blocks and fields lie, in the controller's registers and in a state file.

Names are espefuse's. Positions are facts of the chips' reference manuals (chapter "eFuse Controller"); a unit
test compares every row with the installed espefuse. The state file is the one that Espressif's QEMU keeps for
the same chip: the read registers of all blocks in order, little endian.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from harness.errors import UsageError


class Coding(str, Enum):
    """How the cells of a block other than 0 are protected against single failures."""

    NONE = "none"
    REED_SOLOMON = "reed-solomon"
    """44 bytes of cells per block: 32 of data and 12 check bytes that the host computes."""


@dataclass(frozen=True, slots=True)
class EfuseField:
    """One named field: `bits` bits from bit `bit` of block `block`.

    `write_disable` is the bit of WR_DIS, `read_disable` the bit of RD_DIS that closes it; None: nothing does.
    """

    name: str
    block: int
    bit: int
    bits: int
    write_disable: int | None
    read_disable: int | None

    @property
    def mask(self) -> int:
        """The field's bits within its block, the block taken as one little-endian number."""
        return ((1 << self.bits) - 1) << self.bit


@dataclass(frozen=True, slots=True)
class EfuseBlock:
    """One block: `words` 32-bit words, read at `read_offset` from the controller's base address."""

    index: int
    name: str
    aliases: tuple[str, ...]
    words: int
    read_offset: int
    write_offset: int
    write_disable: int | None
    read_disable: int | None
    file_offset: int

    @property
    def size_bytes(self) -> int:
        return self.words * 4


@dataclass(frozen=True, slots=True)
class EfuseGeometry:
    """Everything about one chip's eFuses that is not their content."""

    chip: str
    base: int
    """Address of the controller's first register."""
    conf_offset: int
    command_offset: int
    coding: Coding
    file_size_bytes: int
    blocks: tuple[EfuseBlock, ...]
    fields: tuple[EfuseField, ...]
    _blocks_by_name: dict[str, EfuseBlock] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )
    _fields_by_name: dict[str, EfuseField] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        for block in self.blocks:
            for name in (block.name, f"BLOCK{block.index}", *block.aliases):
                self._blocks_by_name[name] = block
        for row in self.fields:
            self._fields_by_name[row.name] = row

    def block(self, name: str | int) -> EfuseBlock:
        """The block of that index or name, aliases included (``BLOCK4``, ``flash_encryption``).

        Raises:
            UsageError: the chip has no such block.
        """
        if isinstance(name, int):
            if 0 <= name < len(self.blocks):
                return self.blocks[name]
        elif name in self._blocks_by_name:
            return self._blocks_by_name[name]
        raise UsageError(f"{self.chip} has no eFuse block '{name}'")

    def field(self, name: str) -> EfuseField:
        """The row of a field.

        Raises:
            UsageError: the chip has no such field.
        """
        row = self._fields_by_name.get(name)
        if row is None:
            raise UsageError(f"{self.chip} has no eFuse field '{name}'")
        return row

    def has_field(self, name: str) -> bool:
        return name in self._fields_by_name

    def has_block(self, name: str) -> bool:
        return name in self._blocks_by_name


_ESP32_FIELDS = (
    EfuseField("WR_DIS", 0, 0, 16, 1, None),
    EfuseField("RD_DIS", 0, 16, 4, 0, None),
    EfuseField("FLASH_CRYPT_CNT", 0, 20, 7, 2, None),
    EfuseField("UART_DOWNLOAD_DIS", 0, 27, 1, 2, None),
    EfuseField("MAC", 0, 32, 48, 3, None),
    EfuseField("MAC_CRC", 0, 80, 8, 3, None),
    EfuseField("DISABLE_APP_CPU", 0, 96, 1, 3, None),
    EfuseField("DISABLE_BT", 0, 97, 1, 3, None),
    EfuseField("CHIP_PACKAGE_4BIT", 0, 98, 1, None, None),
    EfuseField("DIS_CACHE", 0, 99, 1, 3, None),
    EfuseField("SPI_PAD_CONFIG_HD", 0, 100, 5, None, None),
    EfuseField("CHIP_PACKAGE", 0, 105, 3, None, None),
    EfuseField("CHIP_CPU_FREQ_LOW", 0, 108, 1, None, None),
    EfuseField("CHIP_CPU_FREQ_RATED", 0, 109, 1, None, None),
    EfuseField("BLK3_PART_RESERVE", 0, 110, 1, 10, 3),
    EfuseField("CHIP_VER_REV1", 0, 111, 1, None, None),
    EfuseField("CLK8M_FREQ", 0, 128, 8, 4, None),
    EfuseField("ADC_VREF", 0, 136, 5, 4, None),
    EfuseField("XPD_SDIO_REG", 0, 142, 1, 5, None),
    EfuseField("XPD_SDIO_TIEH", 0, 143, 1, 5, None),
    EfuseField("XPD_SDIO_FORCE", 0, 144, 1, 5, None),
    EfuseField("SPI_PAD_CONFIG_CLK", 0, 160, 5, 6, None),
    EfuseField("SPI_PAD_CONFIG_Q", 0, 165, 5, 6, None),
    EfuseField("SPI_PAD_CONFIG_D", 0, 170, 5, 6, None),
    EfuseField("SPI_PAD_CONFIG_CS0", 0, 175, 5, 6, None),
    EfuseField("CHIP_VER_REV2", 0, 180, 1, None, None),
    EfuseField("VOL_LEVEL_HP_INV", 0, 182, 2, 3, None),
    EfuseField("WAFER_VERSION_MINOR", 0, 184, 2, None, None),
    EfuseField("FLASH_CRYPT_CONFIG", 0, 188, 4, 10, 3),
    EfuseField("CODING_SCHEME", 0, 192, 2, 10, 3),
    EfuseField("CONSOLE_DEBUG_DISABLE", 0, 194, 1, 15, None),
    EfuseField("DISABLE_SDIO_HOST", 0, 195, 1, None, None),
    EfuseField("ABS_DONE_0", 0, 196, 1, 12, None),
    EfuseField("ABS_DONE_1", 0, 197, 1, 13, None),
    EfuseField("JTAG_DISABLE", 0, 198, 1, 14, None),
    EfuseField("DISABLE_DL_ENCRYPT", 0, 199, 1, 15, None),
    EfuseField("DISABLE_DL_DECRYPT", 0, 200, 1, 15, None),
    EfuseField("DISABLE_DL_CACHE", 0, 201, 1, 15, None),
    EfuseField("KEY_STATUS", 0, 202, 1, 10, 3),
    EfuseField("CUSTOM_MAC_CRC", 3, 0, 8, 9, 2),
    EfuseField("CUSTOM_MAC", 3, 8, 48, 9, 2),
    EfuseField("ADC1_TP_LOW", 3, 96, 7, 9, 2),
    EfuseField("ADC1_TP_HIGH", 3, 103, 9, 9, 2),
    EfuseField("ADC2_TP_LOW", 3, 112, 7, 9, 2),
    EfuseField("ADC2_TP_HIGH", 3, 119, 9, 9, 2),
    EfuseField("SECURE_VERSION", 3, 128, 32, 9, 2),
    EfuseField("MAC_VERSION", 3, 184, 8, 9, 2),
)

_ESP32C3_FIELDS = (
    EfuseField("WR_DIS", 0, 0, 32, None, None),
    EfuseField("RD_DIS", 0, 32, 7, 0, None),
    EfuseField("DIS_RTC_RAM_BOOT", 0, 39, 1, 1, None),
    EfuseField("DIS_ICACHE", 0, 40, 1, 2, None),
    EfuseField("DIS_USB_JTAG", 0, 41, 1, 2, None),
    EfuseField("DIS_DOWNLOAD_ICACHE", 0, 42, 1, 2, None),
    EfuseField("DIS_USB_SERIAL_JTAG", 0, 43, 1, 2, None),
    EfuseField("DIS_FORCE_DOWNLOAD", 0, 44, 1, 2, None),
    EfuseField("DIS_TWAI", 0, 46, 1, 2, None),
    EfuseField("JTAG_SEL_ENABLE", 0, 47, 1, 2, None),
    EfuseField("SOFT_DIS_JTAG", 0, 48, 3, 31, None),
    EfuseField("DIS_PAD_JTAG", 0, 51, 1, 2, None),
    EfuseField("DIS_DOWNLOAD_MANUAL_ENCRYPT", 0, 52, 1, 2, None),
    EfuseField("USB_DREFH", 0, 53, 2, 30, None),
    EfuseField("USB_DREFL", 0, 55, 2, 30, None),
    EfuseField("USB_EXCHG_PINS", 0, 57, 1, 30, None),
    EfuseField("VDD_SPI_AS_GPIO", 0, 58, 1, 30, None),
    EfuseField("BTLC_GPIO_ENABLE", 0, 59, 2, 30, None),
    EfuseField("POWERGLITCH_EN", 0, 61, 1, 3, None),
    EfuseField("POWER_GLITCH_DSENSE", 0, 62, 2, 3, None),
    EfuseField("WDT_DELAY_SEL", 0, 80, 2, 3, None),
    EfuseField("SPI_BOOT_CRYPT_CNT", 0, 82, 3, 4, None),
    EfuseField("SECURE_BOOT_KEY_REVOKE0", 0, 85, 1, 5, None),
    EfuseField("SECURE_BOOT_KEY_REVOKE1", 0, 86, 1, 6, None),
    EfuseField("SECURE_BOOT_KEY_REVOKE2", 0, 87, 1, 7, None),
    EfuseField("KEY_PURPOSE_0", 0, 88, 4, 8, None),
    EfuseField("KEY_PURPOSE_1", 0, 92, 4, 9, None),
    EfuseField("KEY_PURPOSE_2", 0, 96, 4, 10, None),
    EfuseField("KEY_PURPOSE_3", 0, 100, 4, 11, None),
    EfuseField("KEY_PURPOSE_4", 0, 104, 4, 12, None),
    EfuseField("KEY_PURPOSE_5", 0, 108, 4, 13, None),
    EfuseField("SECURE_BOOT_EN", 0, 116, 1, 15, None),
    EfuseField("SECURE_BOOT_AGGRESSIVE_REVOKE", 0, 117, 1, 16, None),
    EfuseField("FLASH_TPUW", 0, 124, 4, 18, None),
    EfuseField("DIS_DOWNLOAD_MODE", 0, 128, 1, 18, None),
    EfuseField("DIS_DIRECT_BOOT", 0, 129, 1, 18, None),
    EfuseField("DIS_USB_SERIAL_JTAG_ROM_PRINT", 0, 130, 1, 18, None),
    EfuseField("FLASH_ECC_MODE", 0, 131, 1, 18, None),
    EfuseField("DIS_USB_SERIAL_JTAG_DOWNLOAD_MODE", 0, 132, 1, 18, None),
    EfuseField("ENABLE_SECURITY_DOWNLOAD", 0, 133, 1, 18, None),
    EfuseField("UART_PRINT_CONTROL", 0, 134, 2, 18, None),
    EfuseField("PIN_POWER_SELECTION", 0, 136, 1, 18, None),
    EfuseField("FLASH_TYPE", 0, 137, 1, 18, None),
    EfuseField("FLASH_PAGE_SIZE", 0, 138, 2, 18, None),
    EfuseField("FLASH_ECC_EN", 0, 140, 1, 18, None),
    EfuseField("FORCE_SEND_RESUME", 0, 141, 1, 18, None),
    EfuseField("SECURE_VERSION", 0, 142, 16, 18, None),
    EfuseField("ERR_RST_ENABLE", 0, 159, 1, 19, None),
    EfuseField("DISABLE_WAFER_VERSION_MAJOR", 0, 160, 1, 19, None),
    EfuseField("DISABLE_BLK_VERSION_MAJOR", 0, 161, 1, 19, None),
    EfuseField("MAC", 1, 0, 48, 20, None),
    EfuseField("SPI_PAD_CONFIG_CLK", 1, 48, 6, 20, None),
    EfuseField("SPI_PAD_CONFIG_Q", 1, 54, 6, 20, None),
    EfuseField("SPI_PAD_CONFIG_D", 1, 60, 6, 20, None),
    EfuseField("SPI_PAD_CONFIG_CS", 1, 66, 6, 20, None),
    EfuseField("SPI_PAD_CONFIG_HD", 1, 72, 6, 20, None),
    EfuseField("SPI_PAD_CONFIG_WP", 1, 78, 6, 20, None),
    EfuseField("SPI_PAD_CONFIG_DQS", 1, 84, 6, 20, None),
    EfuseField("SPI_PAD_CONFIG_D4", 1, 90, 6, 20, None),
    EfuseField("SPI_PAD_CONFIG_D5", 1, 96, 6, 20, None),
    EfuseField("SPI_PAD_CONFIG_D6", 1, 102, 6, 20, None),
    EfuseField("SPI_PAD_CONFIG_D7", 1, 108, 6, 20, None),
    EfuseField("WAFER_VERSION_MINOR_LO", 1, 114, 3, 20, None),
    EfuseField("PKG_VERSION", 1, 117, 3, 20, None),
    EfuseField("BLK_VERSION_MINOR", 1, 120, 3, 20, None),
    EfuseField("FLASH_CAP", 1, 123, 3, 20, None),
    EfuseField("FLASH_TEMP", 1, 126, 2, 20, None),
    EfuseField("FLASH_VENDOR", 1, 128, 3, 20, None),
    EfuseField("K_RTC_LDO", 1, 135, 7, 20, None),
    EfuseField("K_DIG_LDO", 1, 142, 7, 20, None),
    EfuseField("V_RTC_DBIAS20", 1, 149, 8, 20, None),
    EfuseField("V_DIG_DBIAS20", 1, 157, 8, 20, None),
    EfuseField("DIG_DBIAS_HVT", 1, 165, 5, 20, None),
    EfuseField("THRES_HVT", 1, 170, 10, 20, None),
    EfuseField("WAFER_VERSION_MINOR_HI", 1, 183, 1, 20, None),
    EfuseField("WAFER_VERSION_MAJOR", 1, 184, 2, 20, None),
    EfuseField("OPTIONAL_UNIQUE_ID", 2, 0, 128, 21, None),
    EfuseField("BLK_VERSION_MAJOR", 2, 128, 2, 21, None),
    EfuseField("TEMP_CALIB", 2, 131, 9, 21, None),
    EfuseField("OCODE", 2, 140, 8, 21, None),
    EfuseField("ADC1_INIT_CODE_ATTEN0", 2, 148, 10, 21, None),
    EfuseField("ADC1_INIT_CODE_ATTEN1", 2, 158, 10, 21, None),
    EfuseField("ADC1_INIT_CODE_ATTEN2", 2, 168, 10, 21, None),
    EfuseField("ADC1_INIT_CODE_ATTEN3", 2, 178, 10, 21, None),
    EfuseField("ADC1_CAL_VOL_ATTEN0", 2, 188, 10, 21, None),
    EfuseField("ADC1_CAL_VOL_ATTEN1", 2, 198, 10, 21, None),
    EfuseField("ADC1_CAL_VOL_ATTEN2", 2, 208, 10, 21, None),
    EfuseField("ADC1_CAL_VOL_ATTEN3", 2, 218, 10, 21, None),
    EfuseField("BLOCK_USR_DATA", 3, 0, 192, 22, None),
    EfuseField("CUSTOM_MAC", 3, 200, 48, 22, None),
)

# Words per block in the order of the read registers; BLOCK0 and BLOCK1 of the C3 have six.
_C3_BLOCKS = (
    ("BLOCK0", (), 6, None, None),
    ("MAC_SPI_8M_0", (), 6, 20, None),
    ("BLOCK_SYS_DATA", (), 8, 21, None),
    ("BLOCK_USR_DATA", (), 8, 22, None),
    ("BLOCK_KEY0", (), 8, 23, 0),
    ("BLOCK_KEY1", (), 8, 24, 1),
    ("BLOCK_KEY2", (), 8, 25, 2),
    ("BLOCK_KEY3", (), 8, 26, 3),
    ("BLOCK_KEY4", (), 8, 27, 4),
    ("BLOCK_KEY5", (), 8, 28, 5),
    ("BLOCK_SYS_DATA2", (), 8, 29, 6),
)


def _c3_blocks() -> tuple[EfuseBlock, ...]:
    # RD_WR_DIS, the first read register, is at 0x2C; PGM_DATA0 at 0 is the write window of all blocks.
    blocks: list[EfuseBlock] = []
    at = 0
    for index, (name, aliases, words, write_disable, read_disable) in enumerate(_C3_BLOCKS):
        blocks.append(EfuseBlock(index, name, aliases, words, 0x2C + at, 0, write_disable, read_disable, at))
        at += words * 4
    return tuple(blocks)


EFUSE_GEOMETRY: dict[str, EfuseGeometry] = {
    "esp32": EfuseGeometry(
        chip="esp32",
        base=0x3FF5A000,
        conf_offset=0xFC,
        command_offset=0x104,
        coding=Coding.NONE,
        file_size_bytes=124,
        blocks=(
            EfuseBlock(0, "BLOCK0", (), 7, 0x00, 0x1C, None, None, 0x00),
            EfuseBlock(1, "BLOCK1", ("flash_encryption",), 8, 0x38, 0x98, 7, 0, 0x1C),
            EfuseBlock(2, "BLOCK2", ("secure_boot_v1", "secure_boot_v2"), 8, 0x58, 0xB8, 8, 1, 0x3C),
            EfuseBlock(3, "BLOCK3", (), 8, 0x78, 0xD8, 9, 2, 0x5C),
        ),
        fields=_ESP32_FIELDS,
    ),
    "esp32c3": EfuseGeometry(
        chip="esp32c3",
        base=0x60008800,
        conf_offset=0x1CC,
        command_offset=0x1D4,
        coding=Coding.REED_SOLOMON,
        file_size_bytes=1024,
        blocks=_c3_blocks(),
        fields=_ESP32C3_FIELDS,
    ),
}


def efuse_geometry(chip_name: str) -> EfuseGeometry:
    """The geometry of `chip_name`.

    Raises:
        UsageError: there is no such row.
    """
    geometry = EFUSE_GEOMETRY.get(chip_name)
    if geometry is None:
        raise UsageError(
            f"no eFuse table for chip '{chip_name}'", todo=f"use one of: {', '.join(EFUSE_GEOMETRY)}"
        )
    return geometry
