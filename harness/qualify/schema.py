"""The JSON Schema of qualify.yaml, for editors."""

from __future__ import annotations

from typing import Any

from harness.inventory.schema import schema_of
from harness.qualify.file import QualifyFile

ADDRESS = "urn:esp32-secure-ota-harness:qualify.yaml:1"
"""A name, no place: nothing is fetched."""


def qualify_schema() -> dict[str, Any]:
    """The schema of qualify.yaml."""
    return schema_of(QualifyFile, ADDRESS, "qualify.yaml of esp32-secure-ota-harness")
