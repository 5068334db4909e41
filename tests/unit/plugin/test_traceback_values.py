"""What pytest shows of variables when something breaks inside the harness: no byte strings, no long numbers."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.chips import ESP32C3
from harness.errors import FormatError
from harness.formats.flash_encryption import encrypt
from harness.traceback_values import hidden, hide_values

KEY = hashlib.sha256(b"a key").digest()


def shown(*, hide: bool) -> str:
    """What pytest says, with every variable, of a call with a key that fails inside the harness."""
    mine = b"what the test has in hand"
    with pytest.raises(FormatError) as caught:
        encrypt(ESP32C3.cipher, KEY + mine, 0, b"x" * 64)
    report = SimpleNamespace(longrepr=caught.getrepr(showlocals=True, style="long", funcargs=True))
    if hide:
        hide_values(report, Path.cwd())
    return str(report.longrepr)


def test_keys_are_not_among_the_variables_of_a_failure_inside_the_harness() -> None:
    part = repr(KEY)[2:30]
    assert part in shown(hide=False), "pytest would show it"
    assert part not in shown(hide=True)


def test_the_variables_of_the_test_itself_are_shown() -> None:
    assert "mine       = b'what the test has in hand'" in shown(hide=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("key        = b'\\x01\\'a'", "key        = <bytes>"),
        ("b\"\\\"x'y\" == b'z'", "<bytes> == <bytes>"),
        ("b'\\x01...\\x02'", "<bytes>"),
        ("bytearray(b'abc')", "bytearray(<bytes>)"),
        (f"text = '{KEY.hex()}'", "text = '<digits>'"),
        (f"d = {int.from_bytes(KEY, 'big')}", "d = <digits>"),
        (f"words = {list(KEY)}", "words = <numbers>"),
        ("words = [0x01234567, 0x89abcdef, 0, 1, 2, 3, 4, 5]", "words = <numbers>"),
        ("slots = [0, 1]", "slots = [0, 1]"),
        (
            "mac = '7c:df:a1:00:00:01', plan b63e825ea04dc258",
            "mac = '7c:df:a1:00:00:01', plan b63e825ea04dc258",
        ),
    ],
)
def test_what_may_be_a_key_is_left_out_of_a_value(text: str, expected: str) -> None:
    assert hidden(text) == expected


def test_a_failure_without_a_traceback_stays_as_it_is() -> None:
    report = SimpleNamespace(longrepr="board c3: refused")
    hide_values(report, Path.cwd())
    assert report.longrepr == "board c3: refused"
