"""What a run leaves for people and machines: one JSON of everything, from which every report is made.

`RunRecord` is the only thing that the HTML report, JUnit properties, history and the lab's page know of a run. It holds
no secret, and paths in it are relative to its folder, so that the folder can be moved. Unix seconds (UTC) for moments,
seconds for durations, bytes for sizes and offsets.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

FORMAT = 1
"""Version of the JSON form. A reader of version N understands all versions up to N."""

RUN_FILE = "run.json"
"""In the folder of a run."""


class _Record(BaseModel):
    # What a newer harness of the same format adds is passed over. Numbers that are none are no moments and no sizes.
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


Outcome = Literal["passed", "failed", "error", "skipped", "not applicable", "not proven"]
"""Of a test or a step. ``error``: the bench or the board's preparation, not what was tested. ``not applicable``: the
question does not arise on this board. ``not proven``: nothing was seen that would decide it."""

Verdict = Literal["passed", "failed", "not proven"]
"""Of a run."""

Content = Literal["ciphertext", "plaintext", "erased", "unknown"]

Source = Literal["observed", "written", "told", "inferred"]
"""How something about flash is known: ``observed``: read from the flash itself; ``written``: the harness wrote it over
the UART; ``told``: the firmware said so in its events; ``inferred``: it follows from the log."""


class ClaimRecord(_Record):
    """One sentence about the device and what was seen of it; see `harness.report.verdict`."""

    text: str
    standing: Literal["proven", "failed", "not proven", "not applicable"]
    evidence: str
    requirement: str | None = None
    """Id that somebody's specification gives it."""
    line: int | None = None
    """Line of the board's log that shows it (``Line.n``)."""


class Event(_Record):
    """One thing on the timeline of a test."""

    at_s: float
    kind: str
    """``reset``, ``power``, ``rom``, ``bootloader``, ``app``, ``update``, ``served``, ``mark``, ``error``, …"""
    text: str
    duration_s: float | None = None
    size: int | None = None
    """Bytes that it moved."""
    line: int | None = None
    """Line of the board's log (``Line.n``)."""


class PartitionRow(_Record):
    """One row of the partition table; the bootloader and the table itself are rows, too."""

    label: str
    offset: int
    size: int
    kind: str
    """``bootloader``, ``table``, ``app``, ``otadata``, ``data``, …"""


class Extent(_Record):
    """A stretch of flash that holds the same kind of content."""

    offset: int
    size: int
    content: Content
    source: Source


class FlashMap(_Record):
    """What is known of the flash at one moment; stretches without an extent are unknown."""

    size: int
    partitions: tuple[PartitionRow, ...] = ()
    extents: tuple[Extent, ...] = ()


class FlashChange(_Record):
    """One erase or write, neighbours of one kind merged."""

    kind: Literal["erase", "write"]
    offset: int
    size: int
    encrypted: bool | None = None
    """What was written is ciphertext in flash; None: unknown, or an erase."""


class FlashStep(_Record):
    """What one step changed in flash."""

    text: str
    """``write bootloader``, ``update to 1.1.0``, ``otadata switched by the bootloader``."""
    at_s: float
    by: Literal["harness", "firmware", "bootloader", "unknown"]
    source: Source
    changes: tuple[FlashChange, ...]
    line: int | None = None


class OtadataSector(_Record):
    """One of the two otadata records."""

    sequence: int | None
    """None: blank or unreadable."""
    state: str
    """``new``, ``pending``, ``valid``, ``invalid``, ``aborted``, ``undefined``, ``blank``, ``damaged``."""
    slot: str | None = None


class OtadataView(_Record):
    """otadata at one moment, sector 0 first."""

    sectors: tuple[OtadataSector, ...]
    active: int | None
    """Index of the sector that the bootloader would follow."""
    source: Source


class AppFacts(_Record):
    """The firmware that ran."""

    project: str
    version: str
    sha256: str | None
    idf_version: str | None
    kind: str
    """``native`` or ``target``."""


class BoardRecord(_Record):
    """One board of a run: what it is, how it got there, what it said."""

    name: str
    link: str
    chip: str
    virtual: bool
    mac: str | None = None
    revision: str | None = None
    profile: str | None = None
    lock: str | None = None
    flash_key: str | None = None
    """Id and state of the key that enciphers its flash; never the key."""
    fuses: dict[str, str] = {}
    """Security-relevant eFuses by their espefuse names; key blocks by purpose and protection, never by value."""
    app: AppFacts | None = None
    plan: dict[str, Any] | None = None
    plan_text: tuple[str, ...] = ()
    unfinished: bool = False
    """Its last plan was not carried out to the end: ``fuses`` are those that it began with."""
    log: str | None = None
    """The time-stamped serial log."""
    raw_log: str | None = None
    boots: tuple[dict[str, Any], ...] = ()
    """`harness.console.boot_record` JSON, format 1."""
    findings: tuple[str, ...] = ()
    """What follows from several boots together."""
    marks: tuple[str, ...] = ()
    """What whoever holds the board must know: do not ship, and why."""
    prepared: TestRecord | None = None
    """How it became what the tests found: plan, provisioning, first boot. None: nobody prepared it apart from them."""
    problem: str | None = None
    """Why it could not be prepared, or was latched broken."""


class TestRecord(_Record):
    """One test on one board, or one step of a run that is no pytest."""

    __test__ = False

    id: str
    """Node id, or ``run`` / ``qualify`` and the name of a case."""
    name: str
    """For a person: without path, board and profile."""
    outcome: Outcome
    began_s: float
    duration_s: float
    board: str | None = None
    """Name of the board, as in ``RunRecord.boards``."""
    profile: str | None = None
    cause: str | None = None
    """Of a failure, an error or a skip, in one sentence."""
    detail: str | None = None
    """The failure at length: assertion and traceback, without secrets."""
    repeat: str | None = None
    """The command that runs it again."""
    claims: tuple[ClaimRecord, ...] = ()
    events: tuple[Event, ...] = ()
    first_line: int | None = None
    last_line: int | None = None
    """Lines of the board's log that belong to it, both included."""
    flash_before: FlashMap | None = None
    flash_after: FlashMap | None = None
    flash_steps: tuple[FlashStep, ...] = ()
    otadata_before: OtadataView | None = None
    otadata_after: OtadataView | None = None
    otadata_told: tuple[str, ...] = ()
    """Of a board whose otadata cannot be read: what the log tells of it, and why no more is known; a sentence each."""
    sources: tuple[str, ...] = ()
    """Public cases that it comes from."""
    properties: dict[str, str] = {}


BoardRecord.model_rebuild()


class RunRecord(_Record):
    """One run of pytest, ``harness run`` or ``harness qualify``."""

    format: int = FORMAT
    id: str
    """``20261126-182301-4f3a``: sorts by time, unique on a machine."""
    kind: str
    """``pytest``, ``run``, ``qualify``, …"""
    subject: str
    """What was looked at, in a few words: ``desk-c3, release``, ``tests/ota on 3 boards``."""
    command: str
    """The command line that repeats all of it."""
    began_s: float
    ended_s: float | None = None
    """None: it was killed."""
    verdict: Verdict
    reason: str = ""
    """Of the verdict, in one sentence."""
    user: str = ""
    host: str = ""
    versions: dict[str, str] = {}
    """``harness``, ``python``, ``esptool``, ``pytest``, ``esp-idf``, …"""
    boards: tuple[BoardRecord, ...] = ()
    tests: tuple[TestRecord, ...] = ()
    notes: tuple[str, ...] = ()
    """What it left out, what earlier runs left behind, what boards have left of what they have once."""
    qualification: dict[str, Any] | None = None
    """Of ``harness qualify`` only; see `harness.qualify`."""
