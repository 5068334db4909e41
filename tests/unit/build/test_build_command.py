"""`harness build`: a folder that another host can use, and refusals that say what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from harness.build.app_dir import read_app_dir
from harness.cli.build import build
from harness.errors import HarnessError

KEY = ec.derive_private_key(7, ec.SECP256R1()).public_key()
POINT = KEY.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("IDF_PATH", raising=False)


def test_a_native_build_is_a_folder_of_its_own(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.write_bytes(
        KEY.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    out = tmp_path / "out"
    arguments = [
        "--native",
        "--chip",
        "esp32c3",
        "--version",
        "3.1.4",
        "--sign-key",
        str(key),
        "--out",
        str(out),
    ]
    result = CliRunner().invoke(build, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert f"use it with --app {out}" in result.output
    app = read_app_dir(out)
    assert (app.kind, app.version, app.encryption) == ("native", "3.1.4", "release")
    assert POINT in app.release.image


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "for which chip"),
        (["--chip", "esp32c3"], "ESP-IDF is needed"),
        (["--chip", "esp32c3", "--sign-key", "missing.pem"], "cannot be read"),
        (["--chip", "esp32c3", "--fragment", "missing.txt"], "ESP-IDF is needed"),
        (["--board", "nobody"], "nobody"),
    ],
)
def test_what_is_missing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HarnessError, match=message):
        CliRunner().invoke(build, [*arguments, "--out", "out"], catch_exceptions=False)


def test_a_file_that_is_no_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\x05" * 65)
    arguments = ["--chip", "esp32c3", "--sign-key", str(tmp_path / "key"), "--out", str(tmp_path / "out")]
    with pytest.raises(HarnessError, match="is not a public key"):
        CliRunner().invoke(build, arguments, catch_exceptions=False)
