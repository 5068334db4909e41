"""What a build burns by itself, told from its sdkconfig: against configurations that ESP-IDF made."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from idf_folder import DATA

from harness.build.fuses_burned import APP, BOOTLOADER, SelfBurns, frozen_at_start, self_burns
from harness.build.idf_build_folder import options_from_json
from harness.chips import CHIPS, Chip
from harness.provision.profile import Profile

FE = {"CONFIG_SECURE_FLASH_ENC_ENABLED": "y"}
RELEASE = {**FE, "CONFIG_SECURE_FLASH_ENCRYPTION_MODE_RELEASE": "y"}
DEVELOPMENT = {**FE, "CONFIG_SECURE_FLASH_UART_BOOTLOADER_ALLOW_ENC": "y"}
SECURE_BOOT = {"CONFIG_SECURE_BOOT": "y", "CONFIG_SECURE_BOOT_V2_ENABLED": "y"}


def config(build: str) -> dict[str, str]:
    return options_from_json(json.loads((DATA / f"sdkconfig-{build}-idf5.5.5.json").read_text()))


def fuses(burns: SelfBurns, by: str | None = None) -> set[str]:
    return {burn.fuse for burn in burns.burns if by in (None, burn.by)}


def test_a_release_build_makes_a_key_and_locks_itself() -> None:
    burns = self_burns(config("release"), "esp32c3")
    assert fuses(burns, BOOTLOADER) >= {
        "DIS_DOWNLOAD_MANUAL_ENCRYPT",
        "DIS_DOWNLOAD_ICACHE",
        "DIS_PAD_JTAG",
        "DIS_USB_JTAG",
        "DIS_DIRECT_BOOT",
        "WR_DIS of DIS_ICACHE",
        "SPI_BOOT_CRYPT_CNT = 0x7",
    }
    assert any("key that nobody knows" in name for name in fuses(burns, BOOTLOADER))
    assert fuses(burns, APP) == {"ENABLE_SECURITY_DOWNLOAD"}
    assert (burns.up_to(BOOTLOADER), burns.up_to(APP), burns.up_to()) == (Profile.RELEASE,) * 3


def test_on_a_chip_that_encrypts_already_only_the_lock_is_left() -> None:
    burns = self_burns(config("release"), "esp32c3", encrypted=True)
    assert fuses(burns) == {"ENABLE_SECURITY_DOWNLOAD"}
    assert (burns.up_to(BOOTLOADER), burns.up_to(APP)) == (None, Profile.RELEASE)
    assert self_burns(
        config("release"), "esp32c3", encrypted=True, burned=["ENABLE_SECURITY_DOWNLOAD"]
    ) == SelfBurns(())


def test_the_companion_with_lock_none_leaves_the_download_mode_alone() -> None:
    assert self_burns(config("companion-release"), "esp32c3", encrypted=True) == SelfBurns(())


def test_secure_boot_goes_as_far_as_release() -> None:
    burns = self_burns(config("secure-boot"), "esp32c3", encrypted=True)
    assert fuses(burns, BOOTLOADER) >= {
        "SECURE_BOOT_EN",
        "SOFT_DIS_JTAG",
        "WR_DIS of RD_DIS",
        "SECURE_BOOT_KEY_REVOKE of unused digests",
        "ENABLE_SECURITY_DOWNLOAD",
    }
    assert burns.up_to(BOOTLOADER) is Profile.RELEASE
    assert BOOTLOADER not in {
        burn.by
        for burn in self_burns(config("secure-boot"), "esp32c3", encrypted=True, secure_boot=True).burns
    }


@pytest.mark.parametrize("chip", CHIPS.values(), ids=lambda chip: chip.name)
def test_the_app_closes_digest_slots_that_the_bootloader_found_no_time_for(chip: Chip) -> None:
    slots = set(chip.secure_boot.revoke)
    on = self_burns(SECURE_BOOT, chip.name, secure_boot=True)
    assert fuses(on, APP) >= slots
    assert not fuses(self_burns(SECURE_BOOT, chip.name, secure_boot=True, burned=slots)) & slots
    allowed = {**SECURE_BOOT, "CONFIG_SECURE_BOOT_ALLOW_UNUSED_DIGEST_SLOTS": "y"}
    for spared in (
        self_burns(allowed, chip.name, secure_boot=True),
        self_burns(SECURE_BOOT, chip.name),
        self_burns(RELEASE, chip.name, secure_boot=True),
    ):
        assert not fuses(spared, APP) & slots


def test_without_an_sdkconfig_nothing_is_known_and_consent_must_reach_release() -> None:
    burns = self_burns(None, "esp32c3")
    assert (burns.known, burns.up_to(), burns.up_to(APP)) == (False, *2 * [Profile.RELEASE_SBV2])
    assert "UNKNOWN" in burns.lines()[0]
    assert not self_burns({}, "esp32c61").known


@pytest.mark.parametrize("chip", CHIPS)
def test_a_plain_build_burns_nothing(chip: str) -> None:
    burns = self_burns({"CONFIG_SECURE_FLASH_ENC_ENABLED": "n"}, chip)
    assert (burns, burns.up_to(), burns.lines()) == (SelfBurns(()), None, ())


@pytest.mark.parametrize("chip", CHIPS)
def test_development_leaves_the_rom_able_to_encipher_on_every_chip(chip: str) -> None:
    burns = self_burns({**DEVELOPMENT, "CONFIG_SECURE_FLASH_SKIP_WRITE_PROTECTION_CACHE": "y"}, chip)
    assert burns.up_to() is Profile.DEVELOPMENT
    assert not fuses(burns) & {"DIS_DOWNLOAD_MANUAL_ENCRYPT", "DISABLE_DL_ENCRYPT"}
    assert any(name.endswith("CRYPT_CNT = 0x1") for name in fuses(burns))
    assert not any(name.startswith("WR_DIS") for name in fuses(burns))


@pytest.mark.parametrize("chip", CHIPS)
def test_a_bootloader_that_requires_encryption_burns_nothing(chip: str) -> None:
    assert (
        fuses(self_burns({**DEVELOPMENT, "CONFIG_SECURE_FLASH_REQUIRE_ALREADY_ENABLED": "y"}, chip)) == set()
    )


PARTICULAR: list[tuple[str, Mapping[str, str], set[str]]] = [
    (
        "esp32",
        RELEASE,
        {
            "FLASH_CRYPT_CONFIG = 0xf",
            "FLASH_CRYPT_CNT = 0x7f",
            "DISABLE_DL_DECRYPT",
            "DISABLE_DL_CACHE",
            "JTAG_DISABLE",
            "CONSOLE_DEBUG_DISABLE",
            "WR_DIS of DIS_CACHE",
        },
    ),
    ("esp32", {"CONFIG_SECURE_DISABLE_ROM_DL_MODE": "y"}, {"UART_DOWNLOAD_DIS"}),
    ("esp32", SECURE_BOOT, {"ABS_DONE_1", "the digests of its signing keys into BLOCK2"}),
    ("esp32", {"CONFIG_ESP32_DISABLE_BASIC_ROM_CONSOLE": "y"}, {"CONSOLE_DEBUG_DISABLE"}),
    ("esp32s2", RELEASE, {"DIS_BOOT_REMAP", "DIS_LEGACY_SPI_BOOT", "HARD_DIS_JTAG", "DIS_DOWNLOAD_DCACHE"}),
    ("esp32s3", RELEASE, {"DIS_DIRECT_BOOT", "DIS_DOWNLOAD_DCACHE", "DIS_DOWNLOAD_ICACHE"}),
    ("esp32c6", {"CONFIG_SECURE_DISABLE_ROM_DL_MODE": "y"}, {"DIS_DOWNLOAD_MODE"}),
    ("esp32h2", {**RELEASE, "CONFIG_SECURE_FLASH_PSEUDO_ROUND_FUNC": "y"}, {"XTS_DPA_PSEUDO_LEVEL"}),
    ("esp32c3", {"CONFIG_BOOT_ROM_LOG_ALWAYS_OFF": "y"}, {"UART_PRINT_CONTROL"}),
    ("esp32p4", RELEASE, {"SPI_DOWNLOAD_MSPI_DIS", "DIS_PAD_JTAG", "DIS_USB_JTAG", "DIS_DIRECT_BOOT"}),
    ("esp32c5", SECURE_BOOT, {"WR_DIS of SECURE_BOOT_SHA384_EN", "SOFT_DIS_JTAG"}),
    ("esp32h2", SECURE_BOOT, {"WR_DIS of ECDSA_CURVE_MODE"}),
    ("esp32h2", {"CONFIG_SECURE_BOOT_ECDSA_KEY_LEN_192_BITS": "y"}, {"ECDSA_CURVE_MODE"}),
    (
        "esp32c2",
        RELEASE,
        {"DIS_DOWNLOAD_ICACHE", "DIS_PAD_JTAG", "SPI_BOOT_CRYPT_CNT = 0x7", "WR_DIS of SPI_BOOT_CRYPT_CNT"},
    ),
    ("esp32c2", SECURE_BOOT, {"the digests of its signing keys into BLOCK_KEY0", "SECURE_BOOT_EN"}),
    (
        "esp32c3",
        {"CONFIG_BOOTLOADER_APP_ANTI_ROLLBACK": "y", "CONFIG_BOOTLOADER_APP_SECURE_VERSION": "3"},
        {"SECURE_VERSION up to 3"},
    ),
    (
        "esp32c3",
        {"CONFIG_NVS_SEC_KEY_PROTECT_USING_HMAC": "y", "CONFIG_NVS_SEC_HMAC_EFUSE_KEY_ID": "4"},
        {"a key that nobody knows into BLOCK_KEY4 with purpose HMAC_UP"},
    ),
]


@pytest.mark.parametrize(("chip", "options", "expected"), PARTICULAR)
def test_what_an_option_burns(chip: str, options: Mapping[str, str], expected: set[str]) -> None:
    burns = self_burns(options, chip)
    assert expected <= fuses(burns)
    assert burns.up_to() is not None


@pytest.mark.parametrize(
    ("option", "spared"),
    [
        ("SECURE_BOOT_ALLOW_JTAG", "DIS_PAD_JTAG"),
        ("SECURE_FLASH_UART_BOOTLOADER_ALLOW_CACHE", "DIS_DOWNLOAD_ICACHE"),
        ("SECURE_FLASH_SKIP_WRITE_PROTECTION_CACHE", "WR_DIS of DIS_ICACHE"),
        ("SECURE_FLASH_UART_BOOTLOADER_ALLOW_ENC", "DIS_DOWNLOAD_MANUAL_ENCRYPT"),
    ],
)
def test_what_an_option_spares(option: str, spared: str) -> None:
    assert spared in fuses(self_burns(FE, "esp32c3"))
    assert spared not in fuses(self_burns({**FE, f"CONFIG_{option}": "y"}, "esp32c3"))


def test_virtual_fuses_are_none() -> None:
    assert self_burns({**RELEASE, "CONFIG_EFUSE_VIRTUAL": "y"}, "esp32c3") == SelfBurns(())


def test_a_plan_gets_one_line_per_occasion() -> None:
    first, second = self_burns(config("release"), "esp32c3").lines()
    assert first.startswith(
        "the bootloader burns by itself, at the first start with flash encryption off: a key"
    )
    assert second == "the app burns by itself, at every start: ENABLE_SECURITY_DOWNLOAD"


C5_FREEZES, H2_FREEZES = "SECURE_BOOT_SHA384_EN", "ECDSA_CURVE_MODE"
SKIP = {"CONFIG_SECURE_BOOT_SKIP_WRITE_PROTECTION_SCA": "y"}
P384 = {"CONFIG_SECURE_BOOT_ECDSA_KEY_LEN_384_BITS": "y"}


@pytest.mark.parametrize(
    ("chip", "options", "frozen"),
    [
        ("esp32c5", SECURE_BOOT, C5_FREEZES),
        ("esp32c5", {}, None),
        ("esp32c5", {**SECURE_BOOT, **SKIP}, None),
        ("esp32c5", {**SECURE_BOOT, **P384}, None),
        # The option is not about this chip's fuse.
        ("esp32h2", {**SECURE_BOOT, **SKIP}, H2_FREEZES),
        ("esp32h2", {}, None),
        # No such bit.
        ("esp32p4", SECURE_BOOT, None),
        ("esp32c6", SECURE_BOOT, None),
    ],
)
def test_what_an_app_with_secure_boot_freezes_at_its_start(
    chip: str, options: Mapping[str, str], frozen: str | None
) -> None:
    assert frozen_at_start(options, chip) == frozen
    found = {name for name in fuses(self_burns(options, chip), APP) if name.startswith("WR_DIS of")}
    assert found == (set() if frozen is None else {f"WR_DIS of {frozen}"})
