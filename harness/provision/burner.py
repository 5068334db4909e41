"""eFuses through espefuse's public Python API: read them, burn them. Used by `rom` alone.

espefuse would ask a person to type BURN; here it never asks, because `consent` was checked before. It reads
every block back before it protects it (postponed protections), and refuses what cannot be burned.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import esptool

from harness.chips import Chip
from harness.errors import RefusedError
from harness.provision.chip_state import ChipState, Download, KeyBlock
from harness.provision.fuse_definitions import parse_once
from harness.provision.key_blocks import digest_block_name, has_purposes, shares_one_block
from harness.provision.session import KeyToBurn
from harness.provision.vendor_log import catch_prints
from harness.vault.key_ref import key_id

with warnings.catch_warnings():
    # espefuse's own use of click: nothing that a person who runs tests here could mend.
    warnings.simplefilter("ignore", DeprecationWarning)
    from espefuse import init_commands


class ChipFellSilentError(esptool.FatalError):  # type: ignore[misc]
    """The chip stopped answering register accesses in the middle of a burn: what a lock fuse is for."""


SECURE_VERSION = "SECURE_VERSION"
"""The one number of interest outside of BLOCK0, on ESP32: it lies in BLOCK3 there."""


class FuseBurner:
    """The eFuses of one connected chip. Methods raise what espefuse raises; `rom` makes our errors of it."""

    def __init__(self, esp: Any, chip: Chip) -> None:
        """Reads all eFuses of `esp`: a connected loader, or espefuse's emulation.

        Raises:
            RefusedError: the chip's coding scheme is one that espefuse does not know.
        """
        self.chip = chip
        self._esp = esp
        parse_once(chip.name)
        catch_prints(chip.name)
        try:
            self._commands = init_commands(esp=esp, do_not_confirm=True)
        except esptool.FatalError as error:
            if "coding scheme" in str(error).lower():
                raise RefusedError(f"CODING_SCHEME of this chip is not supported: {error}") from error
            raise
        self._efuses = self._commands.efuses
        self._efuses.postpone = True
        # espefuse would close the port and open it again by name: the port is lent, and the reset is not its.
        self._efuses.reconnect_chip = _fell_silent

    def state(self) -> ChipState:
        """The chip as espefuse last read it (it reads everything again after every burn)."""
        fields = [
            field
            for field in self._efuses
            if (field.block == 0 or field.name == SECURE_VERSION)
            and not field.is_field_calculated()
            and field.efuse_type.startswith(("int", "uint", "bool"))
        ]
        # Protection bits are looked up in fields that are looked up by name: take the two numbers once.
        wr_dis, rd_dis = int(self._efuses["WR_DIS"].get_raw()), int(self._efuses["RD_DIS"].get_raw())
        return ChipState(
            chip_name=self.chip.name,
            mac=":".join(f"{byte:02x}" for byte in self._efuses["MAC"].get_raw()),
            revision=int(self._esp.get_chip_revision()),
            fuses={field.name: int(field.get_raw()) for field in fields},
            write_protected=frozenset(
                field.name for field in fields if _bit(wr_dis, field.write_disable_bit)
            ),
            hidden=frozenset(field.name for field in fields if _bit(rd_dis, field.read_disable_bit)),
            key_blocks=self._key_blocks(),
            download=Download.OPEN,
        )

    def burn_key(self, burn_as: str, purpose: str | None, key: bytes) -> None:
        """The key, its purpose, then its protections. `burn_as` is espefuse's name for the block."""
        self.burn_keys([KeyToBurn(burn_as, purpose, key)])

    def burn_keys(self, keys: Sequence[KeyToBurn]) -> None:
        """All of them in one batch of espefuse: every block is programmed once, then purposes, then protections."""
        blocks, contents = [key.burn_as for key in keys], [io.BytesIO(key.data) for key in keys]
        if self.chip.fuses.key_purpose is None:
            self._commands.burn_key(blocks, contents)
        else:
            self._commands.burn_key(blocks, contents, [key.purpose for key in keys])

    def protect_key(self, block: str, *, read: bool, write: bool, purpose: bool) -> None:
        """Protections of a key block, in one go.

        Not ``read_protect_efuse``: it refuses blocks whose purpose is still USER, as a half-burned key's is.
        """
        if shares_one_block(self.chip):
            # One bit of read protection per half; write protection is the block's.
            block = str(self.chip.fuses.key_part) if block == self.chip.fuses.key_storage_block else block
        field = self._efuses[block]
        if read and field.is_readable():
            field.disable_read()
        if write and field.is_writeable():
            field.disable_write()
        if purpose:
            owner = self._efuses[
                self._efuses.blocks[self._efuses.get_index_block_by_name(block)].key_purpose_name
            ]
            if owner.is_writeable():
                owner.disable_write()
        self._efuses.burn_all()

    def burn_fuses(self, fuses: Mapping[str, int]) -> None:
        """Values of BLOCK0 fields, in one programming command (but see espefuse's postponed fuses)."""
        self._commands.burn_efuse(dict(fuses))

    def write_protect(self, fuse: str) -> None:
        """The WR_DIS bit of `fuse`."""
        self._commands.write_protect_efuse([fuse])

    def _key_blocks(self) -> tuple[KeyBlock, ...]:
        chip = self.chip
        if has_purposes(chip):
            return tuple(self._key_block(block) for block in self._efuses.blocks if block.key_purpose_name)
        flash, digest = chip.fuses.key_storage_block, digest_block_name(chip)
        by_name = {block.name: block for block in self._efuses.blocks}
        if shares_one_block(chip):
            block = by_name[flash]
            return (
                self._half(block, flash, str(chip.fuses.key_part), holds_digest=False),
                self._half(block, str(digest), str(digest), holds_digest=True),
            )
        return tuple(
            self._key_block(by_name[name], holds_digest=name == digest)
            for name in dict.fromkeys((flash, digest))
            if name is not None
        )

    def _key_block(self, block: Any, *, holds_digest: bool = False) -> KeyBlock:
        purpose_field = self._efuses[block.key_purpose_name] if block.key_purpose_name else None
        purpose = str(purpose_field.get()) if purpose_field is not None else None
        return self._described(
            block,
            block.name,
            bytes(block.get_raw()),
            purpose,
            readable=bool(block.is_readable()),
            purpose_writeable=bool(purpose_field.is_writeable()) if purpose_field is not None else True,
            holds_digest=holds_digest or (purpose or "").startswith("SECURE_BOOT_DIGEST"),
        )

    def _half(self, block: Any, name: str, field_name: str, *, holds_digest: bool) -> KeyBlock:
        field = self._efuses[field_name]
        return self._described(
            block,
            name,
            bytes(field.get_raw()),
            None,
            readable=bool(field.is_readable()),
            purpose_writeable=True,
            holds_digest=holds_digest,
        )

    def _described(
        self,
        block: Any,
        name: str,
        content: bytes,
        purpose: str | None,
        *,
        readable: bool,
        purpose_writeable: bool,
        holds_digest: bool,
    ) -> KeyBlock:
        """`content` most significant byte first, as espefuse holds a block: the byte order of a key file, since flash
        keys are burned reversed."""
        empty = not any(content)
        known = readable and not empty
        errors, failed = self._efuses.get_block_errors(block.id)
        return KeyBlock(
            name=name,
            purpose=purpose,
            empty=empty,
            readable=readable,
            writeable=bool(block.is_writeable()),
            purpose_writeable=purpose_writeable,
            key_id=key_id(content) if known else None,
            coding_errors=-1 if failed else int(errors),
            digest=content[::-1].hex() if known and holds_digest else None,
        )


def _bit(mask: int, bit: int | list[int] | None) -> bool:
    if bit is None:
        return False
    return any(mask >> each & 1 for each in (bit if isinstance(bit, list) else [bit]))


def _fell_silent(_esp: Any) -> Any:
    raise ChipFellSilentError("the chip does not answer register accesses any more")
