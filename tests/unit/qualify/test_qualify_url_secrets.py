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
        ("https://u.example/a.bin?token=abcd1234", "https://u.example/a.bin?token=<redacted>", ["abcd1234"]),
        ("https://u/a?v=1&sig=abcd1234#top", "https://u/a?v=<redacted>&sig=<redacted>", ["abcd1234#top"]),
        ("https://u/a?0123456789abcdef", "https://u/a?<redacted>", ["0123456789abcdef"]),
        ("https://u/a?v=1.1.0&chip=esp32c3", "https://u/a?v=<redacted>&chip=<redacted>", []),
        (f"https://u/a?sha256={'ab' * 32}", "https://u/a?sha256=<redacted>", []),
        ("http://anna:geheim123@host:80/x", "http://<redacted>@host:80/x", ["geheim123"]),
        # A password is hidden though it is a plain word.
        ("http://anna:geheimnis@host:80/x", "http://<redacted>@host:80/x", ["geheimnis"]),
        ("http://{host}:{port}/ota?url={url}", "http://{host}:{port}/ota?url={url}", []),
        ("{url: https://u/a?token=abcd1234}", "{url: https://u/a?token=<redacted>}", ["abcd1234"]),
        ("[curl, https://u/a?token=abcd1234, -v]", "[curl, https://u/a?token=<redacted>, -v]", ["abcd1234"]),
        (
            "# was: https://u/a?token=abcd1234\nx: 1",
            "# was: https://u/a?token=<redacted>\nx: 1",
            ["abcd1234"],
        ),
    ],
)
def test_names_and_values_that_open_a_server_are_taken_out_of_a_url(
    url: str, shown: str, secret: list[str]
) -> None:
    assert without_url_secrets(url) == shown
    assert without_url_secrets(shown) == shown
    assert list(secrets_in_urls(url, ("ab" * 32,))) == secret


@pytest.mark.parametrize(
    "url",
    [
        "https://update:s3cret@host/x?auth=main",
        "https://firmware1:x@host/x",
        "https://boot@host/x",
        "https://u:app@host/x?code=Firmware&token=DOWNLOAD",
        "https://u:2026@host/x?key=00000000",
        "https://u:0x0@host/x?key=0000000000000000",
        "https://u/x?design=abcd1234&keyboard=abcd1234&postcode=abcd1234&authority=abcd1234",
    ],
)
def test_no_user_name_and_no_word_or_number_that_a_log_holds_of_itself_is_blotted_out(url: str) -> None:
    assert list(secrets_in_urls(url, ())) == []


@pytest.mark.parametrize(
    "name",
    ["token", "apikey", "accessToken", "X-Amz-Signature", "client_secret", "id_token", "sig2", "passwd"],
)
def test_a_name_that_tells_of_a_secret_is_known_as_a_word_of_its_own(name: str) -> None:
    assert list(secrets_in_urls(f"https://u/x?{name}=abcd1234", ())) == ["abcd1234"]


def test_a_long_token_in_the_place_of_the_user_is_a_secret() -> None:
    assert list(secrets_in_urls("https://ghp_0123456789abcdef@host/x", ())) == ["ghp_0123456789abcdef"]


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
