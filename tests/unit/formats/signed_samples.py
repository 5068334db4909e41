"""Images and keys of secure boot, and what espsecure makes of them. The keys are of no device."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path

import espsecure
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from harness.chips import ESP32C3, SigningScheme
from harness.formats.app_description import AppDescription
from harness.formats.app_image import Segment, build_app_image
from harness.formats.signature_block import PrivateKey

_CURVES = {
    SigningScheme.ECDSA_P192: ec.SECP192R1,
    SigningScheme.ECDSA_P256: ec.SECP256R1,
    SigningScheme.ECDSA_P384: ec.SECP384R1,
}


@lru_cache
def private_key(scheme: SigningScheme, number: int = 0) -> PrivateKey:
    """Made once per process: RSA keys take their time."""
    if scheme is SigningScheme.RSA_3072:
        return rsa.generate_private_key(65537, 3072)
    return ec.derive_private_key(0x1234567 + number, _CURVES[scheme]())


def pem_of(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def public_pem_of(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def image(size_bytes: int = 5000) -> bytes:
    """A small app that has not been signed, of a length that is no multiple of 4096."""
    description = AppDescription(version="1.0.0", project_name="companion")
    segment = Segment(ESP32C3.drom_base + 0x20, description.to_bytes() + bytes(size_bytes))
    return build_app_image(ESP32C3, [segment], entry_point=ESP32C3.drom_base)


def signed_by_espsecure(folder: Path, content: bytes, *keys: PrivateKey) -> bytes:
    """What ``espsecure sign-data`` writes."""
    source, output = io.BytesIO(content), folder / "signed.bin"
    source.name = "image.bin"
    files: list[io.BytesIO] = [io.BytesIO(pem_of(key)) for key in keys]
    espsecure.sign_data("2", files, str(output), False, False, None, [], [], source)
    return output.read_bytes()
