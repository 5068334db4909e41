"""From what the cases showed to the record of the run: `Qualification`, and the `RunRecord` behind all reports."""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import harness
from harness.board import Board
from harness.console.inference import boots_to_json
from harness.qualify import claims as c
from harness.qualify.artefacts import App, Artefacts, Loaded
from harness.qualify.bench import Bench, CaseResult, NotCovered
from harness.qualify.claims import Judged
from harness.qualify.file import ExternalServer, QualifyPlan
from harness.qualify.qualification import (
    ClaimRow,
    ImageRow,
    Qualification,
    RequirementRow,
    SiliconRow,
    UncoveredRow,
)
from harness.qualify.run import stated_end
from harness.qualify.silicon import READ_FROM_CHIP, TOLD_BY_LINK
from harness.qualify.url_secrets import without_url_secrets
from harness.report.failure import cause_of
from harness.report.run_record import (
    AppFacts,
    BoardRecord,
    ClaimRecord,
    Event,
    Outcome,
    RunRecord,
    TestRecord,
)
from harness.report.verdict import Standing, Verdict

SERIAL_LOG, RAW_LOG = "serial.log", "serial.raw"
OBSERVED_ONLY = "an observation touches neither: only the log was read"

_WORST = (Standing.FAILED, Standing.NOT_PROVEN, Standing.PROVEN, Standing.NOT_APPLICABLE)


def verdict_of(bench: Bench, subject: str) -> Verdict:
    """All claims, and those that requirements demand and no case has made."""
    claims = [judged.claim for judged in (*bench.claims, *unmet(bench))]
    return Verdict(subject, claims, {}, marks_of(bench))


def unmet(bench: Bench) -> tuple[Judged, ...]:
    """Demanded claims that nothing was seen of, since they were not covered."""
    made = {judged.key for judged in bench.claims}
    why = {each.key: each.why for each in bench.not_covered if each.key is not None}
    demanded = {
        key for identifier in bench.plan.file.requirements for key in bench.plan.file.claims_of(identifier)
    }
    return tuple(
        Judged.of(
            key, Standing.NOT_PROVEN, f"demanded, and not covered: {why.get(key, 'no case makes this claim')}"
        )
        for key in c.CLAIMS
        if key in demanded - made
    )


def reason_of(verdict: Verdict, broken: str | None = None) -> str:
    """Of the verdict, in one sentence; `broken`: why the qualification did not come to its end."""
    if broken is not None:
        return f"{verdict.word.lower()}: it was broken off: {broken}"
    bad = [claim for claim in verdict.claims if claim.standing is verdict.standing]
    if verdict.standing is Standing.PROVEN:
        return f"all {len(bad)} claims are proven"
    first = f"{bad[0].text}: {bad[0].evidence}" if bad else "no claim was made"
    more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
    return f"{verdict.word.lower()}: {first}{more}"


def marks_of(bench: Bench) -> tuple[str, ...]:
    """What whoever holds the unit must know, whatever was proven."""
    marks = []
    if bench.plan.file.unit == "sacrificial":
        marks.append("this unit was sacrificed: do not ship it")
    board, record = bench.board, bench.device_record
    if bench.withdrawn is not None:
        marks.append(bench.withdrawn)
    if record is not None and not record.shippable:
        marks.append(f"its flash key is {record.key_state} by its device record: do not ship it")
    if not board.link.physical:
        marks.append(f"this is no silicon: a {board.link.kind} was looked at")
    return tuple(marks)


def qualification_of(bench: Bench, verdict: Verdict, reason: str) -> Qualification:
    """Everything that the first page says, without the evidence's digest, which comes after it."""
    file, artefacts, silicon = bench.plan.file, bench.artefacts, bench.silicon
    rows = [_claim_row(bench, judged, result.name) for result in bench.results for judged in result.claims]
    rows += [_claim_row(bench, judged, "not covered") for judged in unmet(bench)]
    return Qualification(
        product=file.product or artefacts.update.facts.project,
        unit=file.unit,
        observed=bench.observe,
        verdict=verdict.word.lower(),
        reason=reason,
        demanded=_demanded(bench),
        claims=tuple(rows),
        requirements=_requirements(bench.plan, rows),
        silicon=SiliconRow(
            board=bench.board.name,
            link=bench.board.link.kind,
            chip=silicon.chip,
            mac=silicon.mac,
            identity=silicon.identity,
            revision=revision_of(bench),
            lock=silicon.lock,
            fuses=silicon.fuses,
            fuses_by=silicon.fuses_by,
            security_info=silicon.security_info,
            rom_answered=silicon.rom_answered,
            not_read=silicon.not_read,
        ),
        images=_images(artefacts),
        versions=versions(artefacts),
        end_state=_end_state(bench),
        not_covered=tuple(UncoveredRow(what=each.what, why=each.why) for each in _not_covered(bench)),
        marks=tuple(verdict.marks),
        server=_server(bench),
        qualify_file=f"{bench.board.name}/{QUALIFY_COPY}",
    )


_PRINTED_REVISION = re.compile(r"boot: chip revision: (v\d+\.\d+)")


def revision_of(bench: Bench) -> str | None:
    """As the ROM told it, else as the unit's bootloader printed it."""
    if bench.silicon.revision is not None:
        return bench.silicon.revision
    line = bench.unit.find(_PRINTED_REVISION, 0)
    match = _PRINTED_REVISION.search(line.text) if line is not None else None
    return f"{match[1]} (as its bootloader printed)" if match is not None else None


QUALIFY_COPY = "qualify.yaml"


def _claim_row(bench: Bench, judged: Judged, case: str) -> ClaimRow:
    return ClaimRow(
        key=judged.key,
        text=judged.claim.text,
        standing=judged.standing.value,
        evidence=judged.claim.evidence,
        case=case,
        requirement=bench.plan.file.requirements_of(judged.key),
        line=judged.line,
    )


def _requirements(plan: QualifyPlan, rows: Sequence[ClaimRow]) -> tuple[RequirementRow, ...]:
    found = []
    for identifier in plan.file.requirements:
        keys = plan.file.claims_of(identifier)
        standings = {row.standing for row in rows if row.key in keys}
        worst = next((each.value for each in _WORST if each.value in standings), Standing.NOT_PROVEN.value)
        found.append(RequirementRow(id=identifier, claims=tuple(keys), standing=worst))
    return tuple(found)


def _demanded(bench: Bench) -> tuple[str, ...]:
    file, artefacts = bench.file, bench.artefacts
    way = {
        "ciphertext": "enciphered on the host for the slot",
        "plaintext": "as plaintext, which the unit enciphers itself",
        "file": "as files that were made elsewhere",
    }[file.image]
    there = f"update from {artefacts.running.facts.text()} to {artefacts.update.facts.text()}, {way}"
    facts = stated_end(bench).facts
    slot = f" in {file.end.slot}" if file.end.slot else ""
    left = f"the unit ends with {facts.project} {facts.version}{slot}, otadata {file.end.otadata}"
    return (
        f"security profile {file.profile}",
        there,
        *(("the way back",) if file.there_and_back else ()),
        *(("rollback of an unconfirmed version",) if file.rollback else ()),
        left
        if file.unit == "ship" or file.end.image or file.end.slot
        else "a sacrificial unit: its end state is not demanded",
    )


def _images(artefacts: Artefacts) -> tuple[ImageRow, ...]:
    apps = {"running": artefacts.running, "update": artefacts.update}
    rows = [_app_row(role, app) for role, app in apps.items()]
    known = {app.file.path for app in apps.values()}
    rows += [_file_row(each) for each in artefacts.files if each.path not in known]
    return tuple(rows)


def _app_row(role: str, app: App) -> ImageRow:
    facts = app.facts
    return ImageRow(
        role=role,
        file=app.file.path.name,
        sha256=facts.file_sha256,
        size=facts.size_bytes,
        project=facts.project,
        version=facts.version,
        image_sha256=facts.image_sha256,
        elf_sha256=facts.elf_sha256,
        idf_version=facts.idf_version,
    )


def _file_row(loaded: Loaded) -> ImageRow:
    return ImageRow(role="file", file=loaded.path.name, sha256=loaded.sha256, size=len(loaded.data))


def versions(artefacts: Artefacts | None = None) -> dict[str, str]:
    """Of what took part."""
    found = {"harness": harness.__version__, "python": platform.python_version()}
    for package in ("esptool", "cryptography"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    if artefacts is not None and artefacts.update.facts.idf_version:
        found["esp-idf"] = artefacts.update.facts.idf_version
    return found


def _end_state(bench: Bench) -> dict[str, str]:
    boot = bench.boot
    if boot is None:
        return {}
    end = next((each for each in reversed(bench.claims) if each.key == c.END), None)
    running = bench.runs
    found = {"boot": boot.summary()}
    if boot.version is not None:
        found["version"] = boot.version
    place = bench.seen.place
    if place is not None:
        found["slot"] = place
    if running is not None:
        found["image"] = f"{running.facts.text()}"
        found["image_sha256"] = running.facts.file_sha256
    if end is not None:
        found["otadata"] = (
            bench.plan.file.end.otadata if end.standing is Standing.PROVEN else f"{end.standing.value}"
        )
    return found


def _not_covered(bench: Bench) -> list[NotCovered]:
    found = list(bench.not_covered)
    if bench.observe:
        found.append(NotCovered("eFuses, key blocks, and what lies in flash", OBSERVED_ONLY))
    elif bench.silicon.not_read is not None:
        found.append(NotCovered("eFuses as they are now", bench.silicon.not_read))
    if bench.silicon.identity not in (READ_FROM_CHIP, TOLD_BY_LINK):
        found.append(
            NotCovered(
                f"that the unit is the one with MAC {bench.silicon.mac or '(unknown)'}",
                f"its MAC is {bench.silicon.identity}",
            )
        )
    if bench.silicon.fuses_by is None:
        found.append(
            NotCovered(
                "a snapshot of the eFuses before the lock", "this harness has no device record of the unit"
            )
        )
    found.append(NotCovered("flash content byte by byte", "the log names the image; nothing was read back"))
    if not bench.board.link.physical:
        found.append(
            NotCovered("the silicon, its radio and its supply", f"the unit is a {bench.board.link.kind}")
        )
    return found


def _server(bench: Bench) -> str:
    server = bench.plan.file.server
    if isinstance(server, ExternalServer):
        return f"external: {without_url_secrets(server.url)}"
    how = "HTTPS with the given certificate" if server.certificate else "HTTP"
    return f"the harness's own, {how}" + (f", path {server.path}" if server.path else "")


def unopened_run(head: Mapping[str, Any], error: BaseException) -> RunRecord:
    """The record of a qualification whose unit could not be opened: nothing was looked at, and it says why."""
    reason = f"not proven: the unit was not looked at: {cause_of(error)}"
    return RunRecord.model_validate(
        {**head, "ended_s": time.time(), "verdict": "not proven", "reason": reason, "versions": versions()}
    )


# --- the run's record ------------------------------------------------------------------------------------------------


def run_record(
    bench: Bench,
    verdict: Verdict,
    qualification: Qualification,
    head: Mapping[str, Any],
) -> RunRecord:
    """The record of the whole run; the board's logs are where `harness.lab` puts them."""
    board, command = bench.board, str(head["command"])
    tests = tuple(_test(bench, result, command) for result in bench.results)
    word = qualification.verdict
    return RunRecord(
        id=str(head["id"]),
        kind="qualify",
        subject=verdict.subject,
        command=command,
        began_s=float(head["began_s"]),
        ended_s=time.time(),
        verdict="passed" if word == "passed" else "failed" if word == "failed" else "not proven",
        reason=qualification.reason,
        user=str(head["user"]),
        host=str(head["host"]),
        versions=qualification.versions,
        boards=(board_record(bench, board),),
        tests=tests,
        qualification=qualification.model_dump(mode="json"),
    )


def board_record(bench: Bench, board: Board) -> BoardRecord:
    """The unit, without any event of the companion's protocol."""
    silicon = bench.silicon
    boots = bench.unit.look()
    running = bench.runs
    return BoardRecord(
        name=board.name,
        link=board.link.kind,
        chip=silicon.chip,
        virtual=not board.link.physical,
        mac=silicon.mac,
        revision=revision_of(bench),
        profile=silicon.profile,
        lock=silicon.lock,
        fuses={name: f"{value:#x}" for name, value in silicon.fuses.items()},
        app=None
        if running is None
        else AppFacts(
            project=running.facts.project,
            version=running.facts.version,
            sha256=running.facts.file_sha256,
            idf_version=running.facts.idf_version or None,
            kind="native" if board.link.runs_native else "target",
        ),
        log=f"{board.name}/{SERIAL_LOG}",
        raw_log=f"{board.name}/{RAW_LOG}",
        boots=tuple(boots_to_json(boots, ())["boots"]),
        marks=marks_of(bench),
    )


_OUTCOMES: dict[Standing, Outcome] = {
    Standing.PROVEN: "passed",
    Standing.FAILED: "failed",
    Standing.NOT_PROVEN: "not proven",
    Standing.NOT_APPLICABLE: "not applicable",
}


def _test(bench: Bench, result: CaseResult, command: str) -> TestRecord:
    standings = {judged.standing for judged in result.claims}
    worst = next((each for each in _WORST if each in standings), Standing.NOT_PROVEN)
    bad = next((each for each in result.claims if each.standing is worst), None)
    cause = None if worst is Standing.PROVEN or bad is None else f"{bad.claim.text}: {bad.claim.evidence}"
    events = [
        Event(at_s=each.at_s, kind="served", text=each.text, size=each.size_bytes) for each in result.events
    ]
    for boot in bench.unit.look():
        if result.first_line <= boot.first_line <= result.last_line:
            events.append(
                Event(at_s=boot.started_wall, kind="reset", text=boot.summary(), line=boot.first_line)
            )
    return TestRecord(
        id=f"qualify/{result.name}",
        name=result.title,
        outcome=_OUTCOMES[worst],
        began_s=result.began_s,
        duration_s=max(0.0, result.ended_s - result.began_s),
        board=bench.board.name,
        profile=bench.plan.file.profile,
        cause=cause,
        detail="\n".join(result.steps) or None,
        repeat=command,
        claims=tuple(
            ClaimRecord(
                text=judged.claim.text,
                standing=judged.standing.value,
                evidence=judged.claim.evidence,
                requirement=bench.plan.file.requirements_of(judged.key),
                line=judged.line,
            )
            for judged in result.claims
        ),
        events=tuple(sorted(events, key=lambda event: event.at_s)),
        flash_before=result.flash_before,
        flash_after=result.flash_after,
        flash_steps=result.flash_steps,
        otadata_told=result.otadata,
        first_line=result.first_line,
        last_line=result.last_line,
    )
