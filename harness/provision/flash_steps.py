"""What goes to flash, in which form, and whether a ROM with secure boot would take it. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from harness.chips import Chip
from harness.errors import FormatError, RefusedError, UsageError
from harness.formats.signature_block import verify
from harness.provision.chip_state import Download
from harness.provision.key_blocks import digest_slots, flash_key_blocks
from harness.provision.key_steps import KeySteps
from harness.provision.region import SECTOR_BYTES, FlashRegion
from harness.provision.request import Request, SignersOf
from harness.provision.secure_boot_state import secure_boot_is_on
from harness.provision.steps import Canary, DecipherCheck, ReadBack, Step, WriteFlash

IMAGE_MAGIC = 0xE9


def signers_of(chip: Chip) -> SignersOf:
    """Reads signatures as the ROM of `chip` would: its schemes, and no more blocks than it looks at."""

    def signers(image: bytes) -> tuple[bytes, ...]:
        boot = chip.secure_boot
        return tuple(
            block.key_digest
            for block in verify(image)
            if block.scheme in boot.schemes and block.index < boot.signature_blocks
        )

    return signers


def flash_steps(
    regions: Iterable[FlashRegion], *, enciphered: bool, by_chip: bool = False, read_back: bool = True
) -> tuple[Step, ...]:
    """A write for every region, by address, and the comparison of all that can be compared.

    Args:
        enciphered: the host enciphers what is stored encrypted.
        by_chip: the ROM does, with a key that only the chip has: then nothing can be compared.
    """
    ordered = sorted(regions, key=lambda region: region.offset)
    writes = tuple(
        WriteFlash(
            region.name,
            region.offset,
            len(region.data),
            region.sha256,
            enciphered and region.stored_encrypted,
            by_chip and region.stored_encrypted,
        )
        for region in ordered
    )
    compared = tuple(write.name for write in writes if not write.by_chip)
    return (*writes, ReadBack(compared)) if compared and read_back else writes


def check_flash_is_given(request: Request) -> None:
    """A chip that begins to encipher, or to verify, needs a bootloader that suits; so does flash that is half written.

    Raises:
        UsageError: it is not given.
    """
    state, regions, intent, profile = request.state, request.regions, request.intent, request.profile
    if intent is not None and intent.writes_flash and not regions:
        raise UsageError(
            "an earlier run on this board was cut off, and its flash may be half written",
            board=state.mac,
            todo="give the images to flash again; what is there already is not written twice",
        )
    if any(region.offset == state.chip.bootloader_offset for region in regions):
        return
    todo = "give the images to flash (bootloader, partition table, otadata, application)"
    if profile.encrypts and not state.encrypted:
        raise UsageError(
            "turning flash encryption on without an enciphered bootloader leaves a board that does not boot",
            todo=todo,
        )
    if profile.secure_boot and not secure_boot_is_on(state):
        raise UsageError(
            "turning secure boot on without a signed bootloader leaves a board that does not boot", todo=todo
        )


def check_signed(
    request: Request,
    placed: frozenset[bytes] = frozenset(),
    *,
    todo: str = "sign it with a boot key of this board",
) -> None:
    """Every image that goes to a board with secure boot must be signed with a key that its ROM will accept.

    Args:
        placed: whole digests of the keys that the plan burns.

    Raises:
        RefusedError: one is not; nothing has been burned.
        UsageError: no boot key is given for a board that is to get secure boot.
    """
    state = request.state
    if not request.profile.secure_boot:
        return
    if not request.digests and not secure_boot_is_on(state) and state.download is Download.OPEN:
        raise UsageError(
            "secure boot without a boot key leaves a board that boots nothing",
            board=state.mac,
            todo="give the boot keys whose digests are to be burned",
        )
    trusted = _trusted(request) | placed
    for region in request.regions:
        if not _is_image(request, region):
            continue
        try:
            found = request.signers(region.data)
        except FormatError as error:
            raise RefusedError(
                f"{region.name} at {region.offset:#x} cannot be verified: {error.message}. Nothing was burned",
                board=state.mac,
                todo="build it again, and sign it",
            ) from error
        if not any(digest in trusted for digest in found):
            raise _untrusted(request, region, found, trusted, todo)


def _untrusted(
    request: Request, region: FlashRegion, found: tuple[bytes, ...], trusted: frozenset[bytes], todo: str
) -> RefusedError:
    size = request.state.chip.secure_boot.digest_size_bytes
    signed = (
        f"is signed with {', '.join(each[:8].hex() for each in found)}…"
        if found
        else "has no signature that verifies"
    )
    wanted = ", ".join(sorted(each[: min(8, size)].hex() for each in trusted)) or "no key"
    return RefusedError(
        f"{region.name} at {region.offset:#x} {signed}; the board will trust {wanted}…. With secure boot it would "
        "never boot. Nothing was burned",
        board=request.state.mac,
        todo=todo,
    )


def _trusted(request: Request) -> frozenset[bytes]:
    """Digests as an image must be signed: those on the chip where it tells, else those of its record, else those given.

    ESP32-C2 keeps the first half of a digest only: there the keys that were given must say the rest.
    """
    state = request.state
    given = {each.digest for each in request.digests}
    if not secure_boot_is_on(state) and state.download is Download.OPEN:
        revoked = {slot.number for slot in digest_slots(state) if slot.revoked}
        return frozenset(each.digest for each in request.digests if each.slot not in revoked)
    burned = {
        slot.block.digest
        for slot in digest_slots(state)
        if slot.trusted and slot.block is not None and slot.block.digest is not None
    }
    if state.download is not Download.OPEN:
        burned = set(request.record.digests.values()) if request.record is not None else set()
    size = state.chip.secure_boot.digest_size_bytes
    whole = {bytes.fromhex(each) for each in burned if len(each) == 64}
    matching = {each for each in given if each[:size].hex() in {other[: 2 * size] for other in burned}}
    return frozenset(whole | matching)


def _is_image(request: Request, region: FlashRegion) -> bool:
    """A bootloader or an app: what ROM and bootloader verify."""
    return region.offset == request.state.chip.bootloader_offset or region.data[0] == IMAGE_MAGIC


def proof_steps(request: Request, keyed: KeySteps) -> tuple[Step, ...]:
    """That the chip's key is the vault's, shown by the chip while it can and nothing depends on it yet.

    Raises:
        RefusedError: nothing can show it.
    """
    state = request.state
    targets = [region for region in request.regions if region.stored_encrypted]
    if state.manual_encryption and targets:
        # A sector that is written afterwards anyway; its content until then is of no use to anybody.
        last = max(targets, key=lambda region: region.offset)
        return (Canary(last.end - SECTOR_BYTES),)
    if keyed.proven or request.vouched:
        return ()
    if state.encrypted:
        return (DecipherCheck(state.chip.bootloader_offset),)
    burned = ", ".join(block.name for block in flash_key_blocks(state))
    raise RefusedError(
        f"nothing proves that {burned} holds the vault's key: {state.chip.fuses.manual_encrypt_disable} is "
        "burned, so the chip cannot encipher a canary, and no intent tells of this burn",
        board=state.mac,
        todo="use the vault and state folder of the run that burned it, or another board",
    )
