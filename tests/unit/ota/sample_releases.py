"""Small real app images, keys and tables that the package tests are made with. The keys are of no device."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric import ec

from harness.chips import CHIPS, Chip
from harness.formats.app_description import AppDescription
from harness.formats.app_image import Segment, build_app_image
from harness.formats.partition_table import PartitionTable
from harness.ota.release import Release, parse_release, signer
from harness.ota.variants import Recipe

MAC = "7c:df:a1:00:11:22"
OTHER_MAC = "7c:df:a1:33:44:55"
PRIVATE_KEY = ec.derive_private_key(0x1234567, ec.SECP256R1())
OTHER_PRIVATE_KEY = ec.derive_private_key(0x7654321, ec.SECP256R1())
TABLE = PartitionTable.from_csv(
    """otadata, data, ota, , 0x2000
    ota_0, app, ota_0, , 64K
    ota_1, app, ota_1, , 64K
    store, data, nvs, , 0x4000
    """,
    table_offset=0x10000,
)


def flash_key(chip: Chip, seed: str = "device") -> bytes:
    return hashlib.sha512(seed.encode()).digest()[: chip.cipher.key_size_bytes]


def image(chip: Chip, version: str = "1.1.0", *, size_bytes: int = 5000, hash_appended: bool = True) -> bytes:
    """`size_bytes` of payload behind the description; of a length that is no multiple of 16 once signed."""
    description = AppDescription(version=version, project_name="companion", secure_version=3)
    payload = (hashlib.sha256(version.encode()).digest() * (size_bytes // 32 + 1))[:size_bytes]
    segment = Segment(chip.drom_base + 0x20, description.to_bytes() + payload)
    return build_app_image(chip, [segment], entry_point=chip.drom_base, hash_appended=hash_appended)


def release(chip: Chip, version: str = "1.1.0", *, size_bytes: int = 5000) -> Release:
    return parse_release(image(chip, version, size_bytes=size_bytes))


def recipe(chip: Chip) -> Recipe:
    slot = TABLE.find("ota_1")
    return Recipe(release(chip), chip, MAC, slot, flash_key(chip), signer(PRIVATE_KEY))


ALL_CHIPS = list(CHIPS.values())
