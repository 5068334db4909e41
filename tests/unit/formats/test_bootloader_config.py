"""What a bootloader was compiled with, from its image or from an sdkconfig."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.chips import CHIPS
from harness.errors import FormatError
from harness.formats.app_image import Segment, build_app_image, parse_app_image
from harness.formats.bootloader_config import BootloaderConfig, BootloaderDescription

CONFIG = BootloaderConfig(
    table_offset=0x10000,
    rollback=True,
    flash_encryption="release",
    require_encrypted=True,
    compile_time="Jan  2 2026 12:34:56",
)


def blob(**values: object) -> bytes:
    text = json.dumps({"format": 1, **values}).encode()
    return b"TWINBLD1" + len(text).to_bytes(4, "little") + text


def test_a_configuration_survives_a_bootloader_image():
    chip = CHIPS["esp32c3"]
    segment = Segment(chip.bootloader_load_address, CONFIG.to_segment_data())
    image = parse_app_image(build_app_image(chip, [segment], entry_point=0x403CBF1A))
    assert image.is_intact
    assert BootloaderConfig.from_segment_data(image.segments[0].data) == CONFIG
    assert BootloaderDescription.from_bytes(image.segments[0].data) == BootloaderDescription(
        "v5.5.5", "Jan  2 2026 12:34:56"
    )


def test_the_blob_is_magic_length_and_json():
    raw = CONFIG.to_blob()
    assert raw[:8] == b"TWINBLD1"
    assert int.from_bytes(raw[8:12], "little") == len(raw) - 12
    assert json.loads(raw[12:]) == {
        "format": 1,
        "table_offset": 65536,
        "rollback": True,
        "anti_rollback": False,
        "log_level": 3,
        "flash_encryption": "release",
        "require_encrypted": True,
        "idf_version": "v5.5.5",
        "compile_time": "Jan  2 2026 12:34:56",
    }


def test_absent_fields_have_their_defaults_and_what_follows_is_ignored():
    assert BootloaderConfig.from_blob(blob(rollback=True) + bytes(100)) == BootloaderConfig(rollback=True)


def test_a_real_bootloader_has_no_configuration():
    description = BootloaderDescription("v5.5.5", "Nov 21 2026 01:19:46", secure_version=1).to_bytes()
    assert len(description) == 80
    assert BootloaderConfig.from_segment_data(description + b"\x01\x02code") is None
    assert BootloaderConfig.from_segment_data(b"") is None


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (b"", "magic is"),
        (b"TWINBLD2" + bytes(8), "magic is"),
        (b"TWINBLD1\x05", "length says"),
        (b"TWINBLD1\x05\0\0\0{}", "length says 5 bytes, 2 follow"),
        (b"TWINBLD1\xff\xff\xff\xff" + bytes(100), "length says 4294967295"),
        (b"TWINBLD1\x02\0\0\0{]", "not JSON"),
        (b"TWINBLD1\x02\0\0\0\xff\xff", "not JSON"),
        (b"TWINBLD1\xa0\x0f\0\0" + b"[" * 4000, "not JSON"),
        (b"TWINBLD1\x02\0\0\0[]", "no JSON object"),
        (b"TWINBLD1\x02\0\0\0{}", "no JSON object with a number 'format'"),
        (blob(format=2), "format is 2, this release reads 1"),
        (blob(colour="red"), "unknown field 'colour'"),
        (blob(table_offset="0x8000"), "table_offset is '0x8000'"),
        (blob(table_offset=True), "table_offset is True"),
        (blob(table_offset=0x8100), "table_offset is 33024"),
        (blob(table_offset=-4096), "table_offset is -4096"),
        (blob(rollback=1), "rollback is 1"),
        (blob(log_level=True), "log_level is True"),
        (blob(compile_time="x" * 5000), "length says 50"),
        (blob(log_level=6), "log_level is 6"),
        (blob(flash_encryption="on"), "flash_encryption is 'on'"),
        (blob(idf_version=None), "idf_version is None"),
    ],
)
def test_a_wrong_configuration_is_refused_by_field(data, names):
    with pytest.raises(FormatError) as caught:
        BootloaderConfig.from_blob(data)
    assert names in str(caught.value)
    assert caught.value.todo


@given(
    st.binary(max_size=60)
    | st.binary(max_size=60).map(lambda text: b"TWINBLD1" + len(text).to_bytes(4, "little") + text)
    | st.dictionaries(
        st.sampled_from(["format", "table_offset", "rollback", "log_level", "idf_version"]),
        st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False),
    ).map(lambda values: blob(**values))
)
@settings(max_examples=60, deadline=None)
def test_any_bytes_give_a_configuration_or_a_format_error(data):
    try:
        config = BootloaderConfig.from_blob(data)
    except FormatError:
        return
    assert BootloaderConfig.from_blob(config.to_blob()) == config


SDKCONFIG = """\
#
# Automatically generated file. DO NOT EDIT.
# Espressif IoT Development Framework (ESP-IDF) 5.5.5 Project Configuration
#
CONFIG_IDF_INIT_VERSION="5.4.0"
CONFIG_PARTITION_TABLE_OFFSET=0x10000
CONFIG_BOOTLOADER_LOG_LEVEL_DEBUG=y
CONFIG_BOOTLOADER_LOG_LEVEL=4
CONFIG_BOOTLOADER_APP_ROLLBACK_ENABLE=y
# CONFIG_BOOTLOADER_APP_ANTI_ROLLBACK is not set
CONFIG_SECURE_FLASH_ENC_ENABLED=y
# CONFIG_SECURE_FLASH_ENCRYPTION_MODE_DEVELOPMENT is not set
CONFIG_SECURE_FLASH_ENCRYPTION_MODE_RELEASE=y
"""


def test_an_sdkconfig_says_the_same():
    assert BootloaderConfig.from_sdkconfig(SDKCONFIG) == BootloaderConfig(
        table_offset=0x10000, rollback=True, log_level=4, flash_encryption="release", idf_version="v5.5.5"
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("ENC_ENABLED=y", "ENC_ENABLED=n"), "off"),
        (("MODE_RELEASE=y", "MODE_RELEASE=n"), "development"),
        (("\n", "\r\n"), "release"),
    ],
)
def test_the_encryption_mode_comes_from_the_sdkconfig(change, expected):
    assert BootloaderConfig.from_sdkconfig(SDKCONFIG.replace(*change)).flash_encryption == expected


SECURE_BOOT = "CONFIG_SECURE_BOOT=y\nCONFIG_SECURE_BOOT_V2_ENABLED=y\n"
ECDSA = "CONFIG_SECURE_SIGNED_APPS_ECDSA_V2_SCHEME=y\n"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", {"secure_boot": False}),
        ("CONFIG_SECURE_BOOT=y\nCONFIG_SECURE_BOOT_V1_ENABLED=y\n", {"secure_boot": False}),
        (SECURE_BOOT, {"secure_boot": True, "secure_boot_scheme": "", "download_lock": "none"}),
        (SECURE_BOOT + "CONFIG_SECURE_SIGNED_APPS_RSA_SCHEME=y\n", {"secure_boot_scheme": "rsa3072"}),
        (SECURE_BOOT + ECDSA, {"secure_boot_scheme": "ecdsa256"}),
        (
            SECURE_BOOT + ECDSA + "CONFIG_SECURE_BOOT_ECDSA_KEY_LEN_192_BITS=y\n",
            {"secure_boot_scheme": "ecdsa192"},
        ),
        (
            SECURE_BOOT + ECDSA + "CONFIG_SECURE_BOOT_ECDSA_KEY_LEN_384_BITS=y\n",
            {"secure_boot_scheme": "ecdsa384"},
        ),
        (ECDSA, {"secure_boot": False, "secure_boot_scheme": ""}),
        (SECURE_BOOT + "CONFIG_SECURE_DISABLE_ROM_DL_MODE=y\n", {"download_lock": "download-off"}),
        (SECURE_BOOT + "CONFIG_SECURE_ENABLE_SECURE_ROM_DL_MODE=y\n", {"download_lock": "secure-download"}),
        (SECURE_BOOT + "CONFIG_SECURE_BOOT_ENABLE_AGGRESSIVE_KEY_REVOKE=y\n", {"aggressive_revoke": True}),
        (
            SECURE_BOOT + "CONFIG_SECURE_BOOT_ALLOW_UNUSED_DIGEST_SLOTS=y\n",
            {"allow_unused_digest_slots": True},
        ),
        (SECURE_BOOT + "CONFIG_SECURE_BOOT_V2_ALLOW_EFUSE_RD_DIS=y\n", {"allow_read_protect": True}),
    ],
)
def test_what_secure_boot_does_comes_from_the_sdkconfig(options, expected):
    config = BootloaderConfig.from_sdkconfig(SDKCONFIG + options)
    assert {name: getattr(config, name) for name in expected} == expected
    assert BootloaderConfig.from_blob(config.to_blob()) == config


@pytest.mark.parametrize(
    ("field", "value"), [("secure_boot_scheme", "rsa2048"), ("download_lock", "off"), ("secure_boot", 1)]
)
def test_a_value_of_secure_boot_that_no_build_has_is_refused(field, value):
    with pytest.raises(FormatError, match=field):
        replace(CONFIG, **{field: value})


def test_without_a_heading_the_initial_version_is_taken():
    text = SDKCONFIG.replace("Project Configuration", "")
    assert BootloaderConfig.from_sdkconfig(text).idf_version == "v5.4.0"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", "sdkconfig has no CONFIG_PARTITION_TABLE_OFFSET"),
        ("CONFIG_PARTITION_TABLE_OFFSET=0x8000", "sdkconfig has no CONFIG_BOOTLOADER_LOG_LEVEL"),
        ("CONFIG_PARTITION_TABLE_OFFSET=lots\n", "'lots', expected a number"),
        ("CONFIG_PARTITION_TABLE_OFFSET=0x8\nCONFIG_BOOTLOADER_LOG_LEVEL=3", "table_offset is 8"),
    ],
)
def test_an_sdkconfig_that_says_too_little_is_refused(text, names):
    with pytest.raises(FormatError, match=names):
        BootloaderConfig.from_sdkconfig(text)


@pytest.mark.parametrize("data", [b"", b"\x50" * 79, bytes(80), b"\xff" * 80])
def test_what_is_no_bootloader_description_is_refused(data):
    with pytest.raises(FormatError, match="bootloader description"):
        BootloaderDescription.from_bytes(data)


@pytest.mark.parametrize(
    "description",
    [
        BootloaderDescription("v" * 32, ""),
        BootloaderDescription("", "t" * 24),
        BootloaderDescription("", "", secure_version=256),
    ],
)
def test_a_bootloader_description_that_does_not_fit_is_refused(description):
    with pytest.raises(FormatError, match="bootloader description"):
        description.to_bytes()
