"""What `RunRecord.qualification` holds: the first page of the report, its printed form, and the evidence's digest.

Every report of a qualification is made from this, and from nothing else.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

FORMAT = 1


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class ClaimRow(_Record):
    """One claim."""

    key: str
    text: str
    standing: str
    evidence: str
    case: str
    """Name of the case that it comes from."""
    requirement: str | None = None
    line: int | None = None
    """Line of the board's log (``Line.n``)."""


class RequirementRow(_Record):
    """One requirement of somebody's specification."""

    id: str
    claims: tuple[str, ...]
    """Keys."""
    standing: str
    """The worst of its claims; ``not proven`` where one of them was not covered."""


class ImageRow(_Record):
    """One of the demanded files."""

    role: str
    file: str
    sha256: str
    size: int
    project: str = ""
    version: str = ""
    image_sha256: str = ""
    """That ESP-IDF appends to the image."""
    elf_sha256: str = ""
    idf_version: str = ""


class SiliconRow(_Record):
    """The unit and its chip."""

    board: str
    link: str
    chip: str
    mac: str | None = None
    identity: str = "unknown"
    """How it is known that it is this one."""
    revision: str | None = None
    lock: str | None = None
    fuses: dict[str, int] = {}
    """The last snapshot of BLOCK0 before the lock."""
    fuses_by: str | None = None
    """Where it is from; None: there is none."""
    security_info: dict[str, Any] | None = None
    """What the ROM told after the lock: flags, crypt_count, key_purposes, secure_boot, secure_download."""
    rom_answered: bool = False
    not_read: str | None = None
    """Why the ROM was not asked, or what it does not tell."""


class UncoveredRow(_Record):
    """What this qualification says nothing about."""

    what: str
    why: str


class Qualification(_Record):
    """All of it."""

    format: int = FORMAT
    product: str
    unit: str
    """``ship`` or ``sacrificial``."""
    observed: bool
    """``--observe``: eFuses and flash were not touched over the UART."""
    verdict: str
    """``passed``, ``failed``, ``not proven``."""
    reason: str
    demanded: tuple[str, ...]
    """What was demanded, in words: profile, images, end state."""
    claims: tuple[ClaimRow, ...]
    requirements: tuple[RequirementRow, ...] = ()
    silicon: SiliconRow
    images: tuple[ImageRow, ...] = ()
    versions: dict[str, str] = {}
    end_state: dict[str, str] = {}
    """``image``, ``version``, ``slot``, ``otadata``: how the unit was left, as far as it was seen."""
    not_covered: tuple[UncoveredRow, ...] = ()
    marks: tuple[str, ...] = ()
    server: str = ""
    qualify_file: str = ""
    """Name of the copy of qualify.yaml among the evidence."""
    evidence_sha256: str | None = None
    """SHA-256 of the manifest ``evidence.sha256``, which holds that of every file of evidence."""
    evidence_files: int = 0
    signature: dict[str, str] | None = None
    """``algorithm``, ``key_sha256`` (of the public key)."""

    def how(self) -> str:
        """How the unit was looked at, in words."""
        if self.observed:
            return "observed: eFuses and flash were not touched over the UART"
        return (
            "its ROM was asked"
            if self.silicon.rom_answered
            else f"its ROM told nothing: {self.silicon.not_read}"
        )

    def uncovered_by_reason(self) -> dict[str, list[str]]:
        """What was not covered, by why."""
        found: dict[str, list[str]] = {}
        for row in self.not_covered:
            found.setdefault(row.why, []).append(row.what)
        return found
