"""What of a URL may be a secret stays out of the copy of qualify.yaml, of the log and of every report."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.qualify.file import parse_qualify_text
from harness.qualify.url_secrets import secrets_in_urls, without_url_secrets

MINIMAL = f"""version: 1
unit: ship
running: {{path: a.bin, sha256: "{"0" * 64}"}}
update: {{path: b.bin, sha256: "{"1" * 64}"}}
image: plaintext
trigger: [{{by: prompt, text: go}}]
"""


@pytest.mark.parametrize(
    ("url", "shown", "secret"),
    [
        ("https://u.example/a.bin", "https://u.example/a.bin", []),
        ("https://u.example/a.bin?token=abcd", "https://u.example/a.bin?token=<redacted>", ["abcd"]),
        ("https://u/a?v=1&sig=abcd#top", "https://u/a?v=<redacted>&sig=<redacted>", ["abcd#top"]),
        ("https://u/a?0123456789abcdef", "https://u/a?<redacted>", ["0123456789abcdef"]),
        ("https://u/a?v=1.1.0&chip=esp32c3", "https://u/a?v=<redacted>&chip=<redacted>", []),
        (f"https://u/a?sha256={'ab' * 32}", "https://u/a?sha256=<redacted>", []),
        ("http://anna:geheim@host:80/x", "http://<redacted>@host:80/x", ["anna", "geheim"]),
        ("http://{host}:{port}/ota?url={url}", "http://{host}:{port}/ota?url={url}", []),
        ("{url: https://u/a?token=abcd}", "{url: https://u/a?token=<redacted>}", ["abcd"]),
        ("[curl, https://u/a?token=abcd, -v]", "[curl, https://u/a?token=<redacted>, -v]", ["abcd"]),
        ("# was: https://u/a?token=abcd\nx: 1", "# was: https://u/a?token=<redacted>\nx: 1", ["abcd"]),
    ],
)
def test_names_and_values_that_open_a_server_are_taken_out_of_a_url(
    url: str, shown: str, secret: list[str]
) -> None:
    assert without_url_secrets(url) == shown
    assert without_url_secrets(shown) == shown
    assert list(secrets_in_urls(url, ("ab" * 32,))) == secret


@pytest.mark.parametrize(
    "server",
    [
        'url: "https://u.example/a.bin?tok\\\n    en=abcd"',
        'url: "https:\\x2f\\x2fu.example/a.bin?token=abcd"',
        'url: "https://u.example/a.bin?token=\\\n    abcd"',
        "url: !!binary aHR0cHM6Ly91LmV4YW1wbGUvYS5iaW4/dG9rZW49YWJjZA==",
    ],
    ids=["a name over two lines", "escapes", "a value over two lines", "base64"],
)
def test_a_token_that_no_search_of_the_text_finds_is_refused_before_anything_is_copied(server: str) -> None:
    text = f"{MINIMAL}server:\n  by: external\n  {server}\n"
    # Of base64 the tag itself is refused, before anybody looks at what it stands for.
    with pytest.raises(UsageError, match=r"not written as one word|a tag .* has no place") as told:
        parse_qualify_text(text, Path("qualify.yaml"))
    assert re.search("abcd|YWJjZA", str(told.value)) is None


@pytest.mark.parametrize("text", ['product: "a\\0b"', 'product: "a\\ud800b"'])
def test_a_text_that_no_file_and_no_command_could_hold_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="half of a character"):
        parse_qualify_text(f"{MINIMAL}{text}\n", Path("qualify.yaml"))


def test_what_names_refer_to_a_thousand_times_is_looked_at_once() -> None:
    bomb = "".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]\n" for n in range(1, 30))
    with pytest.raises(UsageError, match="there is no such field"):
        parse_qualify_text(f"{MINIMAL}x0: &x0 [a]\n{bomb}", Path("qualify.yaml"))
