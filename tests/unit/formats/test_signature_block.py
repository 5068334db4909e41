"""Signature blocks against espsecure, byte for byte, and against signatures that OpenSSL made by hand."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import subprocess

import espsecure
import esptool.logger
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from signed_samples import image, pem_of, private_key, public_pem_of, signed_by_espsecure

from harness.chips import SigningScheme
from harness.errors import FormatError
from harness.formats.signature_block import (
    BLOCK_BYTES,
    SECTOR_BYTES,
    SignatureBlock,
    blocks_of,
    encode_public_key,
    key_digest,
    make_block,
    make_sector,
    read_public_key,
    regions,
    scheme_of,
    signature_blocks,
    signed_length,
    unsigned_length,
    verify,
    with_crc,
)

SCHEMES = tuple(SigningScheme)
every_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.value)


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> dict[SigningScheme, bytes]:
    folder = tmp_path_factory.mktemp("signed")
    return {scheme: signed_by_espsecure(folder, image(), private_key(scheme)) for scheme in SCHEMES}


def content_of(data: bytes) -> bytes:
    return data[:-SECTOR_BYTES]


@every_scheme
def test_what_espsecure_signed_is_read_and_verifies(signed, scheme):
    (block,) = verify(signed[scheme])
    assert block.index == 0
    assert block.scheme is scheme
    assert block.crc_ok
    assert block.key_digest == key_digest(private_key(scheme).public_key())
    assert block.key.public_numbers() == private_key(scheme).public_key().public_numbers()


@every_scheme
def test_the_digest_of_a_key_is_the_one_that_espsecure_burns(scheme, tmp_path):
    key = private_key(scheme)
    for pem in (pem_of(key), public_pem_of(key)):
        file = io.BytesIO(pem)
        file.name = "key.pem"
        espsecure.digest_sbv2_public_key(file, str(tmp_path / "digest.bin"))
        assert key_digest(read_public_key(pem)) == (tmp_path / "digest.bin").read_bytes()


@every_scheme
def test_espsecure_reports_the_same_digest_of_a_signed_image(signed, scheme, capsys, monkeypatch):
    # In the same process a twin's cipher may have made espsecure quiet.
    monkeypatch.setattr(espsecure, "log", esptool.logger.log)
    espsecure.signature_info_v2(io.BytesIO(signed[scheme]))
    said = re.search(r"block 0: ((?:[0-9a-f]{2}\s+){32})", capsys.readouterr().out + " ")
    assert said is not None
    assert bytes.fromhex(said.group(1)) == blocks_of(signed[scheme])[0].key_digest


@every_scheme
def test_a_block_made_here_is_byte_for_byte_espsecures(signed, scheme):
    sector = signed[scheme][-SECTOR_BYTES:]
    block = sector[:BLOCK_BYTES]
    raw = regions(scheme)["signature"].of(block)
    made = make_block(
        private_key(scheme).public_key(), content_of(signed[scheme]), as_library_signs(scheme, raw)
    )
    assert made == block
    assert make_sector([made]) == sector


def as_library_signs(scheme: SigningScheme, raw: bytes) -> bytes:
    """The signature of a block in the form in which libraries and tokens give it."""
    if scheme.is_rsa:
        return raw[::-1]
    size = {SigningScheme.ECDSA_P192: 24, SigningScheme.ECDSA_P256: 32, SigningScheme.ECDSA_P384: 48}[scheme]
    r, s = raw[:size], raw[size : 2 * size]
    return encode_dss_signature(int.from_bytes(r, "little"), int.from_bytes(s, "little"))


OPENSSL_KEYS = {
    SigningScheme.RSA_3072: ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"],
    SigningScheme.ECDSA_P192: ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime192v1"],
    SigningScheme.ECDSA_P256: ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    SigningScheme.ECDSA_P384: ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl here")
@every_scheme
def test_a_signature_that_the_openssl_command_made_is_accepted(scheme, tmp_path):
    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=tmp_path)

    openssl("genpkey", *OPENSSL_KEYS[scheme], "-out", "key.pem")
    content = image()
    content += b"\xff" * (-len(content) % SECTOR_BYTES)
    (tmp_path / "content.bin").write_bytes(content)
    pss = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:32"] if scheme.is_rsa else []
    sha = "-sha384" if scheme is SigningScheme.ECDSA_P384 else "-sha256"
    openssl("dgst", sha, *pss, "-sign", "key.pem", "-out", "signature.bin", "content.bin")
    public = read_public_key((tmp_path / "key.pem").read_bytes())
    whole = content + make_sector([make_block(public, content, (tmp_path / "signature.bin").read_bytes())])
    assert [block.fault(content) for block in blocks_of(whole)] == [None]
    # espsecure says the same of what we made.
    espsecure.verify_signature(
        "2", False, None, io.BytesIO((tmp_path / "key.pem").read_bytes()), io.BytesIO(whole)
    )


def test_three_signatures_are_three_blocks_in_their_order(tmp_path):
    keys = [private_key(SigningScheme.ECDSA_P256, number) for number in range(3)]
    found = verify(signed_by_espsecure(tmp_path, image(), *keys))
    assert [block.index for block in found] == [0, 1, 2]
    assert [block.key_digest for block in found] == [key_digest(key.public_key()) for key in keys]


def test_a_damaged_first_block_does_not_hide_the_second(tmp_path):
    keys = [private_key(SigningScheme.ECDSA_P256, number) for number in range(2)]
    data = bytearray(signed_by_espsecure(tmp_path, image(), *keys))
    data[len(data) - SECTOR_BYTES] ^= 1
    assert [block.index for block in verify(bytes(data))] == [1]


def test_an_unsigned_image_has_no_blocks(signed):
    plain = image()
    assert blocks_of(plain) == ()
    assert verify(plain) == ()
    assert unsigned_length(plain) == 0x2000
    assert signed_length(plain) == len(signed[SigningScheme.RSA_3072]) == 0x3000
    assert blocks_of(plain.ljust(0x3000, b"\xff")) == ()


def test_what_follows_a_signed_image_does_not_matter(signed):
    assert len(verify(signed[SigningScheme.RSA_3072] + b"\x55" * 8192)) == 1


FAULTS = [
    ("image digest", "another content"),
    ("public key", "its public key is no|does not verify"),
    ("signature", "does not verify"),
]


@every_scheme
@pytest.mark.parametrize(("region", "why"), FAULTS, ids=[name for name, _ in FAULTS])
def test_each_damaged_field_is_named_when_the_crc_was_made_to_fit(signed, scheme, region, why):
    data = signed[scheme]
    place = regions(scheme)[region]
    block = bytearray(data[-SECTOR_BYTES:][:BLOCK_BYTES])
    block[place.offset + 1] ^= 1
    (found,) = signature_blocks(with_crc(bytes(block)).ljust(SECTOR_BYTES, b"\xff"))
    assert re.search(why, found.fault(content_of(data)) or "")


@every_scheme
def test_a_flipped_bit_in_the_crc_is_named(signed, scheme):
    data = bytearray(signed[scheme])
    data[len(data) - SECTOR_BYTES + regions(scheme)["crc"].offset] ^= 1
    (found,) = blocks_of(bytes(data))
    assert "CRC" in (found.fault(content_of(bytes(data))) or "")


@every_scheme
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bit=st.integers(0, BLOCK_BYTES * 8 - 1))
def test_no_single_bit_of_a_block_can_change_but_in_its_padding(signed, scheme, bit):
    data = bytearray(signed[scheme])
    data[len(data) - SECTOR_BYTES + bit // 8] ^= 1 << bit % 8
    padding = regions(scheme)["padding"]
    assert bool(verify(bytes(data))) == (bit // 8 >= padding.offset)


def test_an_image_that_changed_after_signing_does_not_verify(signed):
    data = bytearray(signed[SigningScheme.ECDSA_P256])
    # In the filling behind the SHA-256: nothing but the signature sees it.
    data[unsigned_length(bytes(data)) - 1] ^= 1
    assert verify(bytes(data)) == ()


@every_scheme
@settings(max_examples=30, deadline=None)
@given(junk=st.binary(min_size=BLOCK_BYTES, max_size=BLOCK_BYTES))
def test_any_bytes_after_a_right_beginning_are_a_block_that_is_at_fault(scheme, junk):
    key = regions(scheme)["public key"]
    head = make_block(private_key(scheme).public_key(), b"", some_signature(scheme))[: key.offset + 1]
    sector = with_crc(head + junk[len(head) :]).ljust(SECTOR_BYTES, b"\xff")
    (found,) = signature_blocks(sector)
    assert isinstance(found, SignatureBlock)
    assert found.fault(b"") is not None


def some_signature(scheme: SigningScheme) -> bytes:
    return bytes(384) if scheme.is_rsa else encode_dss_signature(1, 1)


def test_a_sector_that_is_too_short_is_refused():
    with pytest.raises(FormatError, match="signature sector has 100 bytes"):
        signature_blocks(bytes(100))


def test_a_sector_takes_one_to_three_blocks():
    for blocks in ([], [bytes(BLOCK_BYTES)] * 4, [bytes(5)]):
        with pytest.raises(FormatError, match="1 to 3 blocks"):
            make_sector(blocks)


WRONG_KEYS = [
    (rsa.generate_private_key(65537, 2048), "RSA with 2048 bits"),
    (ec.derive_private_key(5, ec.SECP521R1()), "secp521r1"),
]


@pytest.mark.parametrize(("key", "said"), WRONG_KEYS, ids=[said for _, said in WRONG_KEYS])
def test_keys_that_secure_boot_does_not_know_are_refused(key, said):
    for act in (lambda: scheme_of(key.public_key()), lambda: read_public_key(pem_of(key), name="x.pem")):
        with pytest.raises(FormatError, match=said):
            act()


def test_what_is_no_key_is_refused_without_a_word_of_it():
    encrypted = private_key(SigningScheme.ECDSA_P256).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret words"),
    )
    edwards = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    begin = b"-----BEGIN PRIVATE KEY-----\n"
    for pem, said in (
        (encrypted, "enciphered with a passphrase"),
        (edwards, "Ed25519"),
        (begin + b"c2VjcmV0\n-----END PRIVATE KEY-----\n", "no key in PEM form"),
        (b"rubbish", "no key in PEM form"),
    ):
        with pytest.raises(FormatError, match=said) as caught:
            read_public_key(pem, name="x.pem")
        assert "x.pem" in str(caught.value)
        assert "c2Vj" not in str(caught.value)


def test_a_signature_of_the_wrong_form_is_refused():
    with pytest.raises(FormatError, match="384 bytes"):
        make_block(private_key(SigningScheme.RSA_3072).public_key(), b"", bytes(10))
    with pytest.raises(FormatError, match="DER"):
        make_block(private_key(SigningScheme.ECDSA_P256).public_key(), b"", bytes(64))
    too_large = encode_dss_signature(1 << 300, 1)
    with pytest.raises(FormatError, match="DER"):
        make_block(private_key(SigningScheme.ECDSA_P256).public_key(), b"", too_large)


@every_scheme
def test_a_key_in_a_block_has_the_length_that_is_hashed(scheme):
    data = encode_public_key(private_key(scheme).public_key())
    assert len(data) == regions(scheme)["public key"].size
    assert hashlib.sha256(data).digest() == key_digest(private_key(scheme).public_key())
