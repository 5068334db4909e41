"""The twin's cipher engine: espsecure's vectors, the key's place and order in the eFuses, the cache."""

from __future__ import annotations

from dataclasses import dataclass, field

import espsecure
import pytest

from harness.chips import CHIPS, Chip, Cipher
from harness.formats import flash_encryption
from harness.twin.cipher import FlashCipher

COUNTING_KEY = bytes(range(32))


def counting_key(name: str) -> bytes:
    """A key file of the chip's length: 00 01 02 and so on."""
    return bytes(range(CHIPS[name].cipher.key_size_bytes))


@dataclass
class FakeFuses:
    chip: Chip
    fields: dict[str, int] = field(default_factory=dict)
    blocks: dict[str, bytes] = field(default_factory=dict)

    def field(self, name: str) -> int:
        return self.fields.get(name, 0)

    def block_for_hardware(self, name: str) -> bytes:
        return self.blocks.get(name, bytes(32))

    def read_protected(self, block: str) -> bool:
        return True

    def write_protected(self, name: str) -> bool:
        return True


class FakeFlash:
    size_bytes = 1 << 20

    def __init__(self) -> None:
        self.data = bytearray(b"\xff" * self.size_bytes)
        self.programmed: list[tuple[int, int, str, str]] = []

    def read(self, addr: int, size: int, *, who: str = "") -> bytes:
        return bytes(self.data[addr : addr + size])

    def program(self, addr: int, data: bytes, *, who: str, kind: str = "write") -> None:
        self.programmed.append((addr, len(data), kind, who))
        self.data[addr : addr + len(data)] = data

    def erase(self, addr: int, size: int, *, who: str) -> None:
        self.data[addr : addr + size] = b"\xff" * size


def engine(
    name: str, *, key: bytes | None = None, on: bool = True
) -> tuple[FlashCipher, FakeFlash, FakeFuses]:
    chip = CHIPS[name]
    key = counting_key(name) if key is None else key
    fuses = FakeFuses(chip, {chip.fuses.counter: int(on)})
    if name == "esp32":
        fuses.fields["FLASH_CRYPT_CONFIG"] = 0xF
        fuses.blocks["BLOCK1"] = key[::-1]
    elif chip.cipher is Cipher.XTS_AES_128_DERIVED:
        # The other half of the block is somebody else's: the digest of secure boot.
        fuses.blocks["BLOCK_KEY0"] = key[::-1] + b"\x5a" * 16
    elif chip.cipher is Cipher.XTS_AES_256:
        # The second half lies in the lower block: purposes tell them apart, not places.
        fuses.fields |= {"KEY_PURPOSE_3": 2, "KEY_PURPOSE_1": 3}
        fuses.blocks |= {"BLOCK_KEY3": key[:32][::-1], "BLOCK_KEY1": key[32:][::-1]}
    else:
        fuses.fields["KEY_PURPOSE_3"] = 4
        fuses.blocks["BLOCK_KEY3"] = key[::-1]
    flash = FakeFlash()
    return FlashCipher(chip, flash, fuses), flash, fuses


# 32 zero bytes under the key 00 01 … 1f, from espsecure's own command line.
VECTORS = [
    ("esp32", 0x0, "099aabf1cf8489b47a272e2aeb089f6d" * 2),
    ("esp32", 0x10000, "d35ee1abab03b955a6c2c2ea3c7737b6" * 2),
    ("esp32", 0x10020, "ba17c8f108d4443cee3288b4daa00f02" * 2),
    ("esp32", 0x110080, "9e929a6dbd8cf51e3253e56da1a64d8b" * 2),
    ("esp32c3", 0x0, "30d9a5515705841997179a01ef7e922d34100bcd989a775aeb684d599e4f0aaf"),
    ("esp32c3", 0x10000, "f046ac4b14b7d5de087cda76b4f04c4e82ecab550a32e72e11ee6bf7b83fe2ad"),
    ("esp32c3", 0x10020, "6a80eafce25725759a0228c69bb293892a154305e9ca006a1b6557f04be9507a"),
    ("esp32c3", 0x110080, "842f42bd9be71887978328ec2985e0cfaad8ec858846f45588cb352ab67f12e8"),
    ("esp32s3", 0x10000, "8c228de624fcc16e0487b9d96d6f93e15246e078a82daebf69d4c9541fb72525"),
    ("esp32p4", 0x10020, "f878f28496dcbc5cb01910fea078578644386e64e098b38dfd47d0f3f9cb283d"),
]


@pytest.mark.parametrize(("name", "address", "ciphertext"), VECTORS)
def test_known_answers(name: str, address: int, ciphertext: str) -> None:
    cipher, _, _ = engine(name)
    assert cipher.encipher(address, bytes(32)).hex() == ciphertext


def test_esp32s3_with_a_128_bit_key_uses_that() -> None:
    cipher, _, fuses = engine("esp32s3")
    fuses.fields = {"SPI_BOOT_CRYPT_CNT": 1, "KEY_PURPOSE_3": 4}
    fuses.blocks = {"BLOCK_KEY3": COUNTING_KEY[::-1]}
    assert cipher.encipher(0x10000, bytes(32)).hex() == VECTORS[5][2]


def test_half_a_256_bit_key_enciphers_to_something_else() -> None:
    cipher, _, fuses = engine("esp32s3")
    whole = cipher.encipher(0x10000, bytes(32))
    del fuses.fields["KEY_PURPOSE_1"]
    assert cipher.encipher(0x10000, bytes(32)) != whole


def test_esp32c2_with_the_length_fuse_uses_the_whole_block() -> None:
    cipher, _, fuses = engine("esp32c2")
    fuses.fields["XTS_KEY_LENGTH_256"] = 1
    fuses.blocks["BLOCK_KEY0"] = COUNTING_KEY[::-1]
    assert cipher.encipher(0x10000, bytes(32)).hex() == VECTORS[5][2]


@pytest.mark.parametrize("name", sorted(CHIPS))
@pytest.mark.parametrize(
    ("address", "size"), [(0x10000, 4096), (0x10010, 16), (0x2FF0, 0x30), (0x12340, 0x2150)]
)
def test_the_engine_and_the_hosts_own_code_agree(name: str, address: int, size: int) -> None:
    cipher, flash, _ = engine(name)
    text = bytes(i * 7 & 0xFF for i in range(size))
    chip = CHIPS[name]
    cipher.write_enciphered(address, text, who="app")
    assert flash.programmed == [(address, size, "write-encrypted", "app")]
    assert flash.data[address : address + size] == flash_encryption.encrypt(
        chip.cipher, counting_key(name), address, text
    )
    assert cipher.read(address, size) == text
    assert cipher.read(address + 3, size - 5) == text[3:-2]


@pytest.mark.parametrize("name", sorted(CHIPS))
def test_reads_are_raw_while_the_counter_is_even_but_writes_are_enciphered(name: str) -> None:
    cipher, flash, _ = engine(name, on=False)
    cipher.write_enciphered(0x1000, bytes(16), who="app")
    assert flash.data[0x1000:0x1010] != bytes(16)
    assert cipher.read(0x1000, 16) == flash.data[0x1000:0x1010]


@pytest.mark.parametrize(
    ("name", "counter", "enabled"),
    [
        ("esp32", 0, False),
        ("esp32", 1, True),
        ("esp32", 3, False),
        ("esp32", 0x40, True),
        ("esp32", 0x7F, True),
        ("esp32c3", 0, False),
        ("esp32c3", 1, True),
        ("esp32c3", 3, False),
        ("esp32c3", 7, True),
    ],
)
def test_an_odd_number_of_ones_enables(name: str, counter: int, enabled: bool) -> None:
    cipher, _, fuses = engine(name)
    fuses.fields[CHIPS[name].fuses.counter] = counter
    assert cipher.enabled is enabled


@pytest.mark.parametrize("size", [8, 17])
def test_a_write_in_odd_units_is_a_programming_error(size: int) -> None:
    cipher, flash, _ = engine("esp32c3")
    with pytest.raises(ValueError, match="units of 16"):
        cipher.write_enciphered(0x1000, bytes(size), who="app")
    with pytest.raises(ValueError, match="units of 16"):
        cipher.write_enciphered(0x1008, bytes(16), who="app")
    assert flash.programmed == []


def test_the_crypt_config_is_honoured_on_esp32() -> None:
    cipher, _, fuses = engine("esp32")
    full = cipher.encipher(0x10000, bytes(16))
    fuses.fields["FLASH_CRYPT_CONFIG"] = 0
    assert cipher.encipher(0x10000, bytes(16)) == cipher.encipher(0x20000, bytes(16)) != full


def test_the_key_is_looked_for_by_purpose_on_the_c3() -> None:
    cipher, _, fuses = engine("esp32c3")
    before = cipher.encipher(0, bytes(16))
    fuses.fields["KEY_PURPOSE_1"] = 4
    fuses.blocks["BLOCK_KEY1"] = bytes(range(1, 33))
    assert cipher.encipher(0, bytes(16)) != before


@pytest.mark.parametrize("name", sorted(CHIPS))
def test_a_chip_without_key_reads_noise(name: str) -> None:
    cipher, _, fuses = engine(name)
    fuses.blocks.clear()
    fuses.fields.pop("KEY_PURPOSE_3", None)
    assert cipher.read(0x1000, 64) != b"\xff" * 64


def test_a_sector_is_deciphered_once_until_something_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    cipher, flash, fuses = engine("esp32c3")
    count = 0
    real = espsecure.decrypt_flash_data

    def counted(*args: object) -> None:
        nonlocal count
        count += 1
        real(*args)

    monkeypatch.setattr(espsecure, "decrypt_flash_data", counted)
    first = cipher.read(0x1000, 0x2000)
    assert count == 2
    assert cipher.read(0x1800, 0x1000) == first[0x800:0x1800]
    assert count == 2
    flash.data[0x2004] = 0
    cipher.read(0x1000, 0x2000)
    assert count == 3
    fuses.blocks["BLOCK_KEY3"] = bytes(range(1, 33))
    assert cipher.read(0x1000, 0x2000) != first
    assert count == 5


def test_addresses_behind_the_flash_wrap() -> None:
    cipher, flash, _ = engine("esp32c3", on=False)
    flash.data[:4] = b"head"
    flash.data[-4:] = b"tail"
    assert cipher.read(flash.size_bytes - 4, 8) == b"tailhead"
    assert cipher.read(flash.size_bytes * 3, 4) == b"head"


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    engine("esp32")[0].encipher(0, bytes(16))
    engine("esp32c3")[0].encipher(0, bytes(16))
    assert capfd.readouterr() == ("", "")


def test_no_key_shows_in_the_engines_state() -> None:
    cipher, _, _ = engine("esp32c3")
    cipher.read(0, 16)
    shown = repr(vars(cipher))
    assert repr(COUNTING_KEY)[2:-1] not in shown
    assert repr(COUNTING_KEY[::-1])[2:-1] not in shown.replace(repr(cipher._efuses), "")
