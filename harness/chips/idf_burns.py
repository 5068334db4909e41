"""What ESP-IDF itself burns to enable flash encryption: its bootloader at the first start, its API later.

Rows follow ``flash_encryption_secure_features.c`` of every chip, ``flash_encrypt.c``, ``esp_efuse_api_key.c`` and
``soc_caps.h`` of ESP-IDF v5.5.5; names are espefuse's. What the harness burns for a profile is in `FuseNames`: the
two need not agree (the API on ESP32 leaves JTAG open, for instance).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.errors import UsageError


@dataclass(frozen=True, slots=True)
class FlashKey:
    """One kind of flash key that the bootloader can make: its purposes, one key block each."""

    purposes: tuple[int, ...]
    """``esp_efuse_purpose_t``; where there are no purpose fields, ESP-IDF's own numbers for them."""
    size_bytes: int
    """Random bytes per block."""
    read_disable: tuple[int, ...] | None = None
    """Bits of RD_DIS; None: the bit of the block."""
    burned_with: tuple[str, ...] = ()
    """One-bit fuses that tell the hardware how to take the key."""


@dataclass(frozen=True, slots=True)
class Door:
    """A way in that the bootloader closes at the first start, unless its build leaves it open."""

    left_open_by: str
    """Field of `harness.formats.bootloader_config.BootloaderConfig`."""
    closing: str
    """The line, logged before the fuses are noted."""
    left_open: str
    fuses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class IdfBurns:
    """One chip."""

    keys: Mapping[str, FlashKey]
    """By the words of `BootloaderConfig.flash_key`."""
    doors: tuple[Door, ...]
    """In the order of the log."""
    always: tuple[str, ...]
    """One-bit fuses that no option keeps from being burned at the first start."""
    pseudo_rounds: str | None
    """Field of the pseudo rounds' level, where the bootloader sets it."""
    write_protect: str | None
    """Field whose WR_DIS bit follows last (it freezes some of the others), unless the build skips it."""
    counter_write_protect: bool
    """Release also write-protects the counter, in a burn of its own (ESP32-C2)."""
    release_mode: tuple[str, ...]
    """One-bit fuses of ``esp_flash_encryption_set_release_mode()``, between the counter and `write_protect`."""
    secure_version_bits: int
    """Default and largest CONFIG_BOOTLOADER_APP_SEC_VER_SIZE_EFUSE_FIELD."""
    jtag_texts: tuple[tuple[str, str], ...] = ()
    """Fuses that the release checks want burned against JTAG, and what they say where one is not."""
    digest_write_protect: str | None = "RD_DIS"
    """With secure boot, field whose WR_DIS bit the bootloader leaves to the first start with encryption."""
    release_pseudo_rounds: str | None = None
    """Field of the pseudo rounds' level that the API raises to 1 where it is 0."""
    start_up_write_protect: str | None = None
    """Field whose WR_DIS bit an app with secure boot v2 burns at its start (``esp_security_init``)."""
    start_up_skipped_by: tuple[str, ...] = ()
    """Options (without CONFIG_) with any of which it does not."""


SKIP_START_UP_WRITE_PROTECTION = "SECURE_BOOT_SKIP_WRITE_PROTECTION_SCA"
"""The option that keeps an app from freezing what release still burns (ESP32-C5)."""

_COMPROMISED = " - SECURITY COMPROMISED"


def _encrypt_door(fuse: str) -> Door:
    """The one door whose opening is not called a compromise."""
    name = "UART bootloader encryption"
    return Door("allow_uart_encrypt", f"Disable {name}...", f"Not disabling {name}", (fuse,))


def _door(left_open_by: str, name: str, *fuses: str, closing: str | None = None) -> Door:
    return Door(
        left_open_by, f"Disable {closing or name}...", f"Not disabling {name}{_COMPROMISED}", tuple(fuses)
    )


_HARD_JTAG = "Not disabled JTAG (set HARD_DIS_JTAG->1)"
_PAD_JTAG = ("DIS_PAD_JTAG", "Not disabled JTAG PADs (set DIS_PAD_JTAG->1)")
_USB_JTAG = ("DIS_USB_JTAG", "Not disabled USB JTAG (set DIS_USB_JTAG->1)")
_MANUAL = _encrypt_door("DIS_DOWNLOAD_MANUAL_ENCRYPT")
_PAD_USB_JTAG = _door("allow_jtag", "JTAG", "DIS_PAD_JTAG", "DIS_USB_JTAG")
_XTS_128 = {"aes128": FlashKey((4,), 32)}
_XTS_OPTIONS = {**_XTS_128, "aes256": FlashKey((2, 3), 32)}


def _cache_door(*fuses: str) -> Door:
    return _door("allow_uart_cache", "UART bootloader cache", *fuses)


def _later_chip(
    *,
    doors: tuple[Door, ...],
    release_mode: tuple[str, ...],
    keys: Mapping[str, FlashKey] = _XTS_128,
    always: tuple[str, ...] = ("DIS_DIRECT_BOOT",),
    pseudo_rounds: str | None = None,
    release_pseudo_rounds: str | None = None,
    write_protect: str | None = "DIS_ICACHE",
    secure_version_bits: int = 16,
    counter_write_protect: bool = False,
    digest_write_protect: str | None = "RD_DIS",
    jtag_texts: tuple[tuple[str, str], ...] = (_PAD_JTAG, _USB_JTAG),
    start_up_write_protect: str | None = None,
    start_up_skipped_by: tuple[str, ...] = (),
) -> IdfBurns:
    return IdfBurns(
        keys=keys,
        doors=(_MANUAL, *doors),
        always=always,
        pseudo_rounds=pseudo_rounds,
        write_protect=write_protect,
        counter_write_protect=counter_write_protect,
        release_mode=("DIS_DOWNLOAD_MANUAL_ENCRYPT", *release_mode),
        secure_version_bits=secure_version_bits,
        digest_write_protect=digest_write_protect,
        jtag_texts=jtag_texts,
        release_pseudo_rounds=release_pseudo_rounds,
        start_up_write_protect=start_up_write_protect,
        start_up_skipped_by=start_up_skipped_by,
    )


_C3 = _later_chip(
    doors=(_cache_door("DIS_DOWNLOAD_ICACHE"), _PAD_USB_JTAG), release_mode=("DIS_DOWNLOAD_ICACHE",)
)

_ROWS: Mapping[str, IdfBurns] = {
    "esp32": IdfBurns(
        keys={"aes128": FlashKey((2,), 32)},
        doors=(
            _encrypt_door("DISABLE_DL_ENCRYPT"),
            _door("allow_uart_decrypt", "UART bootloader decryption", "DISABLE_DL_DECRYPT"),
            _door("allow_uart_cache", "UART bootloader MMU cache", "DISABLE_DL_CACHE"),
            _door("allow_jtag", "JTAG", "JTAG_DISABLE"),
            _door(
                "allow_rom_basic",
                "ROM BASIC fallback",
                "CONSOLE_DEBUG_DISABLE",
                closing="ROM BASIC interpreter fallback",
            ),
        ),
        always=(),
        pseudo_rounds=None,
        write_protect="DIS_CACHE",
        counter_write_protect=False,
        release_mode=("DISABLE_DL_CACHE", "DISABLE_DL_ENCRYPT", "DISABLE_DL_DECRYPT"),
        secure_version_bits=32,
    ),
    "esp32s2": _later_chip(
        keys=_XTS_OPTIONS,
        doors=(
            _cache_door("DIS_DOWNLOAD_DCACHE", "DIS_DOWNLOAD_ICACHE"),
            _door("allow_jtag", "JTAG", "HARD_DIS_JTAG"),
        ),
        always=("DIS_BOOT_REMAP", "DIS_LEGACY_SPI_BOOT"),
        jtag_texts=(("HARD_DIS_JTAG", _HARD_JTAG),),
        release_mode=("DIS_DOWNLOAD_ICACHE", "DIS_DOWNLOAD_DCACHE"),
    ),
    "esp32s3": _later_chip(
        keys=_XTS_OPTIONS,
        doors=(_cache_door("DIS_DOWNLOAD_DCACHE", "DIS_DOWNLOAD_ICACHE"), _PAD_USB_JTAG),
        # espefuse's DIS_PAD_JTAG is ESP-IDF's HARD_DIS_JTAG here.
        jtag_texts=(("DIS_PAD_JTAG", _HARD_JTAG), _USB_JTAG),
        release_mode=("DIS_DOWNLOAD_ICACHE", "DIS_DOWNLOAD_DCACHE"),
    ),
    "esp32c2": _later_chip(
        keys={
            "aes128": FlashKey((1,), 32, read_disable=(0, 1), burned_with=("XTS_KEY_LENGTH_256",)),
            "derived": FlashKey((2,), 16, read_disable=(0,)),
        },
        doors=(_cache_door("DIS_DOWNLOAD_ICACHE"), _door("allow_jtag", "JTAG", "DIS_PAD_JTAG")),
        write_protect=None,
        jtag_texts=(_PAD_JTAG,),
        counter_write_protect=True,
        digest_write_protect=None,
        release_mode=("DIS_DOWNLOAD_ICACHE",),
        secure_version_bits=4,
    ),
    "esp32c3": _C3,
    "esp32c6": _C3,
    "esp32c5": _later_chip(
        doors=(_cache_door("SPI_DOWNLOAD_MSPI_DIS"), _PAD_USB_JTAG),
        pseudo_rounds="XTS_DPA_PSEUDO_LEVEL",
        release_pseudo_rounds="XTS_DPA_PSEUDO_LEVEL",
        # soc_caps.h of this chip does not name the fuse that its bootloader burns.
        release_mode=(),
        secure_version_bits=9,
        # Its bit is that of XTS_DPA_PSEUDO_LEVEL, too.
        start_up_write_protect="SECURE_BOOT_SHA384_EN",
        start_up_skipped_by=(SKIP_START_UP_WRITE_PROTECTION, "SECURE_BOOT_ECDSA_KEY_LEN_384_BITS"),
    ),
    "esp32h2": _later_chip(
        doors=(_PAD_USB_JTAG,),
        pseudo_rounds="XTS_DPA_PSEUDO_LEVEL",
        release_pseudo_rounds="XTS_DPA_PSEUDO_LEVEL",
        release_mode=(),
        start_up_write_protect="ECDSA_CURVE_MODE",
    ),
    "esp32p4": _later_chip(
        keys=_XTS_OPTIONS,
        doors=(_cache_door("SPI_DOWNLOAD_MSPI_DIS"), _PAD_USB_JTAG),
        # Only the API sets the level; the bootloader does not.
        release_pseudo_rounds="XTS_DPA_PSEUDO_LEVEL",
        write_protect=None,
        release_mode=("SPI_DOWNLOAD_MSPI_DIS",),
    ),
}


def idf_burns(chip_name: str) -> IdfBurns:
    """The row of `chip_name`.

    Raises:
        UsageError: there is none.
    """
    row = _ROWS.get(chip_name)
    if row is None:
        raise UsageError(
            f"no table of what ESP-IDF burns on chip '{chip_name}'", todo=f"use one of: {', '.join(_ROWS)}"
        )
    return row
