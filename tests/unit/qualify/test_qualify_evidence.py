"""The evidence of a qualification: one digest over all, a signature, and what its checking finds."""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import nullcontext
from functools import cache
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from harness.cli.report import report
from harness.errors import RefusedError, UsageError
from harness.qualify.evidence import (
    MANIFEST,
    PAGE,
    SEAL,
    SIGNATURE,
    STATEMENT,
    write_evidence,
    write_seal,
)
from harness.qualify.perform import seal
from harness.qualify.qualification import Qualification, SiliconRow
from harness.qualify.signature import PrivateKey, load_signing_key, sign, write_signature
from harness.qualify.verification import verify_folder
from harness.report.html import write_report
from harness.report.run_record import RUN_FILE, RunRecord
from harness.report.writing import JUNIT_FILE, REPORT_FILE


@cache
def key_of(kind: str) -> PrivateKey:
    """One key of each kind per process, made when it is first needed."""
    if kind == "RSA":
        return rsa.generate_private_key(65537, 2048)
    if kind == "short RSA":
        return rsa.generate_private_key(65537, 1024)
    return (
        ec.generate_private_key(ec.SECP256R1()) if kind == "ECDSA" else ed25519.Ed25519PrivateKey.generate()
    )


PKCS8, PEM = serialization.PrivateFormat.PKCS8, serialization.Encoding.PEM


def pem_of(key: PrivateKey, passphrase: bytes | None = None) -> bytes:
    how: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        how = serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(PEM, PKCS8, how)


def public_pem_of(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def sealed(folder: Path, key: PrivateKey | None, said: str = "hello") -> RunRecord:
    """A folder with a log in it and a verdict, sealed."""
    (folder / "unit").mkdir(parents=True)
    (folder / "unit" / "serial.log").write_text(f"2026-01-01 00:00:00.000 | {said}\n")
    done = Qualification(
        product="lock",
        unit="ship",
        observed=False,
        verdict="passed",
        reason="all",
        demanded=("security profile release",),
        claims=(),
        silicon=SiliconRow(board="unit", chip="esp32c3", link="serial"),
    )
    run = RunRecord(
        id="1",
        kind="qualify",
        subject="unit",
        command="harness qualify",
        began_s=0.0,
        ended_s=1.0,
        verdict="passed",
        qualification=done.model_dump(mode="json"),
    )
    return seal(folder, run, key)


@pytest.mark.parametrize("kind", ["ECDSA", "RSA", "Ed25519"])
def test_what_was_signed_is_found_good_by_its_key_and_by_no_other(tmp_path: Path, kind: str) -> None:
    key = key_of(kind)
    run = sealed(tmp_path / "out", key)
    found = verify_folder(tmp_path / "out", None)
    assert found.ok
    assert run.qualification is not None
    assert run.qualification["evidence_sha256"] == found.digest
    assert run.qualification["signature"]["key_sha256"] == found.key_sha256
    ours, other = tmp_path / "ours.pem", tmp_path / "other.pem"
    ours.write_bytes(public_pem_of(key))
    other.write_bytes(public_pem_of(ec.generate_private_key(ec.SECP256R1())))
    assert verify_folder(tmp_path / "out", ours).ok
    assert verify_folder(tmp_path / "out", other).signature == "by another key"
    assert not verify_folder(tmp_path / "out", other).ok


def change_log(folder: Path) -> None:
    (folder / "unit" / "serial.log").write_text("2026-01-01 00:00:00.000 | hullo\n")


def lose_log(folder: Path) -> None:
    (folder / "unit" / "serial.log").unlink()


def add_file(folder: Path) -> None:
    (folder / "unit" / "more.log").write_text("more")


def change_verdict(folder: Path) -> None:
    fields = json.loads((folder / STATEMENT).read_text())
    (folder / STATEMENT).write_text(json.dumps({**fields, "unit": "sacrificial"}))


def change_record(folder: Path) -> None:
    fields = json.loads((folder / RUN_FILE).read_text())
    fields["qualification"]["reason"] = "because"
    (folder / RUN_FILE).write_text(json.dumps(fields))


def make_the_manifest_again(folder: Path) -> None:
    change_log(folder)
    write_evidence(folder)


def make_both_manifests_again(folder: Path) -> None:
    change_log(folder)
    write_evidence(folder)
    write_seal(folder)


def change_page(folder: Path) -> None:
    page = (folder / PAGE).read_text()
    (folder / PAGE).write_text(page.replace("PASSED", "FAILED"))


def change_report(folder: Path) -> None:
    report = (folder / REPORT_FILE).read_text()
    (folder / REPORT_FILE).write_text(report.replace("PASSED", "FAILED"))


def lose_report(folder: Path) -> None:
    (folder / REPORT_FILE).unlink()


def change_junit(folder: Path) -> None:
    (folder / JUNIT_FILE).write_text("<testsuites/>")


def lose_record(folder: Path) -> None:
    (folder / RUN_FILE).unlink()


def change_verdict_of_the_record(folder: Path) -> None:
    fields = json.loads((folder / RUN_FILE).read_text())
    (folder / RUN_FILE).write_text(json.dumps({**fields, "verdict": "failed"}))
    write_report(RunRecord.model_validate({**fields, "verdict": "failed"}), folder)


def lose_signature(folder: Path) -> None:
    (folder / SIGNATURE).unlink()


def sign_by_another(folder: Path) -> None:
    write_signature(folder, sign((folder / SEAL).read_bytes(), key_of("Ed25519")))


def take_the_signature_of_another_run(folder: Path) -> None:
    sealed(folder.parent / "other", key_of("ECDSA"), "another log")
    shutil.copy(folder.parent / "other" / SIGNATURE, folder)


def rename_log(folder: Path) -> None:
    (folder / "unit" / "serial.log").rename(folder / "unit" / "serial2.log")


def put_a_link_for_the_log(folder: Path) -> None:
    shutil.copy(folder / "unit" / "serial.log", folder.parent / "elsewhere.log")
    (folder / "unit" / "serial.log").unlink()
    (folder / "unit" / "serial.log").symlink_to(folder.parent / "elsewhere.log")


def put_a_link_for_the_report(folder: Path) -> None:
    (folder / REPORT_FILE).rename(folder.parent / REPORT_FILE)
    (folder / REPORT_FILE).symlink_to(folder.parent / REPORT_FILE)


def add_a_link_to_a_folder(folder: Path) -> None:
    (folder.parent / "more").mkdir()
    (folder / "more").symlink_to(folder.parent / "more")


def add_a_file_whose_name_is_a_line(folder: Path) -> None:
    (folder / "x\n✓ all as they were\nGOOD").write_text("more")


def replace_digest(folder: Path) -> None:
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text.replace(text[:8], "00000000", 1))


@pytest.mark.parametrize(
    "change",
    [
        change_log,
        lose_log,
        rename_log,
        put_a_link_for_the_log,
        add_file,
        add_a_link_to_a_folder,
        add_a_file_whose_name_is_a_line,
        change_verdict,
        change_record,
        change_verdict_of_the_record,
        lose_record,
        change_page,
        change_report,
        lose_report,
        put_a_link_for_the_report,
        change_junit,
        make_the_manifest_again,
        make_both_manifests_again,
        replace_digest,
        lose_signature,
        sign_by_another,
        take_the_signature_of_another_run,
    ],
)
def test_whatever_is_changed_afterwards_is_found(tmp_path: Path, change: object) -> None:
    out = tmp_path / "out"
    sealed(out, key_of("ECDSA"))
    assert callable(change)
    change(out)
    found = verify_folder(out, None)
    assert not found.ok
    assert any(line.startswith("✗") for line in found.lines())
    assert not any(
        line.startswith("✓ all") or line == "GOOD" for line in "\n".join(found.lines()).splitlines()
    )


def test_a_report_that_is_made_again_is_told_from_the_sealed_one_and_still_says_what_was_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as older:
        older.setattr("harness.__version__", "0.0.1")
        run = sealed(out, key_of("ECDSA"))
    write_report(run, out)
    found = verify_folder(out, None)
    assert found.ok
    assert found.made_again
    assert any("made again, not the sealed one" in line for line in found.lines())


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../run.json", "a/../../b", "./run.json", "a//b", "a\u2028b"]
)
def test_a_manifest_that_names_what_is_not_in_the_folder_is_none(tmp_path: Path, name: str) -> None:
    sealed(tmp_path / "out", None)
    with (tmp_path / "out" / SEAL).open("a") as seal:
        seal.write(f"{'0' * 64}  {name}\n")
    with pytest.raises(UsageError, match="no line of a manifest"):
        verify_folder(tmp_path / "out", None)


def test_no_report_is_made_of_a_record_that_was_changed_after_it_was_sealed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    sealed(out, None)
    assert CliRunner().invoke(report, [str(out)]).exit_code == 0
    change_record(out)
    done = CliRunner().invoke(report, [str(out)])
    assert isinstance(done.exception, RefusedError)


@pytest.mark.parametrize("name", [SEAL, MANIFEST])
def test_without_a_manifest_nothing_is_good(tmp_path: Path, name: str) -> None:
    sealed(tmp_path / "out", None)
    (tmp_path / "out" / name).write_bytes(b"")
    with pytest.raises(UsageError) if name == SEAL else nullcontext():
        assert not verify_folder(tmp_path / "out", None).ok
    (tmp_path / "out" / name).unlink()
    with pytest.raises(UsageError, match="holds no evidence"):
        verify_folder(tmp_path / "out", None)


def test_without_a_key_the_evidence_has_its_digest_and_a_demanded_signer_is_missed(tmp_path: Path) -> None:
    sealed(tmp_path / "out", None)
    unsigned = verify_folder(tmp_path / "out", None)
    assert unsigned.ok
    assert any("not signed: whoever changed" in line for line in unsigned.lines())
    assert any("PASSED, lock, run 1" in line for line in unsigned.lines())
    signer = tmp_path / "signer.pem"
    signer.write_bytes(public_pem_of(key_of("RSA")))
    assert not verify_folder(tmp_path / "out", signer).ok


def test_anybody_can_check_the_manifest_without_the_harness(tmp_path: Path) -> None:
    program = shutil.which("sha256sum")
    if program is None:
        pytest.skip("there is no sha256sum here")
    sealed(tmp_path / "out", None)
    for name in (MANIFEST, SEAL):
        done = subprocess.run([program, "-c", name], cwd=tmp_path / "out", capture_output=True, check=False)
        assert done.returncode == 0


@pytest.mark.parametrize(
    ("kind", "enciphered", "given", "said"),
    [
        ("ECDSA", True, None, "needs a passphrase"),
        ("ECDSA", True, b"other words", "the passphrase is wrong"),
        ("ECDSA", False, b"secret words", "is not enciphered"),
        (None, False, None, "no private key in PEM"),
        ("short RSA", False, None, "2048 are the least"),
    ],
)
def test_a_key_that_cannot_sign_is_refused_in_a_sentence(
    tmp_path: Path, kind: str | None, enciphered: bool, given: bytes | None, said: str
) -> None:
    path = tmp_path / "key.pem"
    passphrase = b"secret words" if enciphered else None
    path.write_bytes(pem_of(key_of(kind), passphrase) if kind is not None else b"nothing")
    with pytest.raises(UsageError, match=said) as caught:
        load_signing_key(path, given)
    assert "words" not in str(caught.value)


def test_an_enciphered_key_opens_with_its_passphrase(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(pem_of(key_of("ECDSA"), b"secret words"))
    assert load_signing_key(path, b"secret words").public_key() == key_of("ECDSA").public_key()
