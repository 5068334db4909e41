"""Signing keys in a token: a real SoftHSM, over PKCS#11, as espsecure talks to it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from harness.build.boot_key import BootKey, from_pem, generate
from harness.build.token import from_token
from harness.chips import ESP32C3, SigningScheme
from harness.errors import HarnessError, LabError, UsageError
from harness.formats.app_image import Segment, build_app_image
from harness.formats.signature_block import verify
from harness.vault import UnsafePermissionsError

PIN = "4711%s-pin"
LABELS = {"boot key": SigningScheme.RSA_3072, "small key": SigningScheme.ECDSA_P256}
LIBRARIES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
)
IMAGE = build_app_image(ESP32C3, [Segment(0x3FCD5990, bytes(5000))], entry_point=0x403CBF10)


def library() -> Path | None:
    """SoftHSM's library, where it and what talks to it are installed."""
    try:
        import pkcs11  # noqa: F401
    except ImportError:
        return None
    if shutil.which("softhsm2-util") is None:
        return None
    return next((Path(name) for name in LIBRARIES if Path(name).exists()), None)


def missing() -> bool:
    """In CI a missing SoftHSM is a failure, not a reason to leave tests out."""
    if library() is None and os.environ.get("CI") == "true":
        pytest.fail("SoftHSM or python-pkcs11 is not installed; .ci/run installs both", pytrace=False)
    return library() is None


@dataclass(frozen=True)
class Bench:
    """A SoftHSM token with a key of two schemes."""

    folder: Path
    slot: int

    @property
    def pem(self) -> Path:
        return self.folder / "rsa3072.pem"

    def file(self, *, name: str = "hsm.ini", **changes: str | None) -> Path:
        fields: dict[str, str | None] = {
            "pkcs11_lib": str(library()),
            "slot": str(self.slot),
            "label": "boot key",
            "pin_file": "pin",
            **changes,
        }
        lines = [f"{key} = {value}" for key, value in fields.items() if value is not None]
        path = self.folder / name
        path.write_text("[hsm_config]\n" + "\n".join(lines) + "\n")
        path.chmod(0o600)
        return path


def _softhsm(*arguments: str) -> str:
    done = subprocess.run(["softhsm2-util", *arguments], check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    # The library reads its configuration once per process: one token for all tests here.
    if missing():
        pytest.skip("SoftHSM or python-pkcs11 is not installed here")
    folder = tmp_path_factory.mktemp("token")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(
        f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\n"
    )
    os.environ["SOFTHSM2_CONF"] = str(folder / "softhsm2.conf")
    said = _softhsm("--init-token", "--free", "--label", "lab", "--so-pin", "12345678", "--pin", PIN)
    found = re.search(r"reassigned to slot (\d+)", said)
    assert found is not None
    slot = int(found.group(1))
    for number, (label, scheme) in enumerate(LABELS.items(), 1):
        pem = folder / f"{scheme.value}.pem"
        key = generate(scheme)
        pem.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        pem.chmod(0o600)
        _softhsm(
            *("--import", str(pem), "--token", "lab", "--label", label, "--id", f"0{number}", "--pin", PIN)
        )
    (folder / "pin").write_text(PIN + "\n")
    (folder / "pin").chmod(0o600)
    return Bench(folder, slot)


@pytest.mark.parametrize(("label", "scheme"), LABELS.items())
def test_the_token_signs_as_the_key_in_it_would(bench, label, scheme):
    token, file = from_token(bench.file(label=label)), from_pem(bench.folder / f"{scheme.value}.pem")
    assert token.digest == file.digest
    assert token.scheme is scheme
    assert token.name == f"token {label}"
    assert token.add_signature is not None
    (block,) = verify(token.add_signature(IMAGE))
    assert block.key_digest == file.digest


def test_a_token_adds_its_signature_to_others(bench, tmp_path):
    key: BootKey = from_pem(bench.pem)
    assert key.add_signature is not None
    token = from_token(bench.file())
    assert token.add_signature is not None
    assert [block.index for block in verify(token.add_signature(key.add_signature(IMAGE)))] == [0, 1]


def test_the_pin_may_come_from_a_descriptor_or_espsecures_own_field(bench):
    read, write = os.pipe()
    os.write(write, PIN.encode())
    os.close(write)
    try:
        assert from_token(bench.file(pin_file=f"/dev/fd/{read}")).scheme is SigningScheme.RSA_3072
    finally:
        os.close(read)
    assert from_token(bench.file(pin_file=None, credentials=PIN)).scheme is SigningScheme.RSA_3072


def test_a_person_at_a_terminal_is_asked(bench, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("getpass.getpass", lambda _: PIN)
    assert from_token(bench.file(pin_file=None)).scheme is SigningScheme.RSA_3072


WRONG: dict[str, tuple[Callable[[Bench], Path], type[HarnessError], str]] = {
    "another label": (lambda b: b.file(label="nobody"), LabError, r"nobody.*reading the public key failed"),
    "another slot": (lambda b: b.file(slot="99"), LabError, "no token in slot 99"),
    "no library": (lambda b: b.file(pkcs11_lib="/nowhere.so"), LabError, "no PKCS#11 library /nowhere.so"),
    "something that is no library": (
        lambda b: b.file(pkcs11_lib=str(b.pem)), LabError, "does not work",
    ),
    "a slot that is a word": (lambda b: b.file(slot="first"), UsageError, "slot is 'first'"),
    "no label": (lambda b: b.file(label=None), UsageError, "there is no 'label'"),
    "an unknown field": (lambda b: b.file(pim="1"), UsageError, "'pim' is unknown"),
    "two PINs": (lambda b: b.file(credentials=PIN), UsageError, "the PIN is given twice"),
    "no PIN": (lambda b: b.file(pin_file=None), UsageError, "where the PIN"),
    "no PIN file": (lambda b: b.file(pin_file="absent"), UsageError, "absent cannot be read"),
    "no file": (lambda b: b.folder / "absent.ini", UsageError, r"absent\.ini cannot be read"),
    "no section": (lambda b: _put(b.folder / "x.ini", PIN), UsageError, "is not a token's file"),
    "a PIN file for all": (
        lambda b: b.file(pin_file=str(_put(b.folder / "open", PIN, 0o644))),
        UnsafePermissionsError,
        "open may be read",
    ),
    "credentials for all": (
        lambda b: _put(b.file(pin_file=None, credentials=PIN), None, 0o644),
        UnsafePermissionsError,
        r"hsm\.ini may be read",
    ),
    "an empty PIN file": (
        lambda b: b.file(pin_file=str(_put(b.folder / "empty", "\n"))), UsageError, "does not hold one line",
    ),
}  # fmt: skip


def _put(path: Path, text: str | None, mode: int = 0o600) -> Path:
    if text is not None:
        path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_token_is_said_without_its_pin(bench, name):
    make, kind, message = WRONG[name]
    with pytest.raises(kind, match=message) as caught:
        from_token(make(bench))
    assert PIN not in "".join(traceback.format_exception(caught.value))


def test_a_wrong_pin_is_refused_and_not_repeated(bench, capsys):
    wrong = _put(bench.folder / "wrong", "not-the-pin-8")
    with pytest.raises(LabError, match=r"boot key.*reading the public key failed") as caught:
        from_token(bench.file(pin_file=str(wrong)))
    assert "not-the-pin-8" not in "".join(traceback.format_exception(caught.value))
    assert capsys.readouterr() == ("", "")


def test_the_pin_is_in_no_output_and_no_repr(bench, capsys):
    token = from_token(bench.file())
    assert token.add_signature is not None
    token.add_signature(IMAGE)
    assert PIN not in repr(token)
    assert capsys.readouterr() == ("", "")


def test_without_python_pkcs11_one_is_told_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pkcs11", None)
    file = tmp_path / "hsm.ini"
    file.write_text("[hsm_config]\npkcs11_lib = /x.so\nslot = 0\nlabel = key\n")
    with pytest.raises(UsageError, match="needs python-pkcs11") as caught:
        from_token(file)
    assert "[hsm]" in str(caught.value.todo)
