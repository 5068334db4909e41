"""Flash encryption against Espressif's own tool and against fixed vectors."""

from __future__ import annotations

import io

import espsecure
import pytest
from esptool.logger import log
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.chips import Cipher
from harness.errors import FormatError, LabError
from harness.formats import flash_encryption
from harness.formats.flash_encryption import decrypt, encrypt, pad_to_block

FEW = settings(max_examples=50, deadline=None)
COUNTING = bytes(range(64))


@pytest.fixture(autouse=True, scope="module")
def _quiet_vendor_tool():
    log.set_verbosity("silent")
    yield
    log.set_verbosity("auto")


def vendor(name: str, cipher: Cipher, key: bytes, address: int, data: bytes, config: int = 0xF) -> bytes:
    output = io.BytesIO()
    operation = getattr(espsecure, f"{name}_flash_data")
    operation(io.BytesIO(key), output, address, config, cipher is not Cipher.ESP32_AES, io.BytesIO(data))
    return output.getvalue()


@st.composite
def jobs(draw: st.DrawFn, cipher: Cipher) -> tuple[bytes, int, bytes]:
    size = cipher.key_size_bytes
    key = draw(st.binary(min_size=size, max_size=size).filter(lambda k: k[: size // 2] != k[size // 2 :]))
    data = draw(
        st.integers(1, 40).flatmap(lambda blocks: st.binary(min_size=16 * blocks, max_size=16 * blocks))
    )
    limit = (1 << 24 if cipher is Cipher.ESP32_AES else 1 << 28) - len(data)
    return key, draw(st.integers(0, limit // 16)) * 16, data


@pytest.mark.parametrize(
    ("cipher", "key", "address", "ciphertext"),
    [
        (Cipher.ESP32_AES, COUNTING[:32], 0x0, "099aabf1cf8489b47a272e2aeb089f6d" * 2),
        (Cipher.ESP32_AES, COUNTING[:32], 0x10000, "d35ee1abab03b955a6c2c2ea3c7737b6" * 2),
        (Cipher.ESP32_AES, COUNTING[:32], 0x10020, "ba17c8f108d4443cee3288b4daa00f02" * 2),
        (Cipher.ESP32_AES, COUNTING[:32], 0x110080, "9e929a6dbd8cf51e3253e56da1a64d8b" * 2),
        (Cipher.ESP32_AES, COUNTING[:24], 0x10000, "95f398e74b9664b8ac9065f508348fc2" * 2),
        (Cipher.ESP32_AES, bytes(32), 0x10000, "4f8c79437e9b0ceaebf376aaa197deca" * 2),
        (
            Cipher.XTS_AES_128,
            COUNTING[:32],
            0x0,
            "30d9a5515705841997179a01ef7e922d34100bcd989a775aeb684d599e4f0aaf",
        ),
        (
            Cipher.XTS_AES_128,
            COUNTING[:32],
            0x10000,
            "f046ac4b14b7d5de087cda76b4f04c4e82ecab550a32e72e11ee6bf7b83fe2ad",
        ),
        (
            Cipher.XTS_AES_128,
            COUNTING[:32],
            0x10020,
            "6a80eafce25725759a0228c69bb293892a154305e9ca006a1b6557f04be9507a",
        ),
        (
            Cipher.XTS_AES_128,
            COUNTING[:32],
            0x110080,
            "842f42bd9be71887978328ec2985e0cfaad8ec858846f45588cb352ab67f12e8",
        ),
        (
            Cipher.XTS_AES_128,
            b"\xff" + bytes(31),
            0x10000,
            "8ac872f3fa127c3603c69c247b33e6caf9c4c6306ef6e3ef6b7901124cf004c6",
        ),
        (
            Cipher.XTS_AES_256,
            COUNTING,
            0x10000,
            "8c228de624fcc16e0487b9d96d6f93e15246e078a82daebf69d4c9541fb72525",
        ),
        (
            Cipher.XTS_AES_256,
            COUNTING,
            0x10020,
            "f878f28496dcbc5cb01910fea078578644386e64e098b38dfd47d0f3f9cb283d",
        ),
    ],
)
def test_zeros_encipher_to_the_known_answer(cipher, key, address, ciphertext):
    assert encrypt(cipher, key, address, bytes(32)).hex() == ciphertext
    assert decrypt(cipher, key, address, bytes.fromhex(ciphertext)) == bytes(32)


@pytest.mark.parametrize("cipher", list(Cipher))
@given(data=st.data())
@FEW
def test_ciphertext_equals_espsecure(cipher, data):
    key, address, plaintext = data.draw(jobs(cipher))
    assert encrypt(cipher, key, address, plaintext) == vendor("encrypt", cipher, key, address, plaintext)


@pytest.mark.parametrize("cipher", list(Cipher))
@given(data=st.data())
@FEW
def test_plaintext_equals_espsecure(cipher, data):
    key, address, ciphertext = data.draw(jobs(cipher))
    assert decrypt(cipher, key, address, ciphertext) == vendor("decrypt", cipher, key, address, ciphertext)


@given(config=st.integers(0, 15), data=st.data())
@settings(max_examples=60, deadline=None)
def test_every_flash_crypt_config_equals_espsecure(config, data):
    key, address, plaintext = data.draw(jobs(Cipher.ESP32_AES))
    expected = vendor("encrypt", Cipher.ESP32_AES, key, address, plaintext, config)
    assert encrypt(Cipher.ESP32_AES, key, address, plaintext, flash_crypt_config=config) == expected
    assert decrypt(Cipher.ESP32_AES, key, address, expected, flash_crypt_config=config) == plaintext


@pytest.mark.parametrize("cipher", list(Cipher))
@pytest.mark.parametrize("address", [0x1FF0, 0x20000, 0xFCFFF0])
def test_an_image_larger_than_one_pass_equals_espsecure(cipher, address):
    # 130 KiB and a bit: three passes of the XTS code, the last one short, starting inside a unit.
    key, plaintext = COUNTING[: cipher.key_size_bytes], bytes(range(256)) * 520 + bytes(48)
    expected = vendor("encrypt", cipher, key, address, plaintext)
    assert encrypt(cipher, key, address, plaintext) == expected
    assert decrypt(cipher, key, address, expected) == plaintext


@pytest.mark.parametrize("cipher", list(Cipher))
@given(data=st.data(), cut=st.integers(0, 40))
@FEW
def test_enciphering_in_pieces_equals_enciphering_at_once(cipher, data, cut):
    key, address, plaintext = data.draw(jobs(cipher))
    at = min(cut * 16, len(plaintext))
    pieces = encrypt(cipher, key, address, plaintext[:at]) + encrypt(
        cipher, key, address + at, plaintext[at:]
    )
    assert pieces == encrypt(cipher, key, address, plaintext)


@given(st.binary(max_size=100), st.sampled_from([16, 32, 4096]))
@example(b"", 16)
@example(bytes(16), 16)
@settings(max_examples=40, deadline=None)
def test_padding_is_0xff_and_never_a_whole_block(data, block):
    padded = pad_to_block(data, block)
    assert len(padded) % block == 0
    assert len(padded) - len(data) < block
    assert padded.startswith(data)
    assert set(padded[len(data) :]) <= {0xFF}


def test_nothing_enciphers_to_nothing():
    for cipher in Cipher:
        assert encrypt(cipher, COUNTING[: cipher.key_size_bytes], 0x10000, b"") == b""


@pytest.mark.parametrize(
    ("cipher", "key", "address", "data", "names"),
    [
        (Cipher.XTS_AES_128, COUNTING[:32], 0x10008, bytes(16), "address 0x10008"),
        (Cipher.XTS_AES_128, COUNTING[:32], 0x10000, bytes(17), "length 17"),
        (Cipher.XTS_AES_128, COUNTING[:16], 0x10000, bytes(16), "16 bytes, xts-aes-128 takes 32"),
        (Cipher.XTS_AES_128, COUNTING, 0x10000, bytes(16), "64 bytes, xts-aes-128 takes 32"),
        (Cipher.XTS_AES_256, COUNTING[:32], 0x10000, bytes(16), "32 bytes, xts-aes-256 takes 64"),
        (Cipher.XTS_AES_128, bytes(32), 0x10000, bytes(16), "two equal halves"),
        (Cipher.XTS_AES_128, COUNTING[:32], 0xFFFFFFF0, bytes(32), "outside 0..0x100000000"),
        (Cipher.ESP32_AES, COUNTING[:16], 0x10000, bytes(16), "16 bytes, ESP32 takes 32"),
        (Cipher.ESP32_AES, COUNTING[:32], 0xFFFFF0, bytes(32), "outside 0..0x1000000"),
        (Cipher.ESP32_AES, COUNTING[:32], -16, bytes(16), "outside"),
    ],
)
def test_what_cannot_be_enciphered_is_refused_by_name_and_without_the_key(cipher, key, address, data, names):
    for operation in (encrypt, decrypt):
        with pytest.raises(FormatError) as caught:
            operation(cipher, key, address, data)
        assert names in str(caught.value)
        assert caught.value.todo
        assert key.hex() not in str(caught.value)


def test_flash_crypt_config_has_four_bits():
    with pytest.raises(FormatError, match="FLASH_CRYPT_CONFIG 0x10"):
        encrypt(Cipher.ESP32_AES, COUNTING[:32], 0, bytes(16), flash_crypt_config=0x10)


def test_a_cryptography_package_that_keeps_the_first_key_is_noticed(monkeypatch):
    genuine = flash_encryption.BlockCipher

    def with_a_copy_of_the_key(algorithm, mode):
        return genuine(type(algorithm)(bytes(algorithm.key)), mode)

    monkeypatch.setattr(flash_encryption, "BlockCipher", with_a_copy_of_the_key)
    with pytest.raises(LabError, match="ignores a change of key"):
        encrypt(Cipher.ESP32_AES, COUNTING[:32], 0x10000, bytes(64))
