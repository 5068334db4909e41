"""Keys and signatures for tests of secure boot, all made by espsecure: the twin's own verifier has no part in them."""

from __future__ import annotations

import atexit
import contextlib
import io
import shutil
import tempfile
import zlib
from functools import lru_cache
from pathlib import Path

import espsecure
from boot_board import Board

from harness.chips.chip import SigningScheme

SECTOR_BYTES = 0x1000
BLOCK_BYTES = 1216
CRC_AT = 1196


@lru_cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="signing-bench-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def key_file(index: int = 0, scheme: SigningScheme = SigningScheme.RSA_3072) -> Path:
    """PEM of key number `index`; made once per test process."""
    path = _folder() / f"{scheme.value}-{index}.pem"
    if not path.exists():
        with contextlib.redirect_stdout(io.StringIO()):
            espsecure.generate_signing_key("2", scheme.value, str(path))
    return path


@lru_cache
def key_digest(index: int = 0, scheme: SigningScheme = SigningScheme.RSA_3072) -> bytes:
    """What is burned for key number `index`, whole."""
    path = _folder() / f"{scheme.value}-{index}.digest"
    with key_file(index, scheme).open("rb") as key, contextlib.redirect_stdout(io.StringIO()):
        espsecure.digest_sbv2_public_key(key, str(path))
    return path.read_bytes()


def signed(image: bytes, *indices: int, scheme: SigningScheme = SigningScheme.RSA_3072) -> bytes:
    """`image` with its padding and a signature sector that has one block per key of `indices`."""
    return _signed(image, indices or (0,), scheme)


@lru_cache(maxsize=64)
def _signed(image: bytes, indices: tuple[int, ...], scheme: SigningScheme) -> bytes:
    source, output = _folder() / "image.bin", _folder() / "signed.bin"
    source.write_bytes(image)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        keys = [stack.enter_context(key_file(index, scheme).open("rb")) for index in indices]
        data = stack.enter_context(source.open("rb"))
        espsecure.sign_data("2", keys, str(output), False, False, None, [], [], data)
    return output.read_bytes()


def damaged(image: bytes, at: int, *, block: int = 0, bit: int = 0, sealed: bool = False) -> bytes:
    """A signed image with one bit of a signature block the other way; `sealed`: its CRC made anew."""
    changed = bytearray(image)
    changed[len(image) - SECTOR_BYTES + block * BLOCK_BYTES + at] ^= 1 << bit
    return resealed(changed, block=block) if sealed else bytes(changed)


def resealed(image: bytes | bytearray, *, block: int = 0) -> bytes:
    """A signed image, or its signature sector alone, with the CRC of one block made anew."""
    changed = bytearray(image)
    start = len(image) - SECTOR_BYTES + block * BLOCK_BYTES
    crc = zlib.crc32(changed[start : start + CRC_AT])
    changed[start + CRC_AT : start + CRC_AT + 4] = crc.to_bytes(4, "little")
    return bytes(changed)


def burn_digest(
    board: Board, index: int = 0, *, slot: int = 0, scheme: SigningScheme = SigningScheme.RSA_3072
) -> None:
    """Burn a key's digest as provisioning does: into BLOCK2 of ESP32, else into BLOCK_KEY(slot + 1) with its purpose."""
    fuses = board.chip.secure_boot
    digest = key_digest(index, scheme)[: fuses.digest_size_bytes]
    if fuses.digest_block is not None:
        board.efuses.burn_block(fuses.digest_block, digest.rjust(32, b"\0"))
        return
    board.efuses.burn_block(f"BLOCK_KEY{slot + 1}", digest)
    board.efuses.burn_field(f"KEY_PURPOSE_{slot + 1}", 9 + slot)


def enable_secure_boot(board: Board) -> None:
    board.efuses.burn_field(board.chip.secure_boot.enable, 1)
