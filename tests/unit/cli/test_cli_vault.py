"""`harness vault`: a virtual board's own vault is found through the inventory that is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from harness.cli.vault import vault
from harness.errors import UsageError
from harness.vault import KeyFile

KEY = ec.derive_private_key(0x5EC0DE, ec.SECP256R1())


@pytest.fixture(autouse=True)
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An inventory in another folder, and none in the current one."""
    (tmp_path / "here").mkdir()
    (tmp_path / "lab").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    (tmp_path / "lab" / "mine.yaml").write_text(
        "version: 1\nboards:\n  t: {chip: esp32c2, link: twin, state: state}\n"
    )
    pem = tmp_path / "boot.pem"
    pem.write_bytes(
        KEY.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    pem.chmod(0o600)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(vault, list(arguments), standalone_mode=False)


def test_commands_for_the_vault_of_a_virtual_board_take_the_inventory_that_is_named(bench: Path) -> None:
    KeyFile.create(bench / "new.key")
    where = ("--board", "t", "--boards", str(bench / "lab" / "mine.yaml"))
    cases = (
        (("boot-key", "import", str(bench / "boot.pem")), "has ecdsa256-0"),
        (("boot-key", "list"), "ecdsa256  slot 0"),
        (("boot-key", "export-public", "--scheme", "ecdsa256"), "BEGIN PUBLIC KEY"),
        (("verify",), "0 key(s) and 1 for secure boot"),
        (("backup", str(bench / "copy")), str(bench / "copy")),
        (("rekey", "--new-key-file", str(bench / "new.key")), "opens with the new secret"),
    )
    for arguments, said in cases:
        done = run(*arguments, *where)
        assert done.exception is None, (arguments, done.exception)
        assert said in done.output
    assert (bench / "lab" / "state" / "vault").is_dir()


def test_without_it_the_board_is_looked_for_in_the_current_folder() -> None:
    done = run("boot-key", "list", "--board", "t")
    assert isinstance(done.exception, UsageError)
    assert "there is no board 't'" in str(done.exception)
