"""Workflow commands of GitHub Actions: lines of a step's output that its runner reads."""

from __future__ import annotations


def escaped(text: str) -> str:
    """`text` as the data of a workflow command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def escaped_property(text: str) -> str:
    """`text` as the value of a property of a workflow command."""
    return escaped(text).replace(":", "%3A").replace(",", "%2C")


def command(kind: str, text: str, **properties: object) -> str:
    """A workflow command: ``error``, ``warning``, ``notice``. A property that is None is left out."""
    told = ",".join(
        f"{name}={escaped_property(str(value))}" for name, value in properties.items() if value is not None
    )
    return f"::{kind} {told}::{escaped(text)}" if told else f"::{kind}::{escaped(text)}"
