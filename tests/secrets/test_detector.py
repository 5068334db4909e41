"""The detector sees a secret in every form that a program may print, and sees none where there is none."""

from __future__ import annotations

import base64
import hashlib
import json
import pprint
import random
import re
import textwrap
import urllib.parse
from collections.abc import Callable

import pytest
from traces_of import LEAST, Secret, traces_of

KEY = hashlib.sha256(b"a flash key").digest()
SECRET = Secret("flash key", KEY)
WORDS = Secret("passphrase", b"Qu7mVxKp2TzRw9LcYh")


def swapped(data: bytes) -> bytes:
    return b"".join(data[at : at + 4][::-1] for at in range(0, len(data), 4))


def at_alignment(data: bytes, before: int) -> bytes:
    """base64 of a longer content, with `data` after `before` other bytes."""
    return base64.b64encode(b"xyz"[:before] + data + b"behind")


FORMS: dict[str, Callable[[bytes], bytes | str]] = {
    "raw": lambda data: data,
    "reversed": lambda data: data[::-1],
    "words swapped": swapped,
    "words swapped and reversed": lambda data: swapped(data)[::-1],
    "hex": lambda data: data.hex(),
    "HEX": lambda data: data.hex().upper(),
    "hex reversed": lambda data: data[::-1].hex(),
    "hex with spaces": lambda data: data.hex(" "),
    "hex with colons": lambda data: data.hex(":").upper(),
    "hex with dashes": lambda data: data.hex("-"),
    "hex words": lambda data: data.hex(" ", 4),
    "hex of registers": lambda data: " ".join(
        f"0x{int.from_bytes(data[n : n + 4], 'little'):08x}" for n in range(0, 32, 4)
    ),
    "hex of registers, last one first": lambda data: ", ".join(
        f"{int.from_bytes(data[n : n + 4], 'little'):08X}" for n in range(28, -1, -4)
    ),
    "hex in a C array": lambda data: ", ".join(f"0x{byte:02x}" for byte in data),
    "hex in lines": lambda data: "\n".join(textwrap.wrap(data.hex(), 10)),
    "hex dump with offsets within": lambda data: f"| {data[:16].hex(' ')} |\n| {data[16:].hex(' ')} |",
    "hex at an odd place": lambda data: "f" + data.hex(),
    "base64": base64.b64encode,
    "base64 one byte later": lambda data: at_alignment(data, 1),
    "base64 two bytes later": lambda data: at_alignment(data, 2),
    "base64 for URLs": base64.urlsafe_b64encode,
    "base64 in lines": lambda data: b"\n".join(
        base64.b64encode(data * 1)[at : at + 16] for at in range(0, 44, 16)
    ),
    "base64 in a JSON string": lambda data: json.dumps(base64.encodebytes(b"long before" + data).decode()),
    "base64 of reversed": lambda data: base64.b64encode(data[::-1]),
    "base64 after a word": lambda data: b"keyis" + base64.b64encode(data),
    "decimal numbers": lambda data: str(list(data)),
    "decimal numbers in lines": lambda data: "\n".join(map(str, data)),
    "pprint of numbers": lambda data: pprint.pformat(list(data), width=20),
    "repr": repr,
    "repr within a repr": lambda data: repr(repr(data)),
    "repr of a bytearray": lambda data: repr(bytearray(data)),
    "pprint": lambda data: pprint.pformat(data, width=30),
    "one number": lambda data: str(int.from_bytes(data, "big")),
    "one number, little endian": lambda data: f"d={int.from_bytes(data, 'little')},",
    "one hex number": lambda data: hex(int.from_bytes(data, "big")),
    "JSON of latin-1": lambda data: json.dumps(data.decode("latin-1")),
    "JSON of latin-1, not ASCII": lambda data: json.dumps(data.decode("latin-1"), ensure_ascii=False),
    "percent": lambda data: urllib.parse.quote(data),
    "in a URL": lambda data: f"http://host/?{urllib.parse.urlencode({'key': data})}&x",
    "octal": lambda data: "".join(f"\\{byte:03o}" for byte in data),
}

AROUND = {
    "alone": (b"", b""),
    "in a log line": (b"\x1b[0;32mI (123) key: ", b" end\n"),
    "amid digits": (b"version 12, ", b", 255 left"),
    "in JSON": (b'{"at": "', b'", "n": 1}'),
}


def written(form: str, data: bytes) -> bytes:
    text = FORMS[form](data)
    return text.encode() if isinstance(text, str) else text


@pytest.mark.parametrize("form", FORMS)
def test_a_secret_is_found_in_every_form(form: str) -> None:
    for before, after in AROUND.values():
        found = traces_of([SECRET], before + written(form, KEY) + after)
        assert {trace.secret for trace in found} == {"flash key"}, before + written(form, KEY) + after


WHOLE = {"words swapped", "words swapped and reversed", "base64 in lines", "hex dump with offsets within"}
"""Forms that are given for a whole key only, beside those of numbers."""

PARTIAL = sorted(
    name for name in set(FORMS) - WHOLE if "number," not in name and not re.search("register|^one ", name)
)


@pytest.mark.parametrize("form", PARTIAL)
def test_any_eight_bytes_of_a_secret_are_found(form: str) -> None:
    random.seed(form)
    for start in range(len(KEY) - LEAST + 1):
        part = KEY[start : start + LEAST]
        assert traces_of([SECRET], b"before " + written(form, part) + b" after"), written(form, part)
        other = random.randbytes(9)
        assert traces_of([SECRET], written(form, other + part + other)), written(form, other + part + other)


@pytest.mark.parametrize("start", range(0, len(KEY) - LEAST + 1, 4))
def test_any_two_registers_of_a_secret_are_found(start: int) -> None:
    for data in (KEY, KEY[::-1]):
        assert traces_of([SECRET], swapped(data)[start : start + LEAST].hex(" ", 4).encode())


@pytest.mark.parametrize("form", FORMS)
def test_seven_bytes_are_not_reported(form: str) -> None:
    assert not traces_of([SECRET], written(form, KEY[:7]))


@pytest.mark.parametrize(
    "quote", ["{}", "'{}'", "Passphrase(words=b'{}')", "PASS={}\\n", "http://u:{}@host/"]
)
@pytest.mark.parametrize("part", [slice(None), slice(3, 11), slice(-8, None)])
def test_a_passphrase_is_found_as_text(quote: str, part: slice) -> None:
    assert traces_of([WORDS], quote.format(WORDS.content[part].decode()).encode())


def test_a_found_secret_is_named_with_form_and_place() -> None:
    assert traces_of([SECRET], b"0123456789 " + KEY)[0].text() == "32 bytes of flash key, raw, near offset 11"


def ordinary() -> dict[str, bytes]:
    """What runs print and leave, without any secret."""
    random.seed(5)
    noise = random.randbytes(200_000)
    other = hashlib.sha256(b"another key").digest()
    return {
        "noise": noise,
        "hex of noise": noise[:40_000].hex().encode(),
        "base64 of noise": base64.b64encode(noise[:40_000]),
        "numbers": str(list(noise[:10_000])).encode(),
        "another key in every form": b"\n".join(written(form, other) for form in FORMS),
        "digests of the secret": b"\n".join(
            hashlib.new(name, KEY).hexdigest().encode() for name in ("md5", "sha1", "sha256", "sha512")
        ),
        "blank flash and eFuses": b"\xff" * 100_000 + bytes(100_000) + b"00 " * 5000,
        "a log": b"I (1234) boot: Loaded app from partition at offset 0x20000\n" * 500,
    }


@pytest.mark.parametrize("name", ordinary())
def test_nothing_is_found_where_nothing_is(name: str) -> None:
    assert traces_of([SECRET, WORDS], ordinary()[name]) == []


@pytest.mark.parametrize(
    "content", [bytes(32), b"\xff" * 16, KEY[:12] + bytes(8) + KEY[20:], b"aaaabbbbcccc"]
)
def test_what_could_not_be_told_from_anything_is_no_planted_secret(content: bytes) -> None:
    with pytest.raises(ValueError, match="no secret that could be found"):
        Secret("too plain", content)
