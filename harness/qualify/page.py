"""The first page as text, for the terminal and for the folder. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from harness.qualify.qualification import Qualification

_SIGNS = {"proven": "✓", "failed": "✗", "not proven": "?", "not applicable": "-"}
RULE = "─" * 78


def page_lines(done: Qualification) -> Iterator[str]:
    """The whole page, one line each."""
    yield f"QUALIFICATION  {done.product}"
    yield RULE
    yield f"Verdict: {done.verdict.upper()}"
    yield f"         {done.reason}"
    yield from (f"       ! {mark}" for mark in done.marks)
    yield f"Unit:    {done.unit}, {done.how()}"
    yield from _section("What was demanded", done.demanded)
    if done.requirements:
        rows = [f"{_SIGNS[each.standing]} {each.id}: {', '.join(each.claims)}" for each in done.requirements]
        yield from _section("Requirements", rows)
    yield from _section("What was shown", _claims(done))
    yield from _section("On which silicon", _silicon(done))
    yield from _section("By which files and versions", _files(done))
    yield from _section("How the unit was left", [f"{key}: {value}" for key, value in done.end_state.items()])
    yield from _section("What was NOT covered", _uncovered(done))
    yield from _section("Evidence", _evidence(done))
    yield ""
    yield "Approved by: ______________________________   Date: __________________"


def _section(title: str, rows: object) -> Iterator[str]:
    yield ""
    yield title
    empty = True
    for row in rows if isinstance(rows, (list, tuple, Iterator)) else ():
        empty = False
        yield f"  {row}"
    if empty:
        yield "  (nothing)"


def _claims(done: Qualification) -> Iterator[str]:
    for row in done.claims:
        requirement = f" [{row.requirement}]" if row.requirement else ""
        yield f"{_SIGNS[row.standing]} {row.standing.upper():14} {row.text}{requirement}"
        yield f"    {row.evidence}" + (f" (log line {row.line + 1})" if row.line is not None else "")


def _uncovered(done: Qualification) -> Iterator[str]:
    for why, rows in done.uncovered_by_reason().items():
        yield f"{why}:"
        yield from (f"  - {what}" for what in rows)


def _silicon(done: Qualification) -> Iterator[str]:
    facts = done.silicon
    yield f"{facts.chip} {facts.revision or '(revision not read)'}, board {facts.board}"
    yield f"MAC {facts.mac or 'unknown'} ({facts.identity}), link {facts.link}"
    yield f"UART download: {facts.lock or 'not read'}"
    if facts.fuses:
        yield f"eFuses, {facts.fuses_by}:"
        set_ones = {name: value for name, value in facts.fuses.items() if value}
        yield "  " + (", ".join(f"{name}={value:#x}" for name, value in sorted(set_ones.items())) or "all 0")
    info = facts.security_info
    yield (
        f"security info after the lock: flags {info['flags']}, encryption counter {info['crypt_count']}, "
        f"key purposes {info['key_purposes']}"
        if info
        else f"security info: none ({facts.not_read or 'the chip has no such command, or is open'})"
    )


def _files(done: Qualification) -> Iterator[str]:
    for row in done.images:
        yield f"{row.role}: {row.file} {row.project} {row.version} ({row.size} bytes)"
        yield f"  SHA-256 {row.sha256}"
    yield ", ".join(f"{name} {value}" for name, value in done.versions.items())
    yield f"server: {done.server}"


def _evidence(done: Qualification) -> Iterator[str]:
    if done.evidence_sha256 is None:
        yield "its digest is in evidence.sha256, beside this page"
        return
    yield f"SHA-256 over {done.evidence_files} files (evidence.sha256): {done.evidence_sha256}"
    if done.signature:
        yield f"signed: {done.signature['algorithm']}, public key SHA-256 {done.signature['key_sha256']}"
    else:
        yield "not signed"
