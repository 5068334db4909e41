"""Why a test did not pass, in one sentence: from the harness's own errors, from assertions, from whatever was raised."""

from __future__ import annotations

import re

from harness.errors import HarnessError, LabError, RefusedError, UsageError
from harness.traceback_values import hidden

_LONGEST = 300
_SIGN = re.compile(r" (==|!=|<=|>=|<|>|is not|is|not in|in) ")
_QUOTES = "'\""
_BRACKETS = {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}
_ANSWERED = re.compile(r"Answer\(command='([\w-]{1,40})', ok=False, error='([\w-]{1,60})'")
"""What pytest shows of a `harness.console.device.Answer` whose ``ok`` was asserted: its error is the cause."""
_IS_NOT = {
    "==": "is not",
    "!=": "is",
    "<=": "is more than",
    ">=": "is less than",
    "<": "is not less than",
    ">": "is not more than",
    "is not": "is",
    "is": "is not",
    "not in": "is in",
    "in": "is not in",
}


def cause_of(error: BaseException, statement: str | None = None) -> str:
    """One sentence; `statement` is the source of the line of the test that raised `error`.

    Byte strings and long numbers are left out of it: they may be keys.
    """
    if isinstance(error, HarnessError):
        where = f"board {error.board}: " if error.board else ""
        # What follows, the last boot and the end of the log, is in the detail.
        first = error.message.strip().splitlines()[0] if error.message.strip() else type(error).__name__
        return _short(hidden(where + first))
    said = str(error).strip()
    first = said.splitlines()[0].strip() if said else ""
    if isinstance(error, AssertionError):
        answered = _ANSWERED.search(said)
        told = f": the board answered {answered[2]} to {answered[1]}" if answered else ""
        return _short(f"{_of_assertion(hidden(first), statement)}{told}")
    kind = type(error).__name__
    # pytest.fail and pytest.skip raise exceptions of their own, whose message is a person's.
    if kind in ("Failed", "Skipped", "Exit"):
        return _short(hidden(first)) or kind
    return _short(hidden(f"{kind}: {first}" if first else kind))


def is_of_the_board(error: BaseException) -> bool:
    """Whether `error` speaks of the board under test; else of the bench, or of what was asked of it."""
    return not isinstance(error, (LabError, RefusedError, UsageError, KeyboardInterrupt))


def _of_assertion(first: str, statement: str | None) -> str:
    claim = _asserted(statement)
    if not first.startswith("assert "):
        # The test's own words.
        return first or (f"{claim} does not hold" if claim else "an assertion does not hold")
    said = first.removeprefix("assert ")
    sign = _sign_between(said)
    if sign is None or said.startswith("not "):
        return f"{claim or said} does not hold"
    found = f"{said[: sign.start()]} {_IS_NOT[sign[1]]} {said[sign.end() :]}"
    return f"{claim} does not hold: {found}" if claim and claim not in found else found


def _sign_between(said: str) -> re.Match[str] | None:
    """The sign of a comparison, None where there is not just one outside of quotes and brackets."""
    signs, depth, quote = [], 0, ""
    at = 0
    while at < len(said):
        letter = said[at]
        found = None
        if quote:
            at += letter == "\\"
            quote = "" if letter == quote else quote
        elif letter in _QUOTES:
            quote = letter
        elif letter in _BRACKETS:
            depth += _BRACKETS[letter]
        elif not depth and (found := _SIGN.match(said, at)):
            signs.append(found)
        # The blank behind a sign is left: two signs may stand next to each other.
        at = found.end() - 1 if found else at + 1
    return signs[0] if len(signs) == 1 else None


def _asserted(statement: str | None) -> str | None:
    """What a statement asserts, without its message; None for one that is no assertion of one line."""
    if not statement:
        return None
    text = " ".join(line.strip() for line in statement.strip().splitlines())
    return text.removeprefix("assert ").strip() if text.startswith("assert ") else None


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
