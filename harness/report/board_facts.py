"""What a run's record says of a board: identity, fuses, app, plan. Never a key, never the value of a key block."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from harness.board import Board
from harness.build.app_dir import AppDirectory
from harness.chips import Chip
from harness.errors import HarnessError
from harness.provision.chip_state import ChipState
from harness.provision.plan import Plan
from harness.provision.promise import described, state_after
from harness.provision.steps import LockDownload
from harness.report.run_record import AppFacts, BoardRecord
from harness.vault.key_life import due_notes
from harness.vault.key_record import KeyRecord
from harness.vault.key_ref import KEYLESS


def facts_of(board: Board, folder: Path, *, name: str | None = None) -> BoardRecord:
    """What is known of `board` now; paths are relative to `folder`, the run's. Nothing is asked of the board."""
    state = _state(board)
    plan = board.plans[-1] if board.plans else None
    key = _flash_key(board)
    return BoardRecord(
        name=name or board.name,
        link=board.link.kind,
        chip=board.chip.name,
        virtual=not board.link.physical,
        mac=board.mac,
        revision=_revision(state),
        profile=board.profile.value if board.profile is not None else None,
        lock=board.lock.value if board.lock is not None else None,
        fuses=_recorded_fuses(board, state) if state is not None else {},
        app=_app(board.app) if board.app is not None else None,
        plan=json.loads(plan.to_json()) if plan is not None else None,
        unfinished=plan is not None and _is_unfinished(board, plan),
        plan_text=tuple(line for each in board.plans for line in each.text().splitlines()),
        log=relative(board.log_path, folder),
        raw_log=relative(board.console.raw_path, folder),
        flash_key=_key_text(key) if key is not None else None,
        marks=tuple(due_notes(key)) if key is not None else (),
    )


def _key_text(key: KeyRecord) -> str:
    """By its id, where there is one; a key that the device made has none."""
    return f"{key.key_id}, {key.state.value}" if key.key_id else KEYLESS.get(key.state, key.state.value)


def relative(path: Path, folder: Path) -> str:
    """`path` as it is written in the record of the run in `folder`."""
    try:
        return path.absolute().relative_to(folder.absolute()).as_posix()
    except ValueError:
        return str(path)


def _is_unfinished(board: Board, plan: Plan) -> bool:
    """Whether `plan` has not been carried out to its end: what the board is by now is what the plan begins with, or a
    part of the way from there."""
    return board.profile is not plan.profile


def _state(board: Board) -> ChipState | None:
    """The chip after what its last plan burned, as far as the run knows it."""
    if not board.plans:
        return None
    plan = board.plans[-1]
    if _is_unfinished(board, plan):
        return plan.state
    state = state_after(plan.state, plan.steps)
    locks = {step.fuse: 1 for step in plan.steps if isinstance(step, LockDownload)}
    return replace(state, fuses={**state.fuses, **locks})


def _revision(state: ChipState | None) -> str | None:
    if state is None or state.revision is None:
        return None
    return f"v{state.revision // 100}.{state.revision % 100}"


def _recorded_fuses(board: Board, state: ChipState) -> dict[str, str]:
    """The fuses, from the device record where the ROM tells them no more."""
    found = fuses_of(state)
    record = None
    if not state.fuses and board.mac is not None:
        try:
            record = board.records.read(board.mac)
        except HarnessError:
            # Damaged or of a newer harness: whoever uses it says so.
            return found
    if record is None:
        return found
    known = {name: _value(record.fuses[name]) for name in security_fuses(state.chip) if name in record.fuses}
    return {**known, **found}


def fuses_of(state: ChipState) -> dict[str, str]:
    """Security-relevant eFuses of `state` by espefuse's names, and each key block by purpose and protection."""
    found = {}
    for name in security_fuses(state.chip):
        if name in state.fuses:
            protected = ", write-protected" if name in state.write_protected else ""
            found[name] = _value(state.fuses[name]) + protected
    for block in state.key_blocks:
        found[block.name] = described(block).removeprefix(f"{block.name} ")
    return found


def _value(value: int) -> str:
    return str(value) if value < 10 else f"{value:#x}"


def security_fuses(chip: Chip) -> tuple[str, ...]:
    """Names of the fuses that flash encryption, secure boot and the locks of `chip` are made of."""
    fuses, boot = chip.fuses, chip.secure_boot
    names = [
        fuses.counter,
        *(name for name, _ in fuses.key_config),
        *fuses.release,
        fuses.manual_encrypt_disable,
        fuses.secure_download,
        fuses.download_off,
        boot.enable,
        *(name for name, _ in boot.burned_with),
        *boot.revoke,
        boot.aggressive_revoke,
        boot.sha384_enable,
        boot.curve_mode,
        "SECURE_VERSION",
    ]
    return tuple(dict.fromkeys(name for name in names if name))


def _app(app: AppDirectory) -> AppFacts:
    return AppFacts(
        project=app.project,
        version=app.version,
        sha256=app.release.sha256.hex(),
        idf_version=app.idf_version or None,
        kind=app.kind,
    )


def _flash_key(board: Board) -> KeyRecord | None:
    """What the vault says of its key. A vault that was not opened is not opened for it."""
    if board.mac is None or not board.encrypts:
        return None
    try:
        return board.vault.key_record(board.mac)
    except HarnessError:
        return None
