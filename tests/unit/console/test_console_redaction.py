"""Secrets that are sent do not reach a log, also not as an echo."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.console.device import command_line
from harness.console.redaction import Hidden, Redactor, redact


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("wifi ssid=lab password=hunter22 id=3", "wifi ssid=lab password=<redacted> id=3"),
        ("wifi PASSPHRASE=abc", "wifi PASSPHRASE=<redacted>"),
        ("wifi_psk=abcd x=1", "wifi_psk=<redacted> x=1"),
        ("flash-key=00ff token=t1", "flash-key=<redacted> token=<redacted>"),
        ('{"password": "a b", "x": 1}', '{"password": <redacted>, "x": 1}'),
        ("wifi password=a,b&c;d}e'f x=1", "wifi password=<redacted> x=1"),
        ("key='a b' y=1", "key=<redacted> y=1"),
        ("ota url=http://user:pw@10.0.0.2/x.bin", "ota url=http://user:<redacted>@10.0.0.2/x.bin"),
        ("ota url=http://10.0.0.2/x.bin?token=abc&y=1", "ota url=http://10.0.0.2/x.bin?token=<redacted>&y=1"),
        ("password=", "password="),
        (
            "ota id=3 url=http://10.0.0.2/d/x.bin crc=1a2b3c4d",
            "ota id=3 url=http://10.0.0.2/d/x.bin crc=1a2b3c4d",
        ),
        ("hash slot=ota_0", "hash slot=ota_0"),
        ("-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----", "<redacted>"),
        ("-----BEGIN EC PRIVATE KEY-----\nMIIB", "<redacted>"),
    ],
)
def test_values_of_secret_keys_are_hidden(text, shown):
    assert redact(text) == shown


def test_echo_of_a_secret_is_blotted_out():
    redactor = Redactor()
    assert redactor.sent("wifi ssid=lab password=hunter%2022") == "wifi ssid=lab password=<redacted>"
    assert (
        redactor.received(b"> wifi ssid=lab password=hunter%2022") == b"> wifi ssid=lab password=***********"
    )
    assert redactor.received(b"I (5) wifi: using 'hunter 22'") == b"I (5) wifi: using '*********'"


def test_ordinary_text_is_not_blotted_out_for_a_short_secret():
    redactor = Redactor()
    redactor.sent("pin key=on")
    assert redactor.received(b"connected") == b"connected"


def test_secrets_are_not_in_the_repr():
    redactor = Redactor()
    redactor.sent("password=hunter22")
    assert "hunter22" not in repr(redactor)


def test_a_hidden_value_is_sent_and_never_shown():
    line = command_line("wifi", 3, {"ssid": "the lab", "password": Hidden("a,b&c=d e/f")})
    assert line.startswith(b"wifi id=3 ssid=the%20lab password=a%2Cb%26c%3Dd%20e%2Ff crc=")
    assert "a%2Cb" not in repr(line)
    assert "password=<redacted>" in repr(line)
    assert "a,b" not in f"{Hidden('a,b')} {Hidden('a,b')!r}"


def test_a_remembered_secret_is_taken_out_of_any_text_also_as_python_shows_it():
    redactor = Redactor()
    assert redactor.sent("wifi password=it%27s%5Chere") == "wifi password=<redacted>"
    for text in ('E  x = "it\'s\\\\here"', "it's\\here", "it%27s%5Chere"):
        assert "here" not in redactor.shown(text)
    assert redactor.shown("<redacted> stays") == "<redacted> stays"


@settings(max_examples=150, deadline=None)
@given(
    pieces=st.lists(
        st.sampled_from([b"hunter22", b"hunt", b"er22", b"h", b"hunter2", b"\r\n", b"hh", b"esp> "]),
        max_size=12,
    ),
    cuts=st.lists(st.integers(1, 5), min_size=1, max_size=40),
    pauses=st.booleans(),
)
def test_a_secret_is_blotted_out_of_a_stream_however_that_is_cut(pieces, cuts, pauses):
    redactor = Redactor()
    redactor.sent("wifi password=hunter22")
    stream, shown, at, turn = b"".join(pieces), b"", 0, 0
    while at < len(stream):
        size = cuts[turn % len(cuts)]
        shown += redactor.take(stream[at : at + size])
        if pauses:
            shown += redactor.settle()
        at, turn = at + size, turn + 1
    shown += redactor.end()
    assert len(shown) == len(stream)
    assert b"hunter22" not in shown
    assert all(a == b or a == ord("*") for a, b in zip(shown, stream, strict=True))
    # Only secrets are blotted out, and what the stream ends with when that is a good part of one.
    expected = stream.replace(b"hunter22", b"*" * 8)
    tail = next((n for n in range(7, 3, -1) if expected.endswith(b"hunter22"[:n])), 0)
    if not pauses:
        assert shown == expected[: len(expected) - tail] + b"*" * tail


def test_what_may_begin_a_secret_comes_out_after_a_silence_when_it_is_short():
    redactor = Redactor()
    redactor.sent("wifi password=>secret")
    assert redactor.take(b"esp>") == b"esp"
    assert redactor.settle() == b">"
    assert redactor.take(b"secret and on") == b"****** and on"
    assert redactor.take(b"esp>secr") == b"esp"
    assert redactor.settle() == b""
    assert redactor.take(b"ond") == b">secrond"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "half a pair: \ud800, and its secret hunter22",
            "half a pair: \N{REPLACEMENT CHARACTER}, and its secret ********",
        ),
        ("a byte: \udcff, hunter22", "a byte: \udcff, ********"),
    ],
)
def test_text_that_is_no_unicode_is_shown_without_secrets_all_the_same(text, shown):
    redactor = Redactor()
    redactor.sent("wifi password=hunter22")
    assert redactor.shown(text) == shown
