"""Checks the folder of a qualification: every file against the manifests, the signature over them, and the record."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, UsageError
from harness.qualify.evidence import (
    MANIFEST,
    SEAL,
    SIGNATURE,
    STATEMENT,
    Discrepancies,
    Manifest,
    both,
    compare,
    evidence_in,
    foreign_in,
    read_manifest,
    sealed_in,
)
from harness.qualify.signature import Signed, fingerprint, is_good, load_public_key, read_signature
from harness.report.html.report_file import report_of
from harness.report.run_record import RUN_FILE, RunRecord
from harness.report.writing import REPORT_FILE

_LATER = ("evidence_sha256", "evidence_files", "signature")
"""What ``run.json`` knows of the evidence and the statement, being evidence itself, cannot."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found."""

    folder: Path
    digest: str
    """Over the evidence, as the first page names it."""
    files: int
    pages: int
    """Files that are made from the evidence."""
    differs: Discrepancies
    derived: tuple[str, ...]
    """What the record says otherwise than the evidence."""
    signature: str
    """``good``, ``bad``, ``by another key``, ``none``."""
    key_sha256: str | None
    algorithm: str | None
    demanded_signer: bool
    verdict: str = ""
    """What the qualification says, and of which unit."""
    made_again: bool = False
    """The report is not the one that was sealed, but what this harness makes of the sealed record."""

    @property
    def ok(self) -> bool:
        """Nothing was changed, and the signature is good, where there or demanded."""
        unsigned_is_fine = self.signature == "none" and not self.demanded_signer
        return not self.differs.any and not self.derived and (self.signature == "good" or unsigned_is_fine)

    def lines(self) -> list[str]:
        """For a person."""
        files = (
            f"{self.files} files of evidence, SHA-256 over all {self.digest}, and {self.pages} made from them"
        )
        rows = [f"✗ {line}" for line in (*self.differs.lines(), *self.derived)]
        rows = rows or [f"✓ {files}: all as they were sealed"]
        if self.made_again:
            rows.append(
                f"- {REPORT_FILE}: made again, not the sealed one; it says what the sealed {RUN_FILE} says"
            )
        if self.signature == "none":
            rows.append(f"{'✗' if self.demanded_signer else '-'} not signed: {_UNSIGNED}")
        else:
            by = f"{self.algorithm}, public key SHA-256 {self.key_sha256}"
            rows.append(f"{'✓' if self.signature == 'good' else '✗'} signature {self.signature}: {by}")
            if self.signature == "good" and not self.demanded_signer:
                rows.append("  whose key that is, this does not say: compare its SHA-256, or give --signer")
        if self.ok and self.verdict:
            rows.append(f"  the qualification says: {self.verdict}")
        return [*rows, "GOOD" if self.ok else "NOT GOOD"]

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "format": 1,
            "ok": self.ok,
            "evidence_sha256": self.digest,
            "files": self.files,
            "changed": list(self.differs.changed),
            "missing": list(self.differs.missing),
            "added": list(self.differs.added),
            "foreign": list(self.differs.foreign),
            "derived": list(self.derived),
            "report_made_again": self.made_again,
            "verdict": self.verdict,
            "signature": self.signature,
            "algorithm": self.algorithm,
            "key_sha256": self.key_sha256,
        }


_UNSIGNED = "whoever changed a file could have made the manifests again"


def verify_folder(folder: Path, signer: Path | None) -> Verification:
    """Checks the folder of a qualification.

    Args:
        signer: PEM file with the public key that must have signed; None: any, or none.

    Raises:
        UsageError: it holds no sealed evidence, or the signer's key cannot be read.
        LabError: a file in it cannot be read.
    """
    wanted = fingerprint(load_public_key(signer)) if signer is not None else None
    evidence, seal = read_manifest(folder / MANIFEST), read_manifest(folder / SEAL)
    differs = both(
        (compare(evidence_in(folder), evidence), compare(sealed_in(folder), seal)), foreign_in(folder)
    )
    if RUN_FILE not in seal.sha256 or MANIFEST not in seal.sha256:
        raise UsageError(f"{folder / SEAL} does not name {RUN_FILE} and {MANIFEST}: it seals nothing")
    differs, made_again = _report_made_again(folder, differs)
    signed = read_signature(folder)
    state, key = "none", None
    if signed is not None:
        key = signed.key_sha256
        state = "good" if is_good(signed, (folder / SEAL).read_bytes()) else "bad"
        if state == "good" and wanted is not None and wanted != key:
            state = "by another key"
    derived, verdict = _derived(folder, evidence, signed)
    return Verification(
        folder,
        evidence.digest,
        len(evidence.sha256),
        len(seal.sha256) - 1,
        differs,
        derived,
        state,
        key,
        signed.algorithm if signed is not None else None,
        wanted is not None,
        verdict,
        made_again,
    )


def _report_made_again(folder: Path, differs: Discrepancies) -> tuple[Discrepancies, bool]:
    """Whether the report, and nothing else, is another one, and is what follows from the sealed record and logs."""
    if differs != Discrepancies(changed=(REPORT_FILE,)):
        return differs, False
    try:
        run = RunRecord.model_validate_json((folder / RUN_FILE).read_bytes())
        follows = report_of(run, folder).encode(errors="replace")
    except (HarnessError, ValueError):
        return differs, False
    if follows != (folder / REPORT_FILE).read_bytes():
        return differs, False
    return replace(differs, changed=()), True


def _derived(folder: Path, evidence: Manifest, signed: Signed | None) -> tuple[tuple[str, ...], str]:
    """What the record, of which reports are made, says otherwise than the evidence; and the verdict."""
    try:
        statement = json.loads((folder / STATEMENT).read_bytes())
        record = json.loads((folder / RUN_FILE).read_bytes())
        told = record["qualification"]
        same = {k: v for k, v in told.items() if k not in _LATER} == {
            k: v for k, v in statement.items() if k not in _LATER
        }
        verdict = f"{str(statement['verdict']).upper()}, {statement['product']}, run {record['id']}"
        unit = statement["silicon"]
        verdict += f", {statement['unit']} unit {unit['board']}, MAC {unit['mac'] or 'unknown'}"
    except OSError as error:
        return (f"{Path(error.filename).name}: cannot be read",), ""
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return (f"{RUN_FILE} or {STATEMENT}: cannot be understood ({type(error).__name__})",), ""
    found = [] if same else [f"{RUN_FILE}: says otherwise than {STATEMENT}"]
    if record.get("verdict") != statement["verdict"]:
        found.append(f"{RUN_FILE}: has another verdict than {STATEMENT}")
    if told.get("evidence_sha256") != evidence.digest:
        found.append(f"{RUN_FILE}: names another digest of the evidence")
    by = (told.get("signature") or {}).get("key_sha256")
    if by is not None and signed is None:
        found.append(f"{SIGNATURE}: missing, and the first page says that it was signed")
    elif signed is not None and by != signed.key_sha256:
        found.append(f"{SIGNATURE}: by another key than the first page names")
    return tuple(found), verdict if verdict.isprintable() else ascii(verdict)
