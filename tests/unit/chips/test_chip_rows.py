"""Every chip row against what the installed esptool and espefuse say of that chip, name by name."""

from __future__ import annotations

import importlib
from pathlib import Path

import esptool.targets
import pytest
from esptool.targets import CHIP_DEFS

from harness.chips import CHIPS, KEY_PURPOSE_NUMBERS, Chip, Cipher, SigningScheme, chip_named, chip_with_id
from harness.chips.efuses import efuse_geometry
from harness.errors import UsageError

ALL = [pytest.param(chip, id=chip.name) for chip in CHIPS.values()]
WITH_PURPOSES = [pytest.param(chip, id=chip.name) for chip in CHIPS.values() if chip.fuses.key_purpose]


def rom_of(chip: Chip):
    return CHIP_DEFS[chip.name]


def purposes_of(chip: Chip) -> dict[str, tuple]:
    fields = importlib.import_module(f"espefuse.efuse.{chip.name}.fields")
    return {row[0]: row for row in fields.EfuseKeyPurposeField.KEY_PURPOSES}


def named_fuses(chip: Chip) -> set[str]:
    """Every eFuse field that a row names anywhere."""
    fuses, boot = chip.fuses, chip.secure_boot
    named = {fuses.counter, fuses.manual_encrypt_disable, fuses.download_off, boot.enable, boot.write_protect}
    named |= {*fuses.release, *boot.revoke, *boot.also_write_protect}
    named |= {name for name, _ in (*fuses.key_config, *boot.burned_with)}
    optional = (
        fuses.key_purpose_field,
        fuses.release_write_protect,
        fuses.secure_download,
        fuses.key_part,
        boot.aggressive_revoke,
        boot.sha384_enable,
        boot.curve_mode,
        boot.digest_part,
    )
    return named | {name for name in optional if name is not None}


def test_the_nine_chips_that_are_shipped_with_flash_encryption_have_a_row():
    assert set(CHIPS) == {
        "esp32",
        "esp32s2",
        "esp32s3",
        "esp32c2",
        "esp32c3",
        "esp32c5",
        "esp32c6",
        "esp32h2",
        "esp32p4",
    }
    assert all((Path(esptool.targets.__file__).parent / f"{name}.py").exists() for name in CHIPS)


@pytest.mark.parametrize("chip", ALL)
class TestAgainstEsptool:
    def test_identity_and_layout(self, chip):
        rom = rom_of(chip)
        assert chip.title == rom.CHIP_NAME
        assert chip.chip_id == rom.IMAGE_CHIP_ID
        assert chip.bootloader_offset == rom.BOOTLOADER_FLASH_OFFSET
        assert chip.encrypted_write_align_bytes == rom.FLASH_ENCRYPTED_WRITE_ALIGN
        assert chip.usb_serial_jtag == rom.USB_SERIAL_JTAG_SUPPORTED
        assert chip.has_security_info == rom.SECURITY_INFO_SUPPORTED

    def test_addresses_lie_where_its_memory_map_has_them(self, chip):
        ram = [
            # esptool's map of ESP32-P4 ends where the memory of revisions below 3.0 does (ESP-IDF's soc.h).
            (first, 0x4FFC0000 if chip.name == "esp32p4" else end)
            for first, end, kind in rom_of(chip).MEMORY_MAP
            if kind in ("DRAM", "BYTE_ACCESSIBLE", "IRAM")
        ]
        assert any(first <= chip.bootloader_load_address < end for first, end in ram)
        starts = [first for first, _, kind in rom_of(chip).MEMORY_MAP if kind in ("DROM", "IROM")]
        assert chip.drom_base in starts

    def test_the_counter_lies_where_esptool_looks(self, chip):
        rom, geometry = rom_of(chip), efuse_geometry(chip.name)
        counter = geometry.field(chip.fuses.counter)
        if chip.name == "esp32":
            place, mask = rom.EFUSE_RD_REG_BASE, 0x7F << 20
        else:
            place, mask = rom.EFUSE_SPI_BOOT_CRYPT_CNT_REG, rom.EFUSE_SPI_BOOT_CRYPT_CNT_MASK
        word = geometry.base + geometry.block(0).read_offset + counter.bit // 32 * 4
        assert (word, ((1 << counter.bits) - 1) << counter.bit % 32) == (place, mask)
        assert counter.bits == chip.fuses.counter_bits

    def test_secure_boot_and_manual_encryption_lie_where_esptool_looks(self, chip):
        rom, geometry = rom_of(chip), efuse_geometry(chip.name)

        def place(name: str) -> tuple[int, int]:
            row = geometry.field(name)
            return geometry.base + geometry.block(0).read_offset + row.bit // 32 * 4, row.mask >> (
                row.bit & ~31
            )

        enable = place(chip.secure_boot.enable)
        if chip.name == "esp32":
            assert enable == (rom.EFUSE_RD_ABS_DONE_REG, rom.EFUSE_RD_ABS_DONE_1_MASK)
        else:
            assert enable == (rom.EFUSE_SECURE_BOOT_EN_REG, rom.EFUSE_SECURE_BOOT_EN_MASK)
            assert place(chip.fuses.manual_encrypt_disable) == (
                rom.EFUSE_DIS_DOWNLOAD_MANUAL_ENCRYPT_REG,
                rom.EFUSE_DIS_DOWNLOAD_MANUAL_ENCRYPT,
            )

    def test_flash_key_purposes_have_the_numbers_that_esptool_looks_for(self, chip):
        for purpose in chip.fuses.key_purposes:
            number = purposes_of(chip)[purpose][1]
            assert number == KEY_PURPOSE_NUMBERS[purpose]
            assert number == getattr(rom_of(chip), "PURPOSE_VAL_" + purpose.replace("AES_", "AES"))
            assert rom_of(chip).KEY_PURPOSES[number] == purpose


@pytest.mark.parametrize("chip", ALL)
class TestAgainstEspefuse:
    def test_every_fuse_that_the_row_names_is_there(self, chip):
        geometry = efuse_geometry(chip.name)
        assert not {name for name in named_fuses(chip) if not geometry.has_field(name)}

    def test_every_block_that_the_row_names_is_there(self, chip):
        geometry, fuses, boot = efuse_geometry(chip.name), chip.fuses, chip.secure_boot
        named = {fuses.key_block, fuses.key_storage_block, *chip.key_blocks_without_flash_keys}
        assert all(geometry.has_block(name) for name in named | ({boot.digest_block} - {None}))

    def test_values_fit_their_fields(self, chip):
        geometry = efuse_geometry(chip.name)
        for name, value in (*chip.fuses.key_config, *chip.secure_boot.burned_with):
            assert value == (1 << geometry.field(name).bits) - 1, name
        widths = {name: geometry.field(name).bits for name in chip.fuses.release}
        assert {name for name, bits in widths.items() if bits != 1} <= {"XTS_DPA_PSEUDO_LEVEL"}

    def test_what_is_write_protected_can_be(self, chip):
        geometry, boot = efuse_geometry(chip.name), chip.secure_boot
        guards = {chip.fuses.release_write_protect, boot.write_protect, *boot.also_write_protect} - {None}
        assert all(geometry.field(guard).write_disable is not None for guard in guards)

    def test_keys_and_digests_fit_where_they_go(self, chip):
        geometry, fuses, boot = efuse_geometry(chip.name), chip.fuses, chip.secure_boot
        where = geometry.field(fuses.key_part).bits if fuses.key_part else 256
        assert chip.cipher.key_size_bytes * 8 == where * max(1, len(fuses.key_purposes))
        assert boot.digest_size_bytes * 8 == (
            geometry.field(boot.digest_part).bits if boot.digest_part else 256
        )


@pytest.mark.parametrize("chip", WITH_PURPOSES)
class TestPurposes:
    def test_flash_keys_are_reversed_and_hidden(self, chip):
        known = purposes_of(chip)
        for purpose in chip.fuses.key_purposes or (chip.fuses.key_purpose,):
            _, _, _, reverse, protection = known[purpose]
            assert (reverse, protection) == ("Reverse", "need_rd_protect")

    def test_what_burn_key_is_told_stands_for_what_the_fields_say_afterwards(self, chip):
        number, kind = purposes_of(chip)[chip.fuses.key_purpose][1:3]
        if len(chip.fuses.key_purposes) == 2:
            assert (number, kind) == (-1, "VIRTUAL")
            assert chip.cipher is Cipher.XTS_AES_256
            assert [f"{chip.fuses.key_purpose}_{half}" for half in (1, 2)] == list(chip.fuses.key_purposes)
        elif chip.fuses.key_purposes:
            assert chip.fuses.key_purposes == (chip.fuses.key_purpose,)
        else:
            assert chip.fuses.key_purpose_field is None

    def test_digests_stay_as_they_are_and_readable(self, chip):
        known = purposes_of(chip)
        for purpose in chip.secure_boot.digest_purposes:
            assert known[purpose][2:] == ("DIGEST", None, "no_need_rd_protect")
            if chip.fuses.key_purposes:
                assert known[purpose][1] == KEY_PURPOSE_NUMBERS[purpose]
        assert len(chip.secure_boot.digest_purposes) == max(1, len(chip.secure_boot.revoke))

    def test_blocks_with_the_hardware_fault_are_those_that_espefuse_refuses(self, chip):
        save = importlib.import_module(f"espefuse.efuse.{chip.name}.fields").EfuseKeyPurposeField.save
        refuses = "KEY_PURPOSE_5" in save.__code__.co_consts
        assert chip.key_blocks_without_flash_keys == (frozenset({"BLOCK_KEY5"}) if refuses else frozenset())


def test_only_c3_and_newer_lose_the_stub_to_secure_boot():
    kept = {name for name, chip in CHIPS.items() if chip.stub_with_secure_boot}
    assert kept == {"esp32", "esp32s2", "esp32s3"}


def test_the_first_scheme_is_rsa_wherever_the_rom_has_rsa():
    for chip in CHIPS.values():
        schemes = chip.secure_boot.schemes
        assert schemes[0] is (
            SigningScheme.RSA_3072 if SigningScheme.RSA_3072 in schemes else SigningScheme.ECDSA_P256
        )
        assert (SigningScheme.ECDSA_P384 in schemes) == (chip.secure_boot.sha384_enable is not None)


def test_cipher_numbers_of_package_headers_never_change():
    assert {cipher.value: cipher.number for cipher in Cipher} == {
        "esp32-aes": 1,
        "xts-aes-128": 2,
        "xts-aes-256": 3,
        "xts-aes-128-derived": 4,
    }


@pytest.mark.parametrize("name", ["esp32-s3", "ESP32-S3", "esp32s3"])
def test_a_chip_is_found_as_people_write_it(name):
    assert chip_named(name).name == "esp32s3"


def test_an_unknown_chip_is_refused_with_those_there_are():
    with pytest.raises(UsageError, match="esp8266") as refusal:
        chip_named("esp8266")
    assert "esp32c5" in str(refusal.value.todo)
    assert chip_with_id(0x1234) is None
