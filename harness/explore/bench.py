"""The board that a sequence begins on: a throwaway twin, provisioned, updated once, its supply off."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.board import Board
from harness.errors import BoardError
from harness.formats.partition import Partition
from harness.formats.signature_block import BLOCK_BYTES, blocks_of, unsigned_length
from harness.home import Home
from harness.inventory.entry import TwinEntry
from harness.lab import Lab
from harness.links.twin import TwinLink
from harness.ota.release import Release
from harness.preparation import FIRST_VERSION, Consent, Demand, prepare
from harness.say import Say

FIRST = "1.1.0"
"""What runs when a sequence begins."""
NEXT = "1.2.0"
"""What the sequence updates to."""
LAST = "1.3.0"
"""What a second update in a sequence brings."""
SAFE = "1.9.0"
"""The good update that a board must take after a cut."""

SECTOR_BYTES = 0x1000
CIPHER_BLOCK_BYTES = 16


@dataclass(slots=True)
class Bench:
    """Makes what a sequence needs of its board. The board stays open, for its server and keys; it has no power."""

    board: Board
    secure_version: int = 0
    """That of `NEXT` and of the recovery; raised by the sequence where the chip keeps it in eFuses."""
    spoiled: bool = False
    """It is no longer as it was made: the next sequence needs another."""
    _images: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)
    _slots: dict[str, str] = field(default_factory=dict)
    """Label to the version that lies there when the sequence begins."""

    @classmethod
    def prepared(cls, lab: Lab, chip: str, demand: Demand, *, secure_version: int, say: Say) -> Bench:
        """Provisions a throwaway twin and updates it once.

        Raises:
            HarnessError: as `harness.preparation.prepare`. BoardError: it does not take the first update.
        """
        board = lab.throwaway(chip)
        prepare(board, demand, Consent(TwinEntry(chip=chip)), lab.home, say=say)
        bench = cls(board, secure_version)
        before = board.status()
        answer = board.update(board.release(FIRST))
        if not answer.ok:
            raise BoardError(f"does not take its first update: {answer.error}", board=board.name)
        running = board.reboot()
        if running.version != FIRST or not board.confirm().ok:
            raise BoardError(f"does not keep its first update: {running.summary()}", board=board.name)
        bench._slots = {before.slot: FIRST_VERSION, before.next_slot: FIRST}
        for label, version in bench._slots.items():
            bench._know(version, board.slot(label))
        return bench

    # What there is

    def release(self, version: str) -> Release:
        raised = self.secure_version if version in (NEXT, LAST, SAFE) else 0
        return self.board.release(version, secure_version=raised)

    def slot_of(self, version: str) -> Partition:
        """Where `version` lies when the sequence begins."""
        return self.board.slot(next(label for label, found in self._slots.items() if found == version))

    def version_in(self, slot: Partition) -> str:
        return self._slots[slot.label]

    def other(self, slot: Partition) -> Partition:
        return self.board.other_slot(slot.label)

    def package(self, version: str, slot: Partition | None = None) -> bytes:
        """The right package of `version`, for the slot that does not run."""
        slot = slot or self.other(self.slot_of(FIRST))
        self._know(version, slot)
        return self.board.recipe(self.release(version), slot).package()

    def body(self, release: Release, slot: Partition | None = None) -> bytes:
        """What lies in the slot that does not run after an update to `release`."""
        return self.board.recipe(release, slot or self.other(self.slot_of(FIRST))).body()

    def publish(self, name: str, data: bytes) -> str:
        """The URL under which the board gets `data`."""
        mac = str(self.board.mac)
        self.board.server.publish(mac, name, data)
        return self.board.server.url_for(mac, name)

    def spoil(self, slot: Partition) -> None:
        """Writes zeros over the first sector of what lies in `slot`."""
        self.board.overwrite(slot.offset, bytes(SECTOR_BYTES), enciphered=True)
        self.spoiled = True

    def _know(self, version: str, slot: Partition) -> None:
        if (version, slot.label) not in self._images:
            self.know(version, slot, self.release(version))

    def know(self, version: str, slot: Partition, release: Release) -> None:
        """The image of `release` may lie in `slot`, whole, by that name."""
        image = release.image
        # Behind the signatures a signed image is filled up to its sector, which nobody looks at.
        signed = unsigned_length(image) + BLOCK_BYTES * len(blocks_of(image))
        body = self.body(release, slot)[: signed + -signed % CIPHER_BLOCK_BYTES]
        self._images[version, slot.label] = (len(body), hashlib.sha256(body).hexdigest())

    def packages(self) -> dict[str, str]:
        """URL of the recovery's update, by label of the slot that it is for."""
        return {
            slot.label: self.publish(f"safe-{slot.label}.pkg", self.package(SAFE, slot))
            for slot in self.board.slots
        }

    # As the explorer takes it

    def job(self, home: Home, work: Path, state: Path) -> dict[str, Any]:
        """The parts of a job that do not depend on the sequence; `state` gets a copy of the board as it is now."""
        packages = self.packages()
        link, table = self.board.link, self.board.table
        assert isinstance(link, TwinLink)
        assert table is not None
        assert table.otadata is not None
        self.board.console.note("its supply is off: what follows happens to copies", kind="power")
        link.control("power", on=False)
        shutil.copytree(
            link.state, state, ignore=shutil.ignore_patterns("vault*", "devices", "lock", "running.json")
        )
        signed = self.board.profile is not None and self.board.profile.secure_boot
        scheme = self.board.boot_keys.scheme.value if signed else None
        return {
            "chip": self.board.chip.name,
            "state": str(state),
            "build_store": str(home.build_store),
            "work": str(work),
            "slots": [_place(slot) for slot in self.board.slots],
            "otadata": _place(table.otadata),
            "secure_boot_scheme": scheme,
            "places": [_place(partition) for partition in table.partitions],
            "images": [
                {"slot": slot, "version": version, "size_bytes": size, "sha256": digest}
                for (version, slot), (size, digest) in self._images.items()
            ],
            "packages": packages,
            "safe": SAFE,
        }


def _place(partition: Partition) -> dict[str, Any]:
    return {"label": partition.label, "offset": partition.offset, "size": partition.size}
