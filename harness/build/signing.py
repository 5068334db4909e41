"""Signs what a chip with secure boot is to start, before anything is enciphered.

An app is filled to 64 KiB first, a bootloader to 4 KiB; the signature sector follows. What somebody signed already
stays as it is.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.build.app_dir import AppDirectory, is_signed, with_images
from harness.build.board_keys import KeySources, digests_of, keys_for
from harness.build.boot_key import BootKey
from harness.chips import Chip
from harness.errors import FormatError, LabError, UsageError
from harness.formats.app_image import parse_app_image, secure_padded
from harness.formats.signature_block import (
    SECTOR_BYTES,
    SignatureBlock,
    blocks_of,
    signed_length,
    unsigned_length,
    verify,
)
from harness.ota.release import Release, parse_release
from harness.provision.boot_keys import BootDigest
from harness.vault.vault import Vault


def sign(image: bytes, keys: Sequence[BootKey], chip: Chip, *, name: str = "the image") -> bytes:
    """`image`, app or bootloader, with a signature by each of `keys`; one that is signed already is returned as it is.

    Args:
        keys: as many as `chip` takes signatures, by digest slot.
        name: what messages call the image.

    Raises:
        UsageError: too many keys, one that cannot sign, or of a scheme that the chip's ROM does not verify; or the
            image is signed, but with none of `keys`.
        FormatError: no image, or one that cannot be filled; or its signature is damaged.
        LabError: espsecure or a token refuses.
    """
    if signed_already(image, name=name):
        require_signed(image, {key.digest for key in keys}, chip, name=name)
        return image
    boot = chip.secure_boot
    if not 1 <= len(keys) <= boot.signature_blocks:
        raise UsageError(
            f"{name} cannot have {len(keys)} signatures: {chip.title} takes 1 to {boot.signature_blocks}",
            todo="name fewer keys",
        )
    signed = _filled(image, name)
    for key in keys:
        if key.scheme not in boot.schemes:
            raise UsageError(
                f"the ROM of {chip.title} does not verify {key.scheme.value}, which {key.name} is for",
                todo=f"use a key for one of: {', '.join(scheme.value for scheme in boot.schemes)}",
            )
        if key.add_signature is None:
            raise UsageError(
                f"{name} cannot be signed with {key.name}: there is only its public half",
                todo="give the private key, or a signed image",
            )
        signed = key.add_signature(signed)
    # Before it is anybody's only firmware: read back what was made.
    made = [block.key_digest for block in verify(signed)]
    if made != [key.digest for key in keys]:
        raise LabError(
            f"the signatures on {name} do not verify", todo="see what signed it; nothing was written"
        )
    return signed


def signed_already(image: bytes, *, name: str) -> bool:
    """`is_signed`, with errors that call the image `name`.

    Raises:
        FormatError: no image.
    """
    try:
        return is_signed(image)
    except FormatError as error:
        raise FormatError(f"{name}: {error.message}", todo=error.todo) from error


def append_signatures(image: bytes, keys: Sequence[BootKey], chip: Chip, *, name: str = "the image") -> bytes:
    """A signed `image` with the signatures of those of `keys` that are not on it yet.

    Raises:
        UsageError: it is not signed, or would carry more signatures than `chip` takes.
        FormatError: a signature on it is damaged. LabError: espsecure or a token refuses.
    """
    if not signed_already(image, name=name):
        raise UsageError(f"{name} is not signed: there is nothing to add to", todo="leave --append out")
    there = [block.key_digest for block in verify(image)]
    if len(there) != len(blocks_of(image)):
        require_signed(image, there, chip, name=name)
        raise FormatError(f"a signature of {name} is damaged", todo="sign the unsigned image again")
    wanted = [key for key in keys if key.digest not in there]
    room = chip.secure_boot.signature_blocks - len(there)
    if len(wanted) > room:
        raise UsageError(
            f"{name} has {len(there)} signature(s), {chip.title} takes {chip.secure_boot.signature_blocks}: "
            f"{len(wanted)} more do not fit",
            todo="sign the unsigned image with the keys that count",
        )
    signed = image[: signed_length(image)]
    for key in wanted:
        assert key.add_signature is not None
        signed = key.add_signature(signed)
    if [block.key_digest for block in verify(signed)] != [*there, *(key.digest for key in wanted)]:
        raise LabError(
            f"the signatures on {name} do not verify", todo="see what signed it; nothing was written"
        )
    return signed


def require_signed(
    image: bytes, trusted: Collection[bytes], chip: Chip, *, name: str = "the image"
) -> tuple[SignatureBlock, ...]:
    """The blocks of `image` that a chip which knows the key digests `trusted` would accept.

    Raises:
        FormatError: no block is right; says what is wrong with the first. UsageError: none is by a key it knows.
    """
    content = image[: unsigned_length(image)]
    blocks = blocks_of(image)[: chip.secure_boot.signature_blocks]
    good = [block for block in blocks if block.fault(content) is None]
    if not good:
        fault = blocks[0].fault(content) if blocks else "there is no signature"
        raise FormatError(
            f"the signature of {name} is damaged: {fault}", todo="sign the unsigned image again"
        )
    known = tuple(block for block in good if block.key_digest in trusted)
    if not known:
        raise UsageError(
            f"{name} is signed with a key that the board does not have (digest {good[0].key_digest.hex()[:16]}…)",
            todo="name that key in the board's entry (secure_boot: keys:), or give the unsigned image",
        )
    return known


def digests_in(image: bytes, chip: Chip, *, name: str) -> tuple[BootDigest, ...]:
    """The keys that signed `image`, by their place in its signature sector, as ESP-IDF's first boot would burn them.

    Raises:
        FormatError: no block is right.
    """
    content = image[: unsigned_length(image)]
    blocks = blocks_of(image)[: chip.secure_boot.signature_blocks]
    good = [block for block in blocks if block.fault(content) is None]
    if not good:
        require_signed(image, (), chip, name=name)
    return tuple(
        BootDigest(
            slot,
            block.key_digest,
            f"signature {block.index} of {name}",
            block.scheme,
        )
        for slot, block in enumerate(good)
    )


@dataclass(slots=True)
class ImageSigner:
    """Signs the builds of one board, the same image always with the same bytes: RSA signatures are random.

    Without that, every run would find other firmware in the flash than it is to be.
    """

    chip: Chip
    keys: tuple[BootKey, ...]
    """By digest slot."""
    chosen: bool
    """A person named the keys: images that are signed with others are refused, not trusted."""
    kept: Path
    """Folder of the signature sectors that were made."""

    @classmethod
    def of(cls, sources: KeySources, vault: Vault, chip: Chip, builds: Path) -> ImageSigner:
        """The signer with the keys that a board's entry names; one of the vault's is made if there is none yet.

        Args:
            builds: the folder of this user's builds, which also keeps the signatures.

        Raises:
            UsageError, LabError: a key cannot be had.
        """
        return cls(chip, sources.open(vault), sources.chosen, builds / "signatures")

    @property
    def own(self) -> tuple[BootDigest, ...]:
        """The keys of the board's entry, as eFuses hold them."""
        return digests_of(self.keys)

    def digests(self, app: AppDirectory) -> tuple[BootDigest, ...]:
        """What the board is to know: the keys of its entry, or those that signed the bootloader which was given.

        Raises:
            FormatError: the bootloader's signature is damaged.
            UsageError: it is signed with other keys than the entry names.
        """
        own = self.own
        if not is_signed(app.bootloader):
            return own
        name = f"the bootloader in {app.dir}"
        found = digests_in(app.bootloader, self.chip, name=name)
        mine = {each.digest for each in own}
        if any(each.digest in mine for each in found):
            return own
        if self.chosen:
            require_signed(app.bootloader, mine, self.chip, name=name)
        return found

    def app(self, app: AppDirectory, trusted: Sequence[BootDigest]) -> AppDirectory:
        """`app` with bootloader and app image signed by keys of `trusted`.

        Raises:
            as `sign`; UsageError: signed, they do not fit their places.
        """
        bootloader = self.image(app.bootloader, trusted, name=f"the bootloader in {app.dir}")
        image = self.image(app.release.image, trusted, name=f"the app in {app.dir}")
        return with_images(
            app, bootloader=bootloader, release=parse_release(image, name=f"the app in {app.dir}")
        )

    def release(self, release: Release, trusted: Sequence[BootDigest]) -> Release:
        """`release`, signed by keys of `trusted`. Raises: as `sign`."""
        name = f"{release.project_name} {release.version}"
        return parse_release(self.image(release.image, trusted, name=name), name=name)

    def image(self, image: bytes, trusted: Sequence[BootDigest], *, name: str) -> bytes:
        """An image, signed by keys of `trusted`; the sector is made once. Raises: as `sign`."""
        if is_signed(image):
            require_signed(image, {each.digest for each in trusted}, self.chip, name=name)
            return image
        keys = keys_for(self.chip, self.keys, trusted)
        content = _filled(image, name)
        file = self._sector_file(content, keys)
        signed = content + _read(file)
        if [block.key_digest for block in verify(signed)] == [key.digest for key in keys]:
            return signed
        signed = sign(image, keys, self.chip, name=name)
        _keep(file, signed[-SECTOR_BYTES:])
        return signed

    def _sector_file(self, content: bytes, keys: Sequence[BootKey]) -> Path:
        digest = hashlib.sha256(content)
        for key in keys:
            digest.update(key.digest)
        return self.kept / f"{digest.hexdigest()[:32]}.sig"


def _filled(image: bytes, name: str) -> bytes:
    """What is signed: an app to 64 KiB, a bootloader to 4 KiB; whatever else followed it is refused."""
    try:
        parsed = parse_app_image(image)
        if parsed.description is not None:
            return secure_padded(image)
    except FormatError as error:
        raise FormatError(f"{name}: {error.message}", todo=error.todo) from error
    content = image[: parsed.size_bytes]
    if image[parsed.size_bytes :].strip(b"\xff"):
        raise FormatError(f"{name}: something follows the image", todo="give it as it was built")
    return content + b"\xff" * (-len(content) % SECTOR_BYTES)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def _keep(file: Path, sector: bytes) -> None:
    """Whole or not at all; without it the image is signed anew next time."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=".making-")
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(sector)
        Path(name).replace(file)
    except OSError as error:
        raise LabError(
            f"the signature cannot be kept in {file.parent}: {error.strerror}",
            todo="see whether the disk is full",
        ) from error
