"""JUnit XML of a run, as CI servers read it (pytest's ``xunit2``), with properties on suite and tests. Pure."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping
from typing import Any
from xml.etree import ElementTree

from harness.report.run_record import BoardRecord, RunRecord, TestRecord

_ILLEGAL = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 does not take."""


def junit_xml(run: RunRecord) -> str:
    """The document, with its declaration."""
    suites = ElementTree.Element("testsuites", name="harness")
    count = {word: sum(test.outcome == word for test in run.tests) for word in ("failed", "error")}
    skipped = sum(test.outcome in ("skipped", "not applicable", "not proven") for test in run.tests)
    ended_s = run.ended_s or max((test.began_s + test.duration_s for test in run.tests), default=run.began_s)
    began = datetime.datetime.fromtimestamp(run.began_s, datetime.timezone.utc)
    suite = ElementTree.SubElement(
        suites,
        "testsuite",
        name=run.kind,
        errors=str(count["error"]),
        failures=str(count["failed"]),
        skipped=str(skipped),
        tests=str(len(run.tests)),
        time=f"{ended_s - run.began_s:.3f}",
        timestamp=began.isoformat(timespec="seconds"),
        hostname=run.host,
    )
    _properties(suite, run_properties(run))
    boards = {board.name: board for board in run.boards}
    for test in run.tests:
        _case(suite, test, boards.get(test.board or ""))
    ElementTree.indent(suites)
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suites, encoding="unicode") + "\n"
    )


def properties_of(board: BoardRecord) -> dict[str, str]:
    """What a CI server shows beside a test: the board, in names that sort together."""
    found: dict[str, Any] = {
        "board": board.name,
        "chip": board.chip,
        "chip revision": board.revision,
        "mac": board.mac,
        "profile": board.profile,
        "lock": board.lock,
        "fuses before the plan" if board.unfinished else "fuses": fuse_summary(board.fuses),
    }
    if board.app is not None:
        found |= {
            "firmware": f"{board.app.project} {board.app.version}",
            "firmware sha256": board.app.sha256,
            "esp-idf": board.app.idf_version,
        }
    return {name: str(value) for name, value in found.items() if value}


def fuse_summary(fuses: Mapping[str, str]) -> str:
    """What is burned, in one line: ``SPI_BOOT_CRYPT_CNT=7; BLOCK_KEY0=XTS_AES_128_KEY hidden write-protected``."""
    burned = [f"{name}={value}" for name, value in fuses.items() if not _UNBURNED.fullmatch(value)]
    return "; ".join(burned) if burned else "none burned" if fuses else ""


_UNBURNED = re.compile(r"0|(USER )?empty writeable")


def run_properties(run: RunRecord) -> list[tuple[str, str]]:
    """What a CI server shows of the whole run: versions, and each board."""
    found = [("run", run.id), ("verdict", run.verdict), ("command", run.command), ("subject", run.subject)]
    found += [
        (name if name == "esp-idf" else f"{name} version", value) for name, value in run.versions.items()
    ]
    for board in run.boards:
        found += [
            (f"{board.name}: {name}", value)
            for name, value in properties_of(board).items()
            if name != "board"
        ]
    return [*found, *(("note", note) for note in run.notes)]


def _case(suite: ElementTree.Element, test: TestRecord, board: BoardRecord | None) -> None:
    class_name, name = _names(test.id)
    case = ElementTree.SubElement(
        suite, "testcase", classname=class_name, name=name, time=f"{test.duration_s:.3f}"
    )
    properties = list((properties_of(board) if board is not None else {}).items())
    properties += [("source", source) for source in test.sources]
    properties += list(test.properties.items())
    if test.repeat:
        properties.append(("repeat", test.repeat))
    _properties(case, properties)
    tag = {"failed": "failure", "error": "error", "passed": None}.get(test.outcome, "skipped")
    if tag is not None:
        ElementTree.SubElement(case, tag, message=_legal(test.cause or test.outcome)).text = _legal(
            test.detail or ""
        )


def _names(test_id: str) -> tuple[str, str]:
    """``tests/ota/test_it.py::Class::test[x]`` as pytest's own JUnit has it: ``tests.ota.test_it.Class``, ``test[x]``."""
    before, bracket, parameters = test_id.partition("[")
    path, *names = before.split("::")
    if not names:
        return ".".join(path.split("/")[:-1]) or "harness", path.split("/")[-1] + bracket + parameters
    folder = path.removesuffix(".py").replace("/", ".")
    return ".".join([folder, *names[:-1]]), names[-1] + bracket + parameters


def _properties(parent: ElementTree.Element, pairs: Iterable[tuple[str, str]]) -> None:
    found = list(pairs)
    if found:
        properties = ElementTree.SubElement(parent, "properties")
        for name, value in found:
            ElementTree.SubElement(properties, "property", name=_legal(name), value=_legal(value))


def _legal(text: str) -> str:
    return _ILLEGAL.sub(lambda match: f"#x{ord(match[0]):02X}", text)
