"""Which eFuses a build's bootloader and app burn by themselves when they run. Pure: from its sdkconfig.

Flashing such a build is as irreversible as burning the fuses with a tool, so a plan lists them and consent covers
them. Sources: ``flash_encryption_secure_features.c``, ``secure_boot_secure_features.c``, ``flash_encrypt.c`` and
``secure_boot.c`` of bootloader_support, ``esp_efuse_startup.c``, ``esp_ota_ops.c``, ``nvs_sec_provider.c`` and
``esp_security/src/init.c`` of ESP-IDF v5.5.5. Fuses have espefuse's names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from harness.chips import chip_named
from harness.chips.idf_burns import idf_burns
from harness.provision.profile import Profile
from harness.provision.steps import FirmwareBurns

BOOTLOADER = "bootloader"
APP = "app"
SIGNED_BY_P192 = "SECURE_BOOT_ECDSA_KEY_LEN_192_BITS"
"""The option of a build that takes signatures of P-192 only."""


@dataclass(frozen=True, slots=True)
class _ChipFuses:
    """What differs from chip to chip. Empty texts: the chip has no such fuse."""

    counter: str
    counter_bits: int
    key: str
    no_encrypt: str
    jtag: tuple[str, ...]
    download_cache: tuple[str, ...]
    boot_modes: tuple[str, ...]
    """Ways to boot that are closed whatever is configured."""
    download_off: str
    secure_download: str
    cache_write_protect: str
    secure_boot: str
    digests: str = "key blocks with purpose SECURE_BOOT_DIGEST0..2"
    soft_jtag: str = "SOFT_DIS_JTAG"


_XTS_KEY = "a key block with purpose XTS_AES_128_KEY (or two with XTS_AES_256_KEY_1/2)"
_DIRECT = ("DIS_DIRECT_BOOT",)
_LATER = ("DIS_DOWNLOAD_MODE", "ENABLE_SECURITY_DOWNLOAD", "WR_DIS of DIS_ICACHE", "SECURE_BOOT_EN")
_MANUAL = "DIS_DOWNLOAD_MANUAL_ENCRYPT"
_PAD_USB = ("DIS_PAD_JTAG", "DIS_USB_JTAG")
_CHIPS: Mapping[str, _ChipFuses] = {
    "esp32": _ChipFuses(
        "FLASH_CRYPT_CNT",
        7,
        "BLOCK1",
        "DISABLE_DL_ENCRYPT",
        ("JTAG_DISABLE",),
        ("DISABLE_DL_CACHE",),
        (),
        "UART_DOWNLOAD_DIS",
        "",
        "WR_DIS of DIS_CACHE",
        "ABS_DONE_1",
        digests="BLOCK2",
        soft_jtag="",
    ),
    "esp32s2": _ChipFuses(
        "SPI_BOOT_CRYPT_CNT",
        3,
        _XTS_KEY,
        _MANUAL,
        ("HARD_DIS_JTAG",),
        ("DIS_DOWNLOAD_DCACHE", "DIS_DOWNLOAD_ICACHE"),
        ("DIS_BOOT_REMAP", "DIS_LEGACY_SPI_BOOT"),
        *_LATER,
    ),
    "esp32s3": _ChipFuses(
        "SPI_BOOT_CRYPT_CNT",
        3,
        _XTS_KEY,
        _MANUAL,
        _PAD_USB,
        ("DIS_DOWNLOAD_DCACHE", "DIS_DOWNLOAD_ICACHE"),
        _DIRECT,
        *_LATER,
    ),
    **{
        name: _ChipFuses(
            "SPI_BOOT_CRYPT_CNT", 3, _XTS_KEY, _MANUAL, _PAD_USB, ("DIS_DOWNLOAD_ICACHE",), _DIRECT, *_LATER
        )
        for name in ("esp32c3", "esp32c6")
    },
    "esp32h2": _ChipFuses("SPI_BOOT_CRYPT_CNT", 3, _XTS_KEY, _MANUAL, _PAD_USB, (), _DIRECT, *_LATER),
    "esp32c5": _ChipFuses(
        "SPI_BOOT_CRYPT_CNT", 3, _XTS_KEY, _MANUAL, _PAD_USB, ("SPI_DOWNLOAD_MSPI_DIS",), _DIRECT, *_LATER
    ),
    "esp32p4": _ChipFuses(
        "SPI_BOOT_CRYPT_CNT",
        3,
        _XTS_KEY,
        _MANUAL,
        _PAD_USB,
        ("SPI_DOWNLOAD_MSPI_DIS",),
        _DIRECT,
        "DIS_DOWNLOAD_MODE",
        "ENABLE_SECURITY_DOWNLOAD",
        "",
        "SECURE_BOOT_EN",
    ),
    "esp32c2": _ChipFuses(
        "SPI_BOOT_CRYPT_CNT",
        3,
        "BLOCK_KEY0",
        _MANUAL,
        ("DIS_PAD_JTAG",),
        ("DIS_DOWNLOAD_ICACHE",),
        _DIRECT,
        "DIS_DOWNLOAD_MODE",
        "ENABLE_SECURITY_DOWNLOAD",
        "",
        "SECURE_BOOT_EN",
        digests="BLOCK_KEY0",
        soft_jtag="",
    ),
}


@dataclass(frozen=True, slots=True)
class SelfBurn:
    """One thing that the firmware burns by itself."""

    by: str
    """`BOOTLOADER` or `APP`."""
    fuse: str
    """espefuse's name of a field, or what is burned in words."""
    when: str
    profile: Profile
    """What consent must reach: as far as this burn takes a chip."""


@dataclass(frozen=True, slots=True)
class SelfBurns:
    """All of them; `known` False means that nobody can tell, because there is no sdkconfig."""

    burns: tuple[SelfBurn, ...]
    known: bool = True

    def together_with(self, other: SelfBurns) -> SelfBurns:
        """What either of two builds burns."""
        return SelfBurns(tuple(dict.fromkeys((*self.burns, *other.burns))), self.known and other.known)

    def up_to(self, by: str | None = None) -> Profile | None:
        """The furthest profile that the bootloader, the app or (None) either burns for; None: they burn nothing."""
        if not self.known:
            return Profile.RELEASE_SBV2
        return Profile.together(burn.profile for burn in self.burns if by in (None, burn.by))

    def steps(self) -> tuple[FirmwareBurns, ...]:
        """For a plan: one step for all that is burned at one occasion, none when nothing is burned."""
        if not self.known:
            return (FirmwareBurns("firmware", "at a time that nobody knows", (), unknown=True),)
        occasions: dict[tuple[str, str], list[str]] = {}
        for burn in self.burns:
            occasions.setdefault((burn.by, burn.when), []).append(burn.fuse)
        return tuple(FirmwareBurns(by, when, tuple(fuses)) for (by, when), fuses in occasions.items())

    def lines(self) -> tuple[str, ...]:
        """The same, as text."""
        return tuple(step.text() for step in self.steps())


def self_burns(
    sdkconfig: Mapping[str, str] | None,
    chip_name: str,
    *,
    encrypted: bool = False,
    secure_boot: bool = False,
    burned: Iterable[str] = (),
) -> SelfBurns:
    """What a build burns by itself on a chip of that kind.

    Args:
        sdkconfig: ``CONFIG_…`` names and values of the whole build; None where it is not known.
        chip_name: ESP-IDF's name.
        encrypted: flash encryption is on before this firmware runs for the first time; then its bootloader has
            nothing left to do for it.
        secure_boot: the same for secure boot.
        burned: espefuse's names of one-bit fuses that are set by then.
    """
    if sdkconfig is None or chip_name not in _CHIPS:
        return SelfBurns((), known=False)
    if _on(sdkconfig, "EFUSE_VIRTUAL"):
        return SelfBurns(())
    fuses = _CHIPS[chip_name]
    found = [
        *([] if encrypted else _flash_encryption(sdkconfig, chip_name, fuses)),
        *([] if secure_boot else _secure_boot(sdkconfig, chip_name, fuses)),
        *_start_up(sdkconfig, chip_name, fuses),
        *(_unused_slots(sdkconfig, chip_name) if secure_boot else []),
        *_later(sdkconfig, chip_name),
    ]
    gone = set(burned)
    return SelfBurns(tuple(burn for burn in dict.fromkeys(found) if burn.fuse not in gone))


def frozen_at_start(sdkconfig: Mapping[str, str], chip_name: str) -> str | None:
    """The fuse that an app of this build write-protects at every start (``esp_security_init``); None: it does not."""
    burns = idf_burns(chip_name)
    skipped = any(_on(sdkconfig, option) for option in burns.start_up_skipped_by)
    if skipped or not _on(sdkconfig, "SECURE_BOOT_V2_ENABLED") or _on(sdkconfig, "EFUSE_VIRTUAL"):
        return None
    return burns.start_up_write_protect


def _on(sdkconfig: Mapping[str, str], option: str) -> bool:
    return sdkconfig.get(f"CONFIG_{option}") == "y"


def _flash_encryption(c: Mapping[str, str], chip_name: str, fuses: _ChipFuses) -> Iterator[SelfBurn]:
    """First boot of a bootloader that finds encryption off: a key of its own, then the rest, then the counter."""
    if not _on(c, "SECURE_FLASH_ENC_ENABLED") or _on(c, "SECURE_FLASH_REQUIRE_ALREADY_ENABLED"):
        return
    release = _on(c, "SECURE_FLASH_ENCRYPTION_MODE_RELEASE")
    profile = Profile.RELEASE if release else Profile.DEVELOPMENT
    when = "at the first start with flash encryption off"
    names = [f"a key that nobody knows into {fuses.key}, if none is there"]
    if chip_name == "esp32":
        names.append("FLASH_CRYPT_CONFIG = 0xf")
        if not _on(c, "SECURE_FLASH_UART_BOOTLOADER_ALLOW_DEC"):
            names.append("DISABLE_DL_DECRYPT")
        if not _on(c, "SECURE_BOOT_ALLOW_ROM_BASIC"):
            names.append("CONSOLE_DEBUG_DISABLE")
    if not _on(c, "SECURE_FLASH_UART_BOOTLOADER_ALLOW_ENC"):
        names.append(fuses.no_encrypt)
    if not _on(c, "SECURE_FLASH_UART_BOOTLOADER_ALLOW_CACHE"):
        names += fuses.download_cache
    if not _on(c, "SECURE_BOOT_ALLOW_JTAG"):
        names += fuses.jtag
    names += fuses.boot_modes
    if _on(c, "SECURE_FLASH_PSEUDO_ROUND_FUNC"):
        names.append("XTS_DPA_PSEUDO_LEVEL")
    if _on(c, "SECURE_BOOT_V2_ENABLED") and not _on(c, "SECURE_BOOT_V2_ALLOW_EFUSE_RD_DIS"):
        names.append("WR_DIS of RD_DIS")
    if fuses.cache_write_protect and not _on(c, "SECURE_FLASH_SKIP_WRITE_PROTECTION_CACHE"):
        names.append(fuses.cache_write_protect)
    if release and chip_named(chip_name).fuses.release_write_protect == fuses.counter:
        names.append(f"WR_DIS of {fuses.counter}")
    value = (1 << fuses.counter_bits) - 1 if release else 1
    names.append(f"{fuses.counter} = {value:#x}")
    for name in names:
        yield SelfBurn(BOOTLOADER, name, when, profile)


def _secure_boot(c: Mapping[str, str], chip_name: str, fuses: _ChipFuses) -> Iterator[SelfBurn]:
    """First boot of a signed bootloader that finds secure boot off. No way leads back: as far as release goes."""
    if not _on(c, "SECURE_BOOT"):
        return
    names = []
    if _on(c, "SECURE_BOOT_V1_ENABLED"):
        names += ["a secure boot key into BLOCK2, read- and write-protected", "ABS_DONE_0"]
    else:
        names += [f"the digests of its signing keys into {fuses.digests}", fuses.secure_boot]
    if chip_named(chip_name).secure_boot.revoke and not _on(c, "SECURE_BOOT_ALLOW_UNUSED_DIGEST_SLOTS"):
        names.append("SECURE_BOOT_KEY_REVOKE of unused digests")
    if _on(c, "SECURE_BOOT_ENABLE_AGGRESSIVE_KEY_REVOKE"):
        names.append("SECURE_BOOT_AGGRESSIVE_REVOKE")
    if not _on(c, "SECURE_BOOT_ALLOW_JTAG"):
        names += fuses.jtag
        if fuses.soft_jtag:
            names.append(fuses.soft_jtag)
    if chip_name == "esp32" and not _on(c, "SECURE_BOOT_ALLOW_ROM_BASIC"):
        names.append("CONSOLE_DEBUG_DISABLE")
    names += fuses.boot_modes
    if not _on(c, "SECURE_BOOT_V2_ALLOW_EFUSE_RD_DIS"):
        names.append("WR_DIS of RD_DIS")
    for name in names:
        yield SelfBurn(BOOTLOADER, name, "at the first start with secure boot off", Profile.RELEASE)
    for name in _download_mode(c, fuses):
        yield SelfBurn(BOOTLOADER, name, "together with secure boot", Profile.RELEASE)


def _download_mode(c: Mapping[str, str], fuses: _ChipFuses) -> Iterator[str]:
    if _on(c, "SECURE_DISABLE_ROM_DL_MODE"):
        yield fuses.download_off
    elif _on(c, "SECURE_ENABLE_SECURE_ROM_DL_MODE") and fuses.secure_download:
        yield fuses.secure_download


def _start_up(c: Mapping[str, str], chip_name: str, fuses: _ChipFuses) -> Iterator[SelfBurn]:
    """Before ``app_main``, at every start, whatever the state of encryption."""
    when = "at every start"
    for name in _download_mode(c, fuses):
        yield SelfBurn(APP, name, when, Profile.RELEASE)
    if chip_name == "esp32" and _on(c, "ESP32_DISABLE_BASIC_ROM_CONSOLE"):
        yield SelfBurn(APP, "CONSOLE_DEBUG_DISABLE", when, Profile.DEVELOPMENT)
    if chip_name != "esp32" and any(
        _on(c, f"BOOT_ROM_LOG_{mode}") for mode in ("ALWAYS_OFF", "ON_GPIO_LOW", "ON_GPIO_HIGH")
    ):
        yield SelfBurn(APP, "UART_PRINT_CONTROL", when, Profile.DEVELOPMENT)
    if _on(c, "ESP_CRYPTO_FORCE_ECC_CONSTANT_TIME_POINT_MUL"):
        yield SelfBurn(APP, "ECC_FORCE_CONST_TIME", when, Profile.DEVELOPMENT)
    curve_mode = chip_named(chip_name).secure_boot.curve_mode
    if curve_mode is not None and _on(c, SIGNED_BY_P192):
        for by in (BOOTLOADER, APP):
            yield SelfBurn(by, curve_mode, "when it looks at a signature of P-192", Profile.DEVELOPMENT)
    if _on(c, "ESP_ECDSA_ENABLE_P192_CURVE"):
        yield SelfBurn(APP, "ECDSA_CURVE_MODE", when, Profile.DEVELOPMENT)
    frozen = frozen_at_start(c, chip_name)
    if frozen is not None:
        yield SelfBurn(APP, f"WR_DIS of {frozen}", when, Profile.RELEASE)
    if (
        _on(c, "SECURE_BOOT")
        and _on(c, "SECURE_FLASH_ENCRYPTION_MODE_RELEASE")
        and _on(c, "SECURE_FLASH_ENC_ENABLED")
    ):
        name = f"WR_DIS of {fuses.counter}"
        yield SelfBurn(APP, name, f"if {fuses.counter} does not have all its bits", Profile.RELEASE)


def _unused_slots(c: Mapping[str, str], chip_name: str) -> Iterator[SelfBurn]:
    """What the bootloader would have done at a first start with secure boot off, the app makes up for."""
    if not _on(c, "SECURE_BOOT") or not _on(c, "SECURE_BOOT_V2_ENABLED"):
        return
    if _on(c, "SECURE_BOOT_ALLOW_UNUSED_DIGEST_SLOTS"):
        return
    for name in chip_named(chip_name).secure_boot.revoke:
        yield SelfBurn(APP, name, "at every start, where nothing is in the digest slot", Profile.RELEASE)


def _later(c: Mapping[str, str], chip_name: str) -> Iterator[SelfBurn]:
    """When the app does certain things."""
    if _on(c, "BOOTLOADER_APP_ANTI_ROLLBACK") and not _on(c, "BOOTLOADER_EFUSE_SECURE_VERSION_EMULATE"):
        version = c.get("CONFIG_BOOTLOADER_APP_SECURE_VERSION", "?")
        name = f"SECURE_VERSION up to {version}"
        yield SelfBurn(
            APP, name, "when it confirms itself; older versions never boot again", Profile.DEVELOPMENT
        )
    if chip_name != "esp32" and _on(c, "NVS_SEC_KEY_PROTECT_USING_HMAC"):
        key = c.get("CONFIG_NVS_SEC_HMAC_EFUSE_KEY_ID", "?")
        name = f"a key that nobody knows into BLOCK_KEY{key} with purpose HMAC_UP"
        yield SelfBurn(APP, name, "when it first opens encrypted NVS", Profile.DEVELOPMENT)
