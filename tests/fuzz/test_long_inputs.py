"""Inputs of some hundred thousand bytes take time in proportion to their length: none of them ever more than a limit."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.fuzz import findings
from tests.fuzz.table import TARGETS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no CPU time limits")

LIMIT_S = 8.0
"""What is quadratic takes minutes at these lengths, and the slowest of these a second."""

LONG: dict[str, tuple[str, Callable[[], bytes]]] = {
    # what it is: the target, and the input
    "short frames": ("slip", lambda: b"\0\xff" + b"\xc0a\xc0" * 40_000),
    "escapes": ("slip", lambda: b"\0\xff" + b"\xc0" + b"\xdb\xdd" * 100_000),
    "noise between frames": ("slip", lambda: b"\0\xff" + b"a" * 500_000),
    "no line end": ("log-stream", lambda: b"\0\0" + b"U" * 1_000_000),
    "empty lines": ("log-stream", lambda: b"\0\0" + b"\r\n" * 30_000),
    "bad UTF-8": ("log-stream", lambda: b"\0\0" + b"\xff\xc0\x80" * 60_000),
    "NULs": ("log-stream", lambda: b"\0\0" + bytes(150_000)),
    "banners": ("log-stream", lambda: b"\0\0" + b"ets Jul 29 2019 12:21:46" * 3_000),
    "resets": ("log-stream", lambda: b"\0\0" + b"rst:0x1 (POWERON),boot:0x8 (SPI)\n" * 3_000),
    "event markers": ("log-stream", lambda: b"\0\0" + b"@evt {" * 20_000),
    "brackets in an event": ("log-stream", lambda: b'\0\0@evt {"a":' + b"[" * 100_000),
    "colours": ("log-stream", lambda: b"\0\0" + b"\x1b[0;32m\x1b[" * 20_000),
    "errors": ("log-stream", lambda: b"\0\0" + b"".join(b"E (%d) a: b\n" % n for n in range(5_000))),
    "heads of messages": ("log-stream", lambda: b"\0\0" + b"I (1) a" * 20_000),
    "flood with a change": ("log-stream", lambda: b"\0\0" + (b"x\n" * 30 + b"y\n") * 1_000),
    "underscores": ("text-line", lambda: b"_" * 100_000),
    "letters": ("text-line", lambda: b"a" * 100_000),
    "colons and slashes": ("text-line", lambda: b"a://" * 20_000),
    "keys": ("text-line", lambda: b"key" * 30_000),
    "keys and blanks": ("text-line", lambda: b"key   " * 20_000 + b" " * 50_000),
    "open quotation marks": ("text-line", lambda: b'key="a ' * 10_000 + b"key='"),
    "private keys that end nowhere": ("text-line", lambda: b"-----BEGIN PRIVATE KEY" * 5_000),
    "units of a size": ("partition-csv", lambda: b"a, app, ota_0, , 1" + b"K" * 300_000),
    "digits of a size": ("partition-csv", lambda: b"a, app, ota_0, , " + b"9" * 300_000),
    "partitions": ("partition-csv", lambda: b"".join(b"p%d, data, nvs, , 0x1000\n" % n for n in range(3_000))),
    "blanks in an option": ("sdkconfig", lambda: b"CONFIG_A=" + b" " * 300_000 + b"x"),
    "headings": ("sdkconfig", lambda: b"(ESP-IDF) 1" * 20_000),
    "aliases of aliases": (
        "boards-yaml",
        lambda: b"a0: &a0 [x]\n" + b"".join(b"a%d: &a%d [*a%d, *a%d]\n" % (n, n, n - 1, n - 1) for n in range(1, 30)),
    ),
    "nested mappings": ("boards-yaml", lambda: b"{a: " * 5_000),
    "boards": ("boards-yaml", lambda: b"boards:\n" + b"".join(b"  b%d: {chip: no}\n" % n for n in range(1_000))),
    "nested JSON": ("key-record", lambda: b'{"format":2,"a":' + b"[" * 100_000),
    "history": ("key-record", lambda: b'{"format":2,"history":[' + b"{}," * 50_000 + b"{}]}"),
    "headers": ("http-request", lambda: b"\0GET {P} HTTP/1.1\r\n" + b"X: a\r\n" * 30_000),
    "a header that does not end": ("http-request", lambda: b"\0GET {P} HTTP/1.1\r\nX: " + b"a" * 300_000),
    "a pipeline": ("http-request", lambda: b"\0" + b"HEAD {P} HTTP/1.1\r\nHost: x\r\n\r\n" * 500),
}  # fmt: skip


@pytest.mark.parametrize("what", LONG)
def test_a_long_input_takes_no_longer_than_its_length_allows(what: str) -> None:
    name, make = LONG[what]
    _, finding = findings.run_once(replace(TARGETS[name], limit_s=LIMIT_S), make())
    assert finding is None, finding.report
