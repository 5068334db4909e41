"""sdkconfig fragments, Kconfig defaults, and the header that a native build gets from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.build import sdkconfig
from harness.build.native import firmware_dir
from harness.chips import CHIPS, chip_named
from harness.errors import FormatError, UsageError
from harness.formats.bootloader_config import BootloaderConfig
from harness.formats.partition_table import PartitionTable


def test_an_sdkconfig_file_is_read_with_unset_options_as_n() -> None:
    text = (
        '# comment\nCONFIG_A=y\nCONFIG_B="a b"\n\n# CONFIG_C is not set\n  CONFIG_D=0x10  \nnot an option\n'
    )
    assert sdkconfig.parse_sdkconfig(text) == {
        "CONFIG_A": "y",
        "CONFIG_B": '"a b"',
        "CONFIG_C": "n",
        "CONFIG_D": "0x10",
    }


def test_kconfig_defaults_are_read_and_a_choice_selects_its_default() -> None:
    text = """
    menu "M"
        choice WHICH
            prompt "Which"
            default TWO
            config ONE
                bool "one"
            config TWO
                bool "two"
        endchoice
        config NUMBER
            int "n"
            default 4096
            range 1 9999
        config FLAG
            bool "f"
            default y
            help
                Some words.
        config TEXT
            string "t"
            default ""
        config NONE
            bool "none"
    endmenu
    """
    assert sdkconfig.kconfig_defaults(text) == {
        "CONFIG_ONE": "n",
        "CONFIG_TWO": "y",
        "CONFIG_NUMBER": "4096",
        "CONFIG_FLAG": "y",
        "CONFIG_TEXT": '""',
        "CONFIG_NONE": "n",
    }


def test_a_kconfig_default_that_is_an_expression_is_refused() -> None:
    with pytest.raises(FormatError, match="CONFIG_X"):
        sdkconfig.kconfig_defaults("config X\n    bool\n    default y if Y\n")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("profile.release", "sdkconfig.profile.release"),
        ("release", "sdkconfig.profile.release"),
        ("lock.none", "sdkconfig.lock.none"),
        ("secure-download", "sdkconfig.lock.secure-download"),
        ("openeth", "sdkconfig.net.openeth"),
        ("net.none", "sdkconfig.net.none"),
        ("uart0", "sdkconfig.console.uart0"),
        ("console.usb-serial-jtag", "sdkconfig.console.usb-serial-jtag"),
        ("layout.table-0x8000", "sdkconfig.layout.table-0x8000"),
        ("key.device", "sdkconfig.key.device"),
        ("rollback.anti", "sdkconfig.rollback.anti"),
        ("test", "sdkconfig.test"),
    ],
)
def test_a_fragment_is_found_by_its_full_or_short_name(name: str, file: str) -> None:
    assert sdkconfig.fragment_path(firmware_dir(), name).name == file


def test_a_fragment_can_be_a_file_of_the_caller(tmp_path: Path) -> None:
    path = tmp_path / "mine"
    path.write_text("CONFIG_RAW_OTA_HTTP_RESUMES=3\n")
    options = sdkconfig.native_options(firmware_dir(), chip_named("esp32c3"), ["release", str(path)])
    assert options["CONFIG_RAW_OTA_HTTP_RESUMES"] == "3"


def test_an_unknown_fragment_is_refused_with_the_list_of_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"profile\.release"):
        sdkconfig.fragment_path(firmware_dir(), "relaese")


def test_a_misspelt_option_of_this_project_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine"
    path.write_text("CONFIG_RAW_OTA_ALLOW_BAR=y\n")
    with pytest.raises(FormatError, match="CONFIG_RAW_OTA_ALLOW_BAR"):
        sdkconfig.native_options(firmware_dir(), chip_named("esp32c3"), ["release", str(path)])


@pytest.mark.parametrize("chip", CHIPS.values(), ids=lambda chip: chip.name)
@pytest.mark.parametrize("profile", ["open", "development", "release"])
def test_a_profile_decides_what_the_bootloader_was_built_for(chip: object, profile: str) -> None:
    options = sdkconfig.native_options(firmware_dir(), chip, [f"profile.{profile}"])  # type: ignore[arg-type]
    config = BootloaderConfig.from_sdkconfig(sdkconfig.to_text(options, idf_version="v5.5.5"))
    assert config.flash_encryption == {"open": "off"}.get(profile, profile)
    assert config.require_encrypted is (profile == "development")
    assert (config.table_offset, config.rollback, config.idf_version) == (0x10000, True, "v5.5.5")


DEVELOPMENT, RELEASE, OPEN = "profile.development", "profile.release", "profile.open"
BOOT = "boot.sbv2"
SETTLED = [
    # A build for development leaves manual encryption open, and so must not freeze the caches' fuse.
    ("esp32c3", [DEVELOPMENT], {"SECURE_FLASH_UART_BOOTLOADER_ALLOW_ENC": "y"}),
    ("esp32c3", [DEVELOPMENT], {"SECURE_FLASH_SKIP_WRITE_PROTECTION_CACHE": "y"}),
    ("esp32c3", [DEVELOPMENT, "key.device"], {"SECURE_FLASH_REQUIRE_ALREADY_ENABLED": "n"}),
    # Release locks the download mode by itself where the chip can, unless a fragment says otherwise.
    ("esp32c3", [RELEASE], {"SECURE_ENABLE_SECURE_ROM_DL_MODE": "y"}),
    ("esp32c3", [RELEASE, "lock.none"], {"SECURE_INSECURE_ALLOW_DL_MODE": "y"}),
    ("esp32c3", [DEVELOPMENT], {"SECURE_INSECURE_ALLOW_DL_MODE": "y"}),
    ("esp32", [RELEASE], {"SECURE_INSECURE_ALLOW_DL_MODE": "y"}),
    ("esp32", [RELEASE, "lock.secure-download"], {"SECURE_INSECURE_ALLOW_DL_MODE": "y"}),
    ("esp32", [RELEASE, "lock.secure-download"], {"SECURE_ENABLE_SECURE_ROM_DL_MODE": "n"}),
    ("esp32h2", [RELEASE], {"SECURE_FLASH_PSEUDO_ROUND_FUNC_STRENGTH": "1"}),
    ("esp32h2", [DEVELOPMENT], {"SECURE_FLASH_PSEUDO_ROUND_FUNC": "n"}),
    ("esp32c3", [RELEASE], {"SECURE_FLASH_PSEUDO_ROUND_FUNC": "n"}),
    # An app in development must not freeze what release still burns; one in release freezes it.
    ("esp32c5", [DEVELOPMENT, BOOT], {"SECURE_BOOT_SKIP_WRITE_PROTECTION_SCA": "y"}),
    ("esp32c5", [RELEASE, BOOT], {"SECURE_BOOT_SKIP_WRITE_PROTECTION_SCA": "n"}),
    ("esp32c5", [DEVELOPMENT, RELEASE, BOOT], {"SECURE_BOOT_SKIP_WRITE_PROTECTION_SCA": "n"}),
    ("esp32h2", [DEVELOPMENT, BOOT], {"SECURE_BOOT_SKIP_WRITE_PROTECTION_SCA": "n"}),
    # Of a choice the later fragment's member is on.
    ("esp32c3", [RELEASE, "lock.secure-download", "lock.none"], {"SECURE_INSECURE_ALLOW_DL_MODE": "y"}),
    ("esp32c3", [RELEASE, "lock.none", "lock.secure-download"], {"SECURE_ENABLE_SECURE_ROM_DL_MODE": "y"}),
    ("esp32c3", [RELEASE, DEVELOPMENT], {"SECURE_FLASH_ENCRYPTION_MODE_RELEASE": "n"}),
    ("esp32c3", [OPEN, "lock.secure-download"], {"SECURE_ENABLE_SECURE_ROM_DL_MODE": "n"}),
    ("esp32c3", [OPEN, "rollback.anti"], {"BOOTLOADER_APP_SEC_VER_SIZE_EFUSE_FIELD": "16"}),
    ("esp32", [OPEN, "rollback.anti"], {"BOOTLOADER_APP_SEC_VER_SIZE_EFUSE_FIELD": "32"}),
    ("esp32c2", [OPEN, "rollback.anti"], {"BOOTLOADER_APP_SEC_VER_SIZE_EFUSE_FIELD": "4"}),
]


@pytest.mark.parametrize(("chip", "fragments", "expected"), SETTLED)
def test_options_follow_from_fragments_as_esp_idfs_kconfig_has_it(
    chip: str, fragments: list[str], expected: dict[str, str]
) -> None:
    options = sdkconfig.native_options(firmware_dir(), chip_named(chip), fragments)
    assert {name: options.get(f"CONFIG_{name}", "n") for name in expected} == expected


def test_a_fragment_for_development_alone_does_nothing_to_release(tmp_path: Path) -> None:
    path = tmp_path / "mine"
    path.write_text("CONFIG_SECURE_BOOT_ALLOW_JTAG=y\nCONFIG_SECURE_FLASH_REQUIRE_ALREADY_ENABLED=y\n")
    options = sdkconfig.native_options(firmware_dir(), chip_named("esp32c3"), ["release", str(path)])
    assert options["CONFIG_SECURE_BOOT_ALLOW_JTAG"] == "n"
    assert options["CONFIG_SECURE_FLASH_REQUIRE_ALREADY_ENABLED"] == "n"


def test_a_product_build_has_neither_bare_transfers_nor_test_hooks_nor_the_lock_command() -> None:
    options = sdkconfig.native_options(firmware_dir(), chip_named("esp32c3"), ["release", "secure-download"])
    for name in ("RAW_OTA_ALLOW_BARE", "RAW_OTA_TEST_HOOKS", "COMPANION_ALLOW_LOCK"):
        assert options[f"CONFIG_{name}"] == "n"


def test_the_header_defines_what_is_on_and_leaves_out_what_is_off() -> None:
    header = sdkconfig.to_header({"CONFIG_A": "y", "CONFIG_B": "n", "CONFIG_C": '"x"', "CONFIG_D": "7"})
    assert "#define CONFIG_A 1\n" in header
    assert "CONFIG_B" not in header
    assert '#define CONFIG_C "x"\n' in header
    assert "#define CONFIG_D 7\n" in header


def test_what_is_written_can_be_read_again() -> None:
    options = sdkconfig.native_options(firmware_dir(), chip_named("esp32"), ["release", "test"])
    assert sdkconfig.parse_sdkconfig(sdkconfig.to_text(options, idf_version="v5.5.5")) == options


@pytest.mark.parametrize("fragments", [("uart0",), ("usb-serial-jtag",), ("usb-serial-jtag", "uart0")])
def test_one_console_is_chosen_by_the_last_fragment(fragments: tuple[str, ...]) -> None:
    options = sdkconfig.native_options(firmware_dir(), chip_named("esp32c3"), ["release", *fragments])
    chosen = {
        name: options.get(f"CONFIG_ESP_CONSOLE_{name}", "n") for name in ("UART_DEFAULT", "USB_SERIAL_JTAG")
    }
    usb = fragments[-1] == "usb-serial-jtag"
    assert chosen == {"UART_DEFAULT": "n" if usb else "y", "USB_SERIAL_JTAG": "y" if usb else "n"}


def test_every_table_lies_behind_the_place_that_its_layout_gives_it() -> None:
    """Also those that no native build uses: ESP-IDF would find out only when somebody builds it."""
    for layout, offset in (("partitions.csv", 0x10000), ("partitions.table-0x8000.csv", 0x8000)):
        table = PartitionTable.from_csv((firmware_dir() / layout).read_text(), table_offset=offset)
        table.check(table_offset=offset, flash_size_bytes=4 << 20)
        assert len(table.ota_slots) == 2


def test_log_levels_are_chosen_by_name(tmp_path: Path) -> None:
    path = tmp_path / "mine"
    path.write_text("CONFIG_BOOTLOADER_LOG_LEVEL_DEBUG=y\n")
    options = sdkconfig.native_options(firmware_dir(), chip_named("esp32"), ["release", str(path)])
    assert (options["CONFIG_BOOTLOADER_LOG_LEVEL"], options["CONFIG_LOG_DEFAULT_LEVEL"]) == ("4", "3")
