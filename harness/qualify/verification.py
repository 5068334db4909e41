"""Checks a folder of evidence: every file against the manifest, the manifest and its key against the signature."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.qualify.evidence import MANIFEST, STATEMENT, Discrepancies, compare, read_manifest
from harness.qualify.signature import fingerprint, is_good, load_public_key, read_signature
from harness.report.run_record import RUN_FILE

_LATER = ("evidence_sha256", "evidence_files", "signature")
"""What ``run.json`` knows of the evidence and the statement, being evidence itself, cannot."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found."""

    folder: Path
    digest: str
    files: int
    differs: Discrepancies
    derived: tuple[str, ...]
    """What reports say otherwise than the evidence."""
    signature: str
    """``good``, ``bad``, ``by another key``, ``none``."""
    key_sha256: str | None
    algorithm: str | None
    demanded_signer: bool

    @property
    def ok(self) -> bool:
        """Nothing was changed, and the signature is good, where there or demanded."""
        unsigned_is_fine = self.signature == "none" and not self.demanded_signer
        return not self.differs.any and not self.derived and (self.signature == "good" or unsigned_is_fine)

    def lines(self) -> list[str]:
        """For a person."""
        files = f"{self.files} files of evidence, SHA-256 over all {self.digest}"
        rows = [f"✗ {line}" for line in (*self.differs.lines(), *self.derived)]
        rows = rows or [f"✓ {files}: all as they were"]
        if self.signature == "none":
            rows.append(f"{'✗' if self.demanded_signer else '-'} not signed")
        else:
            by = f"{self.algorithm}, public key SHA-256 {self.key_sha256}"
            rows.append(f"{'✓' if self.signature == 'good' else '✗'} signature {self.signature}: {by}")
            if self.signature == "good" and not self.demanded_signer:
                rows.append("  whose key that is, this does not say: compare its SHA-256, or give --signer")
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
            "derived": list(self.derived),
            "signature": self.signature,
            "algorithm": self.algorithm,
            "key_sha256": self.key_sha256,
        }


def verify_folder(folder: Path, signer: Path | None) -> Verification:
    """Checks the folder of a qualification.

    Args:
        signer: PEM file with the public key that must have signed; None: any, or none.

    Raises:
        UsageError: it holds no evidence, or the signer's key cannot be read.
    """
    wanted = fingerprint(load_public_key(signer)) if signer is not None else None
    manifest = read_manifest(folder)
    signed = read_signature(folder)
    state, key = "none", None
    if signed is not None:
        key = signed.key_sha256
        text = (folder / MANIFEST).read_bytes()
        state = "good" if is_good(signed, text) else "bad"
        if state == "good" and wanted is not None and wanted != key:
            state = "by another key"
    return Verification(
        folder,
        manifest.digest,
        len(manifest.sha256),
        compare(folder, manifest),
        _derived(folder, manifest.digest),
        state,
        key,
        signed.algorithm if signed is not None else None,
        wanted is not None,
    )


def _derived(folder: Path, digest: str) -> tuple[str, ...]:
    """Whether ``run.json``, of which reports are made, says what the evidence says."""
    try:
        statement = json.loads((folder / STATEMENT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return (f"{STATEMENT}: cannot be read",)
    path = folder / RUN_FILE
    if not path.exists():
        return ()
    try:
        told = json.loads(path.read_text(encoding="utf-8"))["qualification"]
        told_digest = told["evidence_sha256"]
        same = {k: v for k, v in told.items() if k not in _LATER} == {
            k: v for k, v in statement.items() if k not in _LATER
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} cannot be understood: {type(error).__name__}") from error
    found = [] if same else [f"{RUN_FILE}: says otherwise than {STATEMENT}"]
    if told_digest != digest:
        found.append(f"{RUN_FILE}: names another digest of the evidence")
    return tuple(found)
