"""What must hold of a stored state whatever happened: looked at in flash and eFuses, before anything runs."""

from __future__ import annotations

import hashlib
from pathlib import Path

from harness.chips import Chip, SigningScheme
from harness.formats.otadata import OtaData, OtaRecord, OtaState, Selection
from harness.twin.cipher import FlashCipher
from harness.twin.efuses import Efuses
from harness.twin.explorer.job import Job, Place
from harness.twin.explorer.signs import SIGNS
from harness.twin.explorer.stored import Key, StoredState
from harness.twin.image_signature import BootloaderSignature
from harness.twin.image_verify import ImageCheck, ImageRejected
from harness.twin.operations import FlashFault
from harness.twin.rpc import CollectedLog
from harness.twin.security import flash_encryption_enabled

SECTOR_BYTES = 0x1000

_SAID: dict[int, str] = {OtaState.NEW: "pending", OtaState.VALID: "valid"}
"""The word in the firmware's boot event, by the state that the record had before."""


class _Overlay:
    """The flash of a stored state, to be read only."""

    def __init__(self) -> None:
        self.state: StoredState | None = None

    @property
    def size_bytes(self) -> int:
        assert self.state is not None
        return self.state.size_bytes

    def read(self, addr: int, size: int, *, who: str = "") -> bytes:  # noqa: ARG002 - the protocol's
        assert self.state is not None
        if addr + size > self.size_bytes:
            raise FlashFault(0x102)
        return self.state.read(addr, size)

    def program(self, addr: int, data: bytes, *, who: str, kind: str = "write") -> None:
        raise NotImplementedError

    def erase(self, addr: int, size: int, *, who: str) -> None:
        raise NotImplementedError


class Judge:
    """Knows the images that may lie in slots, and finds what contradicts them."""

    def __init__(self, chip: Chip, job: Job, scratch: Path) -> None:
        """`scratch`: an eFuse file of the chip that may be written to."""
        self._chip = chip
        self._job = job
        self._flash = _Overlay()
        self._efuses = Efuses(chip, scratch)
        self._cipher = FlashCipher(chip, self._flash, self._efuses)
        self._signature: BootloaderSignature | None = None
        if job.secure_boot_scheme is not None:
            self._signature = BootloaderSignature(self._efuses, SigningScheme(job.secure_boot_scheme))
        self._bootable: dict[tuple[str, tuple[int, ...], Key], bool] = {}

    @property
    def scratch(self) -> Efuses:
        """eFuses whose content does not matter."""
        return self._efuses

    def close(self) -> None:
        self._efuses.close()

    def problems(self, state: StoredState) -> list[str]:
        """What is wrong with `state`; nothing: nothing.

        A slot that otadata names and that has not been touched since the start may hold what does not boot: it did then.
        """
        found = []
        for slot in self._job.slots:
            if self.verifies(state, slot) and self.image_in(state, slot) is None:
                found.append(f"{slot.label} holds an image that verifies and that nobody made")
        if self._job.first_boot and not self._is_encrypted(state):
            # Half of flash may be ciphertext, which nobody can read before the last burn.
            return found
        selection = self.selection(state)
        if selection.slot_index is None:
            found.append(f"otadata names no slot ({selection.verdict.value}): {self.records(state)}")
            return found
        named = self._job.slots[selection.slot_index]
        if not self._untouched(state, named) and not self.verifies(state, named):
            found.append(f"otadata names {named.label}, which holds nothing that boots")
        return found

    def _untouched(self, state: StoredState, slot: Place) -> bool:
        numbers = range(slot.offset // SECTOR_BYTES, (slot.offset + slot.size) // SECTOR_BYTES)
        return all(
            state.sector(number) == state.base[number] for number in numbers if number in state.sectors
        )

    def expected_state(self, state: StoredState, slot: str) -> str | None:
        """What the firmware in `slot` must say of itself at its next boot: ``pending`` for a record that is NEW.

        None where otadata does not name that slot, or nobody can say.
        """
        if self._job.first_boot:
            return None
        selection = self.selection(state)
        if selection.record_index is None or selection.slot_index is None:
            return None
        if self._job.slots[selection.slot_index].label != slot:
            return None
        return _SAID.get(self.otadata(state).records[selection.record_index].state)

    def verifies(self, state: StoredState, slot: Place) -> bool:
        """Whether a bootloader would take what lies in `slot` for a whole image."""
        sectors = range(slot.offset // SECTOR_BYTES, (slot.offset + slot.size) // SECTOR_BYTES)
        touched = [number for number in sectors if number in state.sectors]
        key = (slot.label, tuple(touched), state.key(touched))
        if key not in self._bootable:
            self._load(state)
            check = ImageCheck(
                chip=self._chip,
                cipher=self._cipher,
                efuses=self._efuses,
                chip_rev_full=self._efuses.chip_rev_full,
                flash_size_bytes=state.size_bytes,
                log=CollectedLog(),
                load=False,
                signature=self._signature,
            )
            try:
                check.verify(slot.offset, slot.size)
                self._bootable[key] = True
            except ImageRejected:
                self._bootable[key] = False
        return self._bootable[key]

    def image_in(self, state: StoredState, slot: Place) -> str | None:
        """The version of the known image that lies in `slot` byte for byte; None: none does."""
        for image in self._job.images:
            if image.slot == slot.label:
                raw = self._content(state, slot, image.size_bytes)
                if hashlib.sha256(raw).hexdigest() == image.sha256:
                    return image.version
        return None

    def _content(self, state: StoredState, slot: Place, size: int) -> bytes:
        if not self._job.first_boot:
            return state.read(slot.offset, size)
        self._load(state)
        return self._cipher.read(slot.offset, size)

    def _is_encrypted(self, state: StoredState) -> bool:
        self._load(state)
        return flash_encryption_enabled(self._efuses)

    def shows(self, state: StoredState, sign: str) -> bool:
        """Whether the eFuses of `state` are as that word of `harness.twin.explorer.signs` says."""
        self._load(state)
        return SIGNS[sign](self._efuses)

    def unset_fuses(self, state: StoredState) -> list[str]:
        """What of the job's fuses is not burned."""
        self._load(state)
        found = {name: self._efuses.field(name) for name in self._job.fuses}
        return [
            f"eFuse {name} is {found[name]:#x}, and must have {bits:#x}"
            for name, bits in self._job.fuses.items()
            if found[name] & bits != bits
        ]

    def otadata(self, state: StoredState) -> OtaData:
        """Both records, as the bootloader reads them."""
        self._load(state)
        return OtaData.from_bytes(self._cipher.read(self._job.otadata.offset, 2 * SECTOR_BYTES))

    def selection(self, state: StoredState) -> Selection:
        """What otadata selects at the next boot, a trial that was not confirmed being over then."""
        first, second = self.otadata(state).records
        return OtaData((_after_trial(first), _after_trial(second))).select(len(self._job.slots))

    def records(self, state: StoredState) -> str:
        """Both records in words."""
        words = []
        for record in self.otadata(state).records:
            crc = "" if record.is_empty or record.crc_ok else ", wrong CRC"
            words.append("empty" if record.is_empty else f"seq {record.seq} {record.state_name}{crc}")
        return f"[0] {words[0]}; [1] {words[1]}"

    def _load(self, state: StoredState) -> None:
        self._flash.state = state
        if self._efuses.snapshot() != state.efuses:
            self._efuses.restore(state.efuses)


def _after_trial(record: OtaRecord) -> OtaRecord:
    if record.state != OtaState.PENDING_VERIFY:
        return record
    return OtaRecord(record.seq, OtaState.ABORTED, record.crc, record.label)
