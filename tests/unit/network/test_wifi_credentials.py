"""Where a Wi-Fi password comes from, and what is said when it cannot be one."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.network.credentials import WifiNetwork


@pytest.mark.parametrize("content", ["hunter22", "hunter22\n", "hunter22\r\n"])
def test_the_line_in_the_file_is_the_password(tmp_path: Path, content: str) -> None:
    file = tmp_path / "wifi.txt"
    file.write_bytes(content.encode())
    password = WifiNetwork("lab", file).password()
    assert password is not None
    assert password.value == "hunter22"


def test_a_password_does_not_show_itself(tmp_path: Path) -> None:
    file = tmp_path / "wifi.txt"
    file.write_text("hunter22")
    password = WifiNetwork("lab", file).password()
    assert "hunter22" not in f"{password} {password!r}"


def test_spaces_and_other_signs_belong_to_the_password(tmp_path: Path) -> None:
    file = tmp_path / "wifi.txt"
    file.write_text(" a=b, c&d%20é \n")
    password = WifiNetwork("lab", file).password()
    assert password is not None
    assert password.value == " a=b, c&d%20é "


def test_an_open_network_has_none() -> None:
    assert WifiNetwork("lab").password() is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "0 bytes"),
        (b"secret7", "7 bytes"),
        (b"x" * 65, "65 bytes"),
        (b"hunter22\nhunter33\n", "more than one line"),
        (b"hunter22\0", "9 bytes, not all of them printable"),
        (b"\xff\xfehunter22", "it is not UTF-8 text"),
    ],
)
def test_what_cannot_be_a_password_is_refused_without_being_shown(
    tmp_path: Path, content: bytes, said: str
) -> None:
    file = tmp_path / "wifi.txt"
    file.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        WifiNetwork("lab", file).password(board="desk")
    text = str(caught.value)
    assert text.startswith("board desk: the password of Wi-Fi network 'lab'")
    assert str(file) in text
    assert said in text
    assert "hunter" not in text
    assert "secret7" not in text
