"""A whole qualification: files first, then the unit, then the folder of evidence."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from harness.board import Board
from harness.errors import HarnessError, NotProvenError, RefusedError, UsageError
from harness.inventory.entry import AnyEntry, PhysicalEntry
from harness.lab import Lab
from harness.provision.profile import Profile
from harness.qualify.actions import UartAction
from harness.qualify.artefacts import Artefacts
from harness.qualify.bench import Bench
from harness.qualify.evidence import PAGE, STATEMENT, write_evidence, write_seal
from harness.qualify.file import QualifyPlan
from harness.qualify.offer import Offer, key_of
from harness.qualify.outcome import (
    QUALIFY_COPY,
    qualification_of,
    reason_of,
    run_record,
    verdict_of,
)
from harness.qualify.page import page_lines
from harness.qualify.qualification import Qualification
from harness.qualify.run import carry_out, planned
from harness.qualify.signature import PrivateKey, algorithm_of, fingerprint, sign, write_signature
from harness.qualify.silicon import observed, read_silicon
from harness.qualify.trigger import Hands
from harness.qualify.unit import Unit
from harness.qualify.url_secrets import secrets_in_urls
from harness.rack.health import Health, HealthBook, mend_command, take_back_command
from harness.report.run_record import RunRecord
from harness.report.verdict import Verdict
from harness.report.writing import write_run


@dataclass(frozen=True, slots=True)
class Performed:
    """What came of it."""

    verdict: Verdict
    run: RunRecord
    """Without the evidence's digest: that comes when every file is closed."""
    error: BaseException | None = None
    """What broke it off; the record says so, and whoever asked for it raises it when all is written."""


def require_allowed(plan: QualifyPlan, entry: AnyEntry, name: str, *, observe: bool) -> None:
    """What must hold before anything is opened.

    Raises:
        RefusedError: cases that can destroy a physical unit whose entry does not allow that.
        UsageError: an observation that would send something over the UART.
    """
    file = plan.file
    if file.unit == "sacrificial" and observe:
        raise UsageError(
            "--observe is for units that are kept: a sacrificial unit is cut and given bad updates",
            board=name,
            todo="say 'unit: ship', or leave --observe out",
        )
    if file.unit == "sacrificial" and isinstance(entry, PhysicalEntry) and not entry.sacrificial:
        raise RefusedError(
            "qualify.yaml says 'unit: sacrificial', its entry in boards.yaml does not say 'sacrificial: true'. "
            "Nothing was touched",
            board=name,
            todo="say it there too, if this unit may be lost",
        )
    if not observe:
        return
    witnesses = (file.witness.version, file.witness.slot, file.witness.confirmed, file.witness.image)
    sends = any(isinstance(each, UartAction) for each in (*file.prepare, *file.trigger, *file.confirm))
    if sends or any(each is not None and each.send is not None for each in witnesses):
        raise UsageError(
            "--observe sends nothing over the UART, and qualify.yaml has an action or a witness that does",
            board=name,
            todo="use 'by: prompt', 'by: http' or 'by: command', or leave --observe out",
        )


def perform(
    lab: Lab,
    name: str,
    plan: QualifyPlan,
    artefacts: Artefacts,
    *,
    observe: bool,
    ask: Callable[[str], None],
    head: Mapping[str, Any],
) -> Performed:
    """Opens the unit, carries out the cases, and says what they show; leaves the logs in the lab's folder.

    `head` is what is known of the run when it begins, see `harness.report.recorder.head_of`.

    Raises:
        LabError, BoardError: the unit cannot be opened. What fails later is in what is returned.
    """
    entry = lab.inventory.named(name)
    board = lab.open(name)
    board.choose_vault(Profile.RELEASE)
    if plan.file.reset == "power":
        # Where nothing switches it, that is said now.
        lab.say.detail(f"it is reset by its supply: {board.power.description}")
    for secret in secrets_in_urls(plan.text, _public(board, artefacts)):
        board.console.hide(secret)
    (board.folder / QUALIFY_COPY).write_text(plan.shown(), encoding="utf-8")
    say = lab.say
    say.step(f"{name}: {board.chip.title} on {board.link.description}")
    # Without reset lines nothing would bring it back from download mode.
    blind = observe or plan.file.reset != "link"
    silicon = observed(board, entry) if blind else read_silicon(board, entry)
    if plan.file.image == "ciphertext":
        # A vault that does not open is told before the unit is touched; a key that is elsewhere, by the claims.
        with suppress(NotProvenError):
            key_of(board)
    unit = Unit(board, plan.file)
    hands = Hands(unit, plan, observe, ask)
    offer = Offer(plan, board, entry, hands, board.folder)
    withdrawn = withdrawn_of(HealthBook(lab.home).of(name))
    bench = Bench(plan, artefacts, board, hands, offer, silicon, say, observe, withdrawn)
    broken: BaseException | None = None
    try:
        carry_out(bench)
    except (HarnessError, OSError, KeyboardInterrupt, click.Abort) as error:
        # Ctrl-C, too: what was seen until then is on record. click has a name of its own for it.
        broken = error
        bench.break_off(error, planned(plan.file))
    subject = (
        f"{name} ({silicon.chip} {silicon.mac or 'MAC unknown'}), {plan.file.unit} unit, {plan.file.profile}"
    )
    verdict = verdict_of(bench, subject)
    qualification = qualification_of(bench, verdict, reason_of(verdict, bench.broken))
    run = run_record(bench, verdict, qualification, head)
    return Performed(verdict, run, broken)


def _public(board: Board, artefacts: Artefacts) -> tuple[str, ...]:
    """What a URL may also say, and the log must go on saying."""
    apps = (artefacts.running.facts, artefacts.update.facts)
    words = [
        (a.project, a.version, a.elf_sha256, a.image_sha256, a.file_sha256, str(a.size_bytes)) for a in apps
    ]
    return (
        board.name,
        board.chip.name,
        board.identity.declared or "",
        *(word for each in words for word in each),
    )


def withdrawn_of(health: Health) -> str | None:
    """Why nobody should ship this board as it is: it is retired, or latched broken; None: neither."""
    if health.retired is not None:
        return f"{health.retired_text()}; to undo that: {take_back_command(health.board)}"
    return (
        f"{health.text()}; to clear that: {mend_command(health.board)}" if health.broken is not None else None
    )


def seal(folder: Path, run: RunRecord, key: PrivateKey | None) -> RunRecord:
    """When every board is closed: writes the statement, the evidence's manifest, what is made of it, seal and signature.

    Returns:
        The record with the evidence's digest.
    """
    assert run.qualification is not None
    done = Qualification.model_validate(run.qualification)
    (folder / STATEMENT).write_text(
        json.dumps(done.model_dump(mode="json"), indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )
    manifest = write_evidence(folder)
    signature = None
    if key is not None:
        signature = {"algorithm": algorithm_of(key.public_key()), "key_sha256": fingerprint(key.public_key())}
    done = done.model_copy(
        update={
            "evidence_sha256": manifest.digest,
            "evidence_files": len(manifest.sha256),
            "signature": signature,
        }
    )
    run = run.model_copy(update={"qualification": done.model_dump(mode="json")})
    write_run(run, folder)
    (folder / PAGE).write_text("\n".join(page_lines(done)) + "\n", encoding="utf-8")
    # Last of all: what a person signs is sealed as it is, and the signature is over that.
    sealed = write_seal(folder)
    if key is not None:
        write_signature(folder, sign(sealed.text().encode(), key))
    return run
