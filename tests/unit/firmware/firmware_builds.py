"""Builds of the firmware for its tests, and the keys that sign their packages."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from harness.build.artefacts import Artefacts
from harness.build.native import build_native
from harness.chips import Chip, chip_named

# Fixed, so that builds of different runs are the same: this key signs nothing but test packages.
SIGNING_KEY = ec.derive_private_key(0x1234567, ec.SECP256R1())
OTHER_KEY = ec.derive_private_key(0x7654321, ec.SECP256R1())
QUICK = str(Path(__file__).parents[2] / "data" / "firmware" / "sdkconfig.quick")
TEST_FRAGMENTS = ("profile.release", "lock.none", "test", QUICK)


def public_point(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )


def sign_with(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


@dataclass
class Builds:
    """Versions of the firmware, each built once."""

    work: Path
    store: Path
    _made: dict[tuple[Any, ...], Artefacts] = field(default_factory=dict)

    def __call__(
        self,
        version: str = "1.0.0",
        *,
        chip: Chip | None = None,
        fragments: tuple[str, ...] = TEST_FRAGMENTS,
        keys: tuple[bytes, ...] = (public_point(SIGNING_KEY),),
        project: str = "companion",
        secure_version: int = 0,
    ) -> Artefacts:
        chip = chip or chip_named("esp32c3")
        name = (version, chip.name, fragments, keys, project, secure_version)
        if name not in self._made:
            self._made[name] = build_native(
                chip,
                version=version,
                project=project,
                secure_version=secure_version,
                fragments=fragments,
                signing_keys=keys,
                store=self.store,
                work=self.work,
            )
        return self._made[name]
