"""Carries out a plan, step by step. May be killed at any moment: the next run plans what is still missing.

What makes that safe: the key is in the vault before the first burn; an intent that names board, block and key
is synced before the first burn or write and removed after the device record is written; every other step can be seen in
the chip's eFuses or compared in its flash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass

from harness.chips import Chip
from harness.errors import BoardError, RefusedError, UsageError
from harness.formats.flash_encryption import encrypt, pad_to_block
from harness.interruption import Interrupted, unbroken
from harness.provision.canary import check_deciphers, sing
from harness.provision.chip_state import ChipState, Download
from harness.provision.device_record import DeviceRecord, DeviceRecords
from harness.provision.key_blocks import digest_slots, flash_key_blocks, key_parts
from harness.provision.key_proof import proof_by_bootloader
from harness.provision.plan import Plan
from harness.provision.profile import Lock, Profile
from harness.provision.promise import broken_promises
from harness.provision.proven import require_proven
from harness.provision.recognition import lock_of, profile_of
from harness.provision.region import FlashRegion
from harness.provision.secure_boot_state import trusted_slots
from harness.provision.session import KeyToBurn, Session, SessionFactory
from harness.provision.step_groups import StepGroup, groups_of
from harness.provision.steps import (
    BurnDigest,
    BurnFuses,
    BurnKey,
    Canary,
    ConfirmFuses,
    DecipherCheck,
    FirmwareBurns,
    FirmwareCommand,
    LockDownload,
    MakeKey,
    ProtectKey,
    ReadBack,
    Step,
    WriteFlash,
    WriteProtect,
    WriteRecord,
)
from harness.provision.time_needed import TimeLeft
from harness.vault.copies import refresh
from harness.vault.intent import Intent
from harness.vault.key_life import mark_proven
from harness.vault.key_proof import ProofResult
from harness.vault.key_ref import KeyRef, KeyState, key_id
from harness.vault.place import require_safe_place
from harness.vault.record_file import now_utc
from harness.vault.vault import Vault


@dataclass(frozen=True, slots=True)
class StepEvent:
    """A step begins (`done` False) or has ended."""

    number: int
    """From 1."""
    total: int
    step: Step
    done: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What carrying out a plan came to."""

    plan_id: str
    record: DeviceRecord | None
    """The device record as it is now; None when the plan was empty and there was none."""
    sessions: int
    """How often the board was reset into download mode."""
    remarks: tuple[str, ...]


def carry_out(
    plan: Plan,
    session_factory: SessionFactory,
    vault: Vault,
    *,
    records: DeviceRecords,
    regions: Sequence[FlashRegion] = (),
    physical: bool = True,
    on_step: Callable[[StepEvent], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    firmware: Callable[[FirmwareCommand], None] | None = None,
    time_left: TimeLeft | None = None,
) -> Outcome:
    """Does exactly `plan`, on exactly the board it was made for.

    Consent is the caller's to check (`consent.check_consent`). A signal (`harness.interruption`) interrupts what can be
    done again at once; burns that have begun are finished first, with the steps that are not parted from them.

    Args:
        session_factory: resets the board into download mode and lends its port, once per session.
        regions: the contents of the plan's flash steps; hashes must agree.
        physical: the vault's place and its second copy are checked before the first burn.
        on_step: told of every step's begin and end.
        on_progress: told (bytes done, bytes in all) of the piece that is being transferred.
        firmware: boots the board and has its firmware run a command; needed for plans that leave burns to it.
        time_left: no burn is begun that may not be over by then; None: nobody has said.

    Raises:
        RefusedError: the board has changed since the plan was made; the vault's place is not safe; the vault's
            key is another than the plan's; or the time that is left does not suffice for the burn that is next.
        BoardError: a burn or write did not take, the canary does not match. What is done stays done; plan again.
        UsageError: `regions` are not those of the plan.
    """
    if plan.empty:
        return Outcome(plan.id, records.read(plan.mac), 0, ())
    _require_contents(plan, regions)
    if firmware is None and any(isinstance(step, FirmwareCommand) for step in plan.steps):
        raise UsageError("this plan leaves burns to the firmware, and nothing reaches it", board=plan.mac)
    run = _Run(plan, session_factory, vault, records, regions, physical, on_progress, firmware)
    total = len(plan.steps)
    with run.board:
        for group in groups_of(plan.steps):
            if group.burns and time_left is not None:
                time_left.require_for(group, total, board=plan.mac)
            try:
                with unbroken(_under_way(group)) if group.burns else nullcontext():
                    for number, step in enumerate(group.steps, group.first):
                        if on_step is not None:
                            on_step(StepEvent(number, total, step, done=False))
                        run.perform(step)
                        if on_step is not None:
                            on_step(StepEvent(number, total, step, done=True))
            except Interrupted as interrupted:
                interrupted.where = _where(group, plan.steps)
                raise
    return Outcome(plan.id, run.record, run.board.sessions, tuple(run.remarks))


def _under_way(group: StepGroup) -> str:
    return f"eFuses are being burned ({'; '.join(step.headline for step in group.steps)})"


def _where(group: StepGroup, steps: Sequence[Step]) -> str:
    """Where a signal has taken effect: behind a group that burns, else in the midst of the step."""
    if not group.burns:
        return f"in step {group.first}/{len(steps)} ({group.steps[0].headline})"
    done = group.first + len(group.steps) - 1
    if done == len(steps):
        return f"after the last step of the plan, {done}/{done}"
    return f"before step {done + 1}/{len(steps)} ({steps[done].headline}); no eFuse burn is half done"


class _Board:
    """Sessions with one board: the current one, and a new one when the next step wants a reset first."""

    def __init__(self, factory: SessionFactory, on_progress: Callable[[int, int], None] | None) -> None:
        self._factory = factory
        self._on_progress = on_progress
        self._stack = ExitStack()
        self._session: Session | None = None
        self.sessions = 0

    def __enter__(self) -> _Board:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def let_go(self) -> None:
        """The port is somebody else's for a while."""
        self._stack.close()
        self._session = None

    def fresh(self) -> Session:
        """A session right after a reset."""
        self._stack.close()
        self._session = self._stack.enter_context(self._factory())
        self._session.on_progress = self._on_progress
        self.sessions += 1
        return self._session

    def for_burning(self) -> Session:
        """The ROM itself, not the stub."""
        if self._session is None or self._session.stub_running:
            return self.fresh()
        return self._session

    def for_flash(self) -> Session:
        """A chip that has been reset since its last burn, so that it works with all that was burned."""
        if self._session is None or self._session.burned:
            return self.fresh()
        return self._session


class _Run:
    """One carrying-out: what the steps share."""

    def __init__(
        self,
        plan: Plan,
        factory: SessionFactory,
        vault: Vault,
        records: DeviceRecords,
        regions: Sequence[FlashRegion],
        physical: bool,
        on_progress: Callable[[int, int], None] | None,
        firmware: Callable[[FirmwareCommand], None] | None,
    ) -> None:
        self.plan = plan
        self.chip: Chip = plan.state.chip
        self.vault = vault
        self.records = records
        self.board = _Board(factory, on_progress)
        self.record: DeviceRecord | None = None
        self.remarks: list[str] = []
        self._physical = physical
        self._firmware = firmware
        self._regions = {region.name: region for region in regions}
        self._contents: dict[str, bytes] = {}
        self._state = plan.state
        self._looked = False
        self._prepared = False

    def perform(self, step: Step) -> None:
        """Does one step."""
        if not isinstance(step, WriteRecord):
            self._look_once()
        touches = step.irreversible or isinstance(step, (Canary, WriteFlash))
        if touches and not self._prepared and (self.plan.burns or self.plan.profile is not Profile.OPEN):
            self._prepare()
        _PERFORM[type(step)](self, step)

    def _look_once(self) -> None:
        """The board must be the one that was planned for, in the state that was planned for."""
        if not self._looked:
            self._state = self.board.fresh().state()
            self.plan.require_unchanged(self._state)
            self._looked = True

    def _prepare(self) -> None:
        """Key readable, copies made, intent synced: only then may a fuse or an encrypted flash be touched."""
        ref = self._key_ref()
        if self._physical and self.plan.burns and (ref is not None or self.plan.digests):
            self.remarks += [report.text() for report in refresh(self.vault)]
            self.remarks += require_safe_place(self.vault, self.plan.mac)
        earlier = self.vault.intent(self.plan.mac)
        blocks = [step.block for step in self.plan.steps if isinstance(step, BurnKey)]
        blocks += [block.name for block in flash_key_blocks(self.plan.state)]
        digest_blocks = [step.block for step in self.plan.steps if isinstance(step, BurnDigest)]
        record = self.records.read(self.plan.mac)
        blocks += [record.key_block] if record is not None and record.key_block else []
        self.vault.note_intent(
            self.plan.mac,
            Intent(
                mac=self.plan.mac,
                chip_name=self.plan.chip_name,
                block=blocks[0] if blocks else "",
                key_id=ref.key_id if ref is not None else "",
                plan_id=self.plan.id,
                profile=self.plan.profile.value,
                lock=self.plan.lock.value,
                # Of a board that was begun before, the snapshot from before its first burn is kept.
                fuses=earlier.fuses if earlier is not None else self.plan.state.fuses,
                writes_flash=bool(self.plan.writes) or (earlier is not None and earlier.writes_flash),
                begun=earlier.begun if earlier is not None else now_utc(),
                blocks=tuple(
                    dict.fromkeys((*blocks, *digest_blocks, *(earlier.blocks if earlier is not None else ())))
                ),
                digests={str(slot): digest for slot, digest, _ in self.plan.digests},
            ),
        )
        self._prepared = True

    def _key_ref(self) -> KeyRef | None:
        ref = self.vault.key(self.plan.mac)
        if self.plan.key_id is not None and (ref is None or ref.key_id != self.plan.key_id):
            found = ref.key_id if ref is not None else "none"
            raise RefusedError(
                f"the plan was made for key {self.plan.key_id}; the vault's key for this board is {found}",
                board=self.plan.mac,
                todo="make a new plan, with the vault that has this board's key",
            )
        return ref

    def _key(self) -> bytes:
        ref = self._key_ref()
        key = self.vault.stored_key(self.plan.mac)
        if ref is None or key_id(key) != ref.key_id:
            raise RefusedError("the vault's key for this board does not open", board=self.plan.mac)
        return key

    def make_key(self, _: MakeKey) -> None:
        self.vault.make_flash_key(self.plan.mac, self.chip)

    def burn_key(self, step: BurnKey) -> None:
        require_proven(self._key_ref(), step)
        part = next(part for part in key_parts(self.chip) if part.half == step.half)
        keys = [KeyToBurn(step.burn_as, step.purpose, part.of(self._key()))]
        if step.digest is not None:
            keys.append(KeyToBurn(step.burn_as, step.digest_purpose, bytes.fromhex(step.digest)))
        self.board.for_burning().burn_keys(keys)

    def burn_digest(self, step: BurnDigest) -> None:
        self.board.for_burning().burn_keys(
            [KeyToBurn(step.burn_as, step.purpose, bytes.fromhex(step.digest))]
        )

    def protect_key(self, step: ProtectKey) -> None:
        self.board.for_burning().protect_key(
            step.block, read=step.read, write=step.write, purpose=step.purpose
        )

    def burn_fuses(self, step: BurnFuses) -> None:
        self.board.for_burning().burn_fuses(dict(step.fuses))

    def write_protect(self, step: WriteProtect) -> None:
        self.board.for_burning().write_protect(step.fuse)

    def canary(self, step: Canary) -> None:
        sing(self.board.for_flash(), self.chip, self.plan.mac, self._key(), step.address)
        mark_proven(self.vault, self.plan.mac, "the chip enciphered a canary to the same bytes")

    def decipher_check(self, step: DecipherCheck) -> None:
        session = self.board.for_flash()
        check_deciphers(session, self.chip, self.plan.mac, self._key(), step.address)
        ref = self._key_ref()
        if ref is not None and ref.state is KeyState.UNPROVEN:
            # An image's head is enough to go on with a key of our own, not to make one ours.
            proof = proof_by_bootloader(session, self.chip, self._key())
            if proof.result is ProofResult.PROVEN:
                mark_proven(self.vault, self.plan.mac, proof.how)

    def write_flash(self, step: WriteFlash) -> None:
        if step.by_chip:
            self.board.for_flash().write_flash([(step.offset, self._in_flash(step))], encrypt=True)
            return
        # A chip whose ROM enciphers no more takes nothing without force, and what is not stored enciphered least of all.
        require_proven(self._key_ref(), step)
        self.board.for_flash().write_flash(
            [(step.offset, self._in_flash(step))], force=self._forces, skip_identical=True
        )

    @property
    def _forces(self) -> bool:
        return self.plan.profile.encrypts and self.plan.key_state is None

    def read_back(self, step: ReadBack) -> None:
        session = self.board.for_flash()
        wrong = []
        for write in self.plan.writes:
            if write.name in step.names:
                data = self._in_flash(write)
                wanted = hashlib.md5(data, usedforsecurity=False).hexdigest()
                if session.flash_md5(write.offset, len(data)) != wanted:
                    wrong.append(f"{write.name} at {write.offset:#x}")
        if wrong:
            raise BoardError(
                f"flash does not hold what was written: {', '.join(wrong)}",
                board=self.plan.mac,
                todo="run it again; if it stays so, the flash chip or its wiring is at fault",
            )

    def confirm_fuses(self, step: ConfirmFuses) -> None:
        # Over the stub, if it runs: registers are registers. The chip has been reset since the last burn.
        self._state = self.board.for_flash().state()
        wrong = tuple(str(each) for each in broken_promises(step, self._state))
        found = profile_of(self._state)
        if found.profile is not step.profile:
            missing = found.missing or found.reasons
            if found.profile is not None:
                missing = (f"it is {found.profile.value}", *found.missing_boot)
            wrong = (*wrong, *missing)
        if wrong:
            raise BoardError(
                f"after all burns the chip is not as planned, {step.profile.value}: {'; '.join(dict.fromkeys(wrong))}",
                board=self.plan.mac,
                todo="plan again; the new plan says what is still missing or in the way",
            )

    def lock_download(self, step: LockDownload) -> None:
        # Behind the lock the chip tells next to nothing: what is known now is written down first.
        self._store_record(Lock.NONE)
        self.board.for_burning().burn_lock(step.fuse)
        if step.lock is Lock.SECURE_DOWNLOAD:
            after = self.board.fresh().state()
            if after.download is not Download.SECURE:
                raise BoardError(
                    f"{step.fuse} did not take: the ROM still works without it",
                    board=self.plan.mac,
                    todo="run it again",
                )
        else:
            self._require_no_download(step.fuse)
        self._state = _with_fuse(self._state, step.fuse)

    def _require_no_download(self, what: str) -> None:
        try:
            self.board.fresh()
        except BoardError:
            # No answer is what this fuse is for. That it is the fuse and not the cable shows in the boot log.
            self.remarks.append(f"{what}: the ROM does not answer any more, as it should")
            return
        raise BoardError(f"{what} did not take: the ROM still answers", board=self.plan.mac)

    def leave_to_firmware(self, step: FirmwareBurns) -> None:
        self.remarks.append(step.text())

    def firmware_command(self, step: FirmwareCommand) -> None:
        # Behind the lock that it burns the chip tells next to nothing: what is known now is written down first.
        self._store_record(lock_of(self._state), profile=profile_of(self._state, self._earlier).profile)
        self.board.let_go()
        assert self._firmware is not None
        self._firmware(step)
        if step.final:
            self._require_no_download(step.text())
        elif self.board.fresh().state().download is not Download.SECURE:
            raise BoardError(
                f"{step.calls} did not take: the ROM still works without Secure Download Mode",
                board=self.plan.mac,
                todo="read the firmware's log; then plan again",
            )

    def write_record(self, _: WriteRecord) -> None:
        self._store_record(self.plan.lock)
        self.vault.clear_intent(self.plan.mac)

    def _store_record(self, lock: Lock, *, profile: Profile | None = None) -> None:
        plan, earlier = self.plan, self.records.read(self.plan.mac)
        ref = self.vault.key(plan.mac)
        blocks = flash_key_blocks(self._state)
        flashed = {step.name: step.sha256 for step in plan.writes}
        encrypted = plan.profile.encrypts and plan.key_state is None
        kept = earlier.digests if earlier is not None and plan.profile.secure_boot else {}
        self.record = DeviceRecord(
            mac=plan.mac,
            chip_name=plan.chip_name,
            profile=profile or plan.profile,
            lock=lock,
            key_id=ref.key_id if encrypted and ref is not None else None,
            key_state=ref.state.value if encrypted and ref is not None else plan.key_state,
            key_block=blocks[0].name if blocks else (earlier.key_block if earlier is not None else None),
            fuses=self._state.fuses or (earlier.fuses if earlier is not None else {}),
            flashed=flashed or (earlier.flashed if earlier is not None else {}),
            plan_id=plan.id,
            updated=now_utc(),
            digests={str(slot): digest for slot, digest in self._burned_digests()} or kept,
            proven=earlier.proven if earlier is not None else (),
            # What was burned now is compared anew when the board boots.
            differences=earlier.differences if earlier is not None and not plan.burns else (),
        )
        self.records.write(self.record)

    @property
    def _earlier(self) -> DeviceRecord | None:
        return self.records.read(self.plan.mac)

    def _burned_digests(self) -> tuple[tuple[int, str], ...]:
        """Slot and whole digest of the plan's boot keys, by the slot in which each really lies; of revoked ones none."""
        where = {
            slot.block.digest: slot.number
            for slot in trusted_slots(self._state)
            if slot.block is not None and slot.block.digest is not None
        }
        if self.plan.state.download is not Download.OPEN and self._earlier is not None:
            # The chip does not tell any more which of them it trusts; the record was written when it did.
            return tuple((int(slot), digest) for slot, digest in self._earlier.digests.items())
        revoked = {slot.number for slot in digest_slots(self._state) if slot.revoked}
        size = 2 * self.chip.secure_boot.digest_size_bytes
        return tuple(
            (where.get(digest[:size], slot), digest)
            for slot, digest, _ in self.plan.digests
            if digest[:size] in where or slot not in revoked
        )

    def _in_flash(self, step: WriteFlash) -> bytes:
        """The bytes as they lie in flash; enciphered once per run."""
        if step.name not in self._contents:
            data = self._regions[step.name].data
            if step.enciphered:
                data = encrypt(self.chip.cipher, self._key(), step.offset, pad_to_block(data))
            if step.by_chip:
                data = pad_to_block(data, self.chip.encrypted_write_align_bytes)
            # esptool pads to 4 bytes with 0xFF; padding here keeps our MD5 the same as its.
            self._contents[step.name] = pad_to_block(data, 4)
        return self._contents[step.name]


_PERFORM: Mapping[type[Step], Callable[..., None]] = {
    MakeKey: _Run.make_key,
    BurnKey: _Run.burn_key,
    BurnDigest: _Run.burn_digest,
    ProtectKey: _Run.protect_key,
    BurnFuses: _Run.burn_fuses,
    WriteProtect: _Run.write_protect,
    Canary: _Run.canary,
    DecipherCheck: _Run.decipher_check,
    WriteFlash: _Run.write_flash,
    ReadBack: _Run.read_back,
    ConfirmFuses: _Run.confirm_fuses,
    LockDownload: _Run.lock_download,
    FirmwareBurns: _Run.leave_to_firmware,
    FirmwareCommand: _Run.firmware_command,
    WriteRecord: _Run.write_record,
}


def _require_contents(plan: Plan, regions: Sequence[FlashRegion]) -> None:
    given = {region.name: region for region in regions}
    for step in plan.writes:
        region = given.get(step.name)
        if region is None or region.sha256 != step.sha256 or region.offset != step.offset:
            what = "is not given" if region is None else "is not the one that was planned"
            raise UsageError(
                f"the content of {step.name} {what}", board=plan.mac, todo="plan again with these images"
            )


def _with_fuse(state: ChipState, fuse: str) -> ChipState:
    """`state` after a fuse was burned that can no longer be read."""
    return ChipState(
        state.chip_name,
        state.mac,
        state.revision,
        {**state.fuses, fuse: 1},
        state.write_protected,
        state.hidden,
        state.key_blocks,
        state.download,
        state.security_info,
    )
