"""The board that enciphers itself: a throwaway twin on which everything lies as plaintext, and that was never started."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from harness.board import Board
from harness.build.flash_layout import lay_out
from harness.explore.bench import SAFE, Bench
from harness.firmware import firmware_for
from harness.formats.partition import Partition
from harness.formats.signature_block import BLOCK_BYTES, blocks_of, unsigned_length
from harness.identification import identify
from harness.lab import Lab
from harness.ota.release import Release
from harness.preparation import FIRST_VERSION, Demand
from harness.provision.key_blocks import key_parts
from harness.provision.profile import Lock
from harness.provision.session import KeyToBurn
from harness.say import Say


@dataclass(slots=True)
class BlankBench(Bench):
    """Images are known as plaintext here: with which key they will lie in flash nobody knows."""

    @classmethod
    def flashed(cls, lab: Lab, chip: str, demand: Demand, *, host_key: bool = False, say: Say) -> BlankBench:
        """A twin as ``idf.py flash`` leaves it, of a build that enciphers itself at its first start.

        Args:
            host_key: a key made on the host is burned before, which the bootloader then takes.

        Raises:
            HarnessError: it cannot be built or flashed.
        """
        board = lab.throwaway(chip)
        identify(board)
        board.choose_vault(demand.profile)
        firmware = firmware_for(
            board, demand.profile, Lock.NONE, lab.home, fragments=demand.fragments, device_key=True, say=say
        )
        app = firmware.first(FIRST_VERSION)
        board.firmware, board.app, board.table = firmware, app, app.partition_table
        board.profile, board.lock = demand.profile, Lock.NONE
        if host_key:
            burn_host_key(board)
        flash_plaintext(board)
        bench = cls(board)
        bench._slots = {board.slots[0].label: FIRST_VERSION}
        for version in (FIRST_VERSION, SAFE):
            for slot in board.slots:
                bench.know(version, slot, bench.release(version))
        return bench

    def release(self, version: str) -> Release:
        assert self.board.app is not None
        return self.board.app.release if version == FIRST_VERSION else self.board.release(version)

    def know(self, version: str, slot: Partition, release: Release) -> None:
        image = release.image
        signed = unsigned_length(image) + BLOCK_BYTES * len(blocks_of(image))
        body = image[:signed]
        self._images[version, slot.label] = (len(body), hashlib.sha256(body).hexdigest())

    def packages(self) -> dict[str, str]:
        # The stock handler takes a plain image, and the chip enciphers it.
        url = self.publish("safe.bin", self.release(SAFE).image)
        return {slot.label: url for slot in self.board.slots}


def flash_plaintext(board: Board) -> None:
    """Writes bootloader, table, otadata and app over the UART as they come out of the build.

    Raises:
        BoardError: the ROM does not take them.
    """
    assert board.app is not None
    regions = lay_out(board.app, encrypts=False).regions
    with board.rom() as session:
        session.write_flash([(region.offset, region.data) for region in regions], force=True)


def burn_host_key(board: Board) -> None:
    """A flash key of the vault's, with purpose and protections, the counter left alone."""
    mac = board.mac
    assert mac is not None
    board.vault.make_flash_key(mac, board.chip)
    key = board.vault.stored_key(mac)
    fuses = board.chip.fuses
    with board.rom() as session:
        free = [block for block in session.state().key_blocks if block.unused]
        keys = [
            KeyToBurn(block.name if fuses.key_purpose_field else fuses.key_block, part.purpose, part.of(key))
            for block, part in zip(free, key_parts(board.chip), strict=False)
        ]
    with board.rom(writes_flash=False) as session:
        session.burn_keys(keys)
