"""`harness sign` and `harness vault boot-key`: keys in, signed images and public keys out, private keys nowhere."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import espsecure
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from harness.chips import ESP32C3
from harness.cli.main import cli
from harness.errors import HarnessError
from harness.formats.app_description import AppDescription
from harness.formats.app_image import Segment, build_app_image
from harness.formats.signature_block import key_digest, read_public_key, verify

BOARDS = """\
version: 1
boards:
  one: {chip: esp32c3, link: twin, secure_boot: {keys: [./mine.pem]}}
  two: {chip: esp32c3, link: twin, secure_boot: {keys: [./mine.pem, vault]}}
  offline: {chip: esp32c3, link: twin, secure_boot: {keys: [./public.pem]}}
  plain: {chip: esp32c3, link: twin}
"""
KEY = rsa.generate_private_key(65537, 3072)
DIGEST = key_digest(KEY.public_key())


@dataclass(frozen=True)
class Done:
    """How a command ended: click's own errors and ours alike."""

    returncode: int
    stdout: str
    stderr: str


def harness(folder: Path, *arguments: str) -> Done:
    """In this process: starting one takes longer than all that the commands do."""
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setenv("HARNESS_HOME", str(folder / "home"))
        result = CliRunner().invoke(cli, arguments)
    if isinstance(result.exception, HarnessError):
        return Done(result.exception.exit_code, result.stdout, str(result.exception))
    assert isinstance(result.exception, (SystemExit, type(None))), result.exception
    return Done(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "boards.yaml").write_text(BOARDS)
    pem = KEY.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "mine.pem").write_bytes(pem)
    (tmp_path / "mine.pem").chmod(0o600)
    public = KEY.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (tmp_path / "public.pem").write_bytes(public)
    description = AppDescription(version="1.0.0", project_name="otaapp").to_bytes()
    segment = Segment(ESP32C3.drom_base + 0x20, description + bytes(300))
    (tmp_path / "app.bin").write_bytes(build_app_image(ESP32C3, [segment], entry_point=0x40380000))
    return tmp_path


def test_an_image_is_signed_with_every_key_of_the_board(folder: Path) -> None:
    done = harness(folder, "sign", "app.bin", "--board", "two", "--out", "signed.bin")
    assert done.returncode == 0, done.stderr
    found = verify((folder / "signed.bin").read_bytes())
    assert [block.index for block in found] == [0, 1]
    assert found[0].key_digest == DIGEST
    assert "2 signature(s)" in done.stdout
    assert f"by mine.pem, key digest {DIGEST.hex()}" in done.stdout
    assert "by vault rsa3072-1" in done.stdout
    with (folder / "public.pem").open("rb") as key, (folder / "signed.bin").open("rb") as image:
        espsecure.verify_signature("2", False, None, key, image)


def test_a_further_signature_is_added_only_when_asked_for(folder: Path) -> None:
    assert harness(folder, "sign", "app.bin", "--board", "one", "--out", "one.bin").returncode == 0
    again = harness(folder, "sign", "one.bin", "--board", "two", "--out", "two.bin")
    assert (again.returncode, "signed already" in again.stderr) == (2, True)
    done = harness(folder, "sign", "one.bin", "--board", "two", "--append", "--out", "two.bin")
    assert done.returncode == 0, done.stderr
    assert len(verify((folder / "two.bin").read_bytes())) == 2


CASES = (
    (("sign", "absent.bin", "--board", "one", "--out", "o"), "absent.bin cannot be read"),
    (("sign", "boards.yaml", "--board", "one", "--out", "o"), "boards.yaml: image"),
    (("sign", "app.bin", "--board", "offline", "--out", "o"), "has only public keys"),
    (("sign", "app.bin", "--board", "one", "--append", "--out", "o"), "is not signed"),
    (("sign", "app.bin", "--board", "one", "--out", "home"), "is a directory"),
    (("vault", "boot-key", "import", "absent.pem", "--board", "plain"), "absent.pem cannot be read"),
    (("vault", "boot-key", "import", "public.pem", "--board", "plain"), "public.pem is no private key"),
    (("vault", "boot-key", "import", "mine.pem", "--slot", "3", "--board", "plain"), "3 is not in the range"),
    (("vault", "boot-key", "list", "--board", "plain"), "has no vault yet"),
    (("vault", "boot-key", "list"), "nothing opens the vault"),
)


@pytest.mark.parametrize(("arguments", "complaint"), CASES, ids=[" ".join(case[0]) for case in CASES])
def test_wrong_input_ends_in_one_sentence(folder: Path, arguments: tuple[str, ...], complaint: str) -> None:
    (folder / "home").mkdir(exist_ok=True)
    done = harness(folder, *arguments)
    assert done.returncode == 2, done.stderr
    assert complaint in done.stderr
    assert not (folder / "o").exists()


def test_a_key_goes_into_the_vault_and_only_its_public_half_comes_out(folder: Path) -> None:
    done = harness(folder, "vault", "boot-key", "import", "mine.pem", "--board", "plain")
    assert done.returncode == 0, done.stderr
    assert f"has rsa3072-0, digest {DIGEST.hex()}" in done.stdout
    listed = harness(folder, "vault", "boot-key", "list", "--board", "plain").stdout
    assert listed.startswith(f"rsa3072   slot 0  {DIGEST.hex()}  imported ")
    public = harness(folder, "vault", "boot-key", "export-public", "--board", "plain").stdout
    assert key_digest(read_public_key(public.encode())) == DIGEST
    assert espsecure._digest_sbv2_public_key(io.BytesIO(public.encode())) == DIGEST
    none = harness(folder, "vault", "boot-key", "export-public", "--slot", "1", "--board", "plain")
    assert (none.returncode, "no rsa3072 key for digest slot 1" in none.stderr) == (2, True)
    verified = harness(folder, "vault", "verify", "--board", "plain").stdout
    assert "0 key(s) and 1 for secure boot" in verified
    for text in (done.stdout, listed, public, verified):
        assert "PRIVATE" not in text
