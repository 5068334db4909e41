"""What pytest prints of variables: in frames of the harness, and of the libraries below it, keys are among them.

pytest shows the arguments of a function that fails, with --showlocals every variable, and of an assertion its operands.
The test's own frames stay as they are: what is in them, its author put there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness

_PACKAGE = Path(harness.__file__).parent

_BYTES = re.compile(r"""\bb(?P<quote>['"])(?:\\.|(?!(?P=quote))[^\\\n])*(?P=quote)?""")
_LONG_DIGITS = re.compile(r"\b(?:0x)?[0-9a-fA-F]{32,}\b|\b\d{30,}\b")
_NUMBERS = re.compile(r"\[\s*(?:(?:0x[0-9a-fA-F]+|\d+)\s*,\s*){7,}(?:0x[0-9a-fA-F]+|\d+|\.\.\.)\s*,?\s*\]")

_LEFT_OUT = "<values of this frame are not shown>"


def hide_values(report: Any, folder: Path) -> None:
    """Takes byte strings, long numbers and lists of numbers out of `report`, pytest's of a failed test.

    `folder` is what paths in it are relative to.
    """
    for entry in _entries(report.longrepr):
        place = getattr(getattr(entry, "reprfileloc", None), "path", None)
        if place is None:
            continue
        path = (folder / str(place)).resolve()
        if path.is_relative_to(_PACKAGE):
            _edit(entry, hidden)
        elif "site-packages" in path.parts or "dist-packages" in path.parts:
            # What these keep in their variables is not ours to know.
            _edit(entry, lambda _text: _LEFT_OUT)


def hidden(text: str) -> str:
    """`text` with lengths in place of what may be a key."""
    text = _BYTES.sub("<bytes>", text)
    return _NUMBERS.sub("<numbers>", _LONG_DIGITS.sub("<digits>", text))


def _entries(longrepr: Any) -> Iterator[Any]:
    chain = getattr(longrepr, "chain", None)
    tracebacks = [part[0] for part in chain] if chain else [getattr(longrepr, "reprtraceback", None)]
    for traceback in tracebacks:
        yield from getattr(traceback, "reprentries", ())


def _edit(entry: Any, change: Any) -> None:
    arguments = getattr(entry, "reprfuncargs", None)
    if arguments is not None:
        arguments.args = [(name, change(str(value))) for name, value in arguments.args]
    variables = getattr(entry, "reprlocals", None)
    if variables is not None:
        variables.lines = [_named(line, change) for line in variables.lines]
    # An assertion of the harness is explained by its operands, too.
    entry.lines = [hidden(line) if line.startswith("E ") else line for line in entry.lines]


def _named(line: str, change: Any) -> str:
    name, separator, value = line.partition(" = ")
    return f"{name}{separator}{change(value)}" if separator else str(change(line))
