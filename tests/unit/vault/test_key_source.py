"""Keys from a file or a command: taken once, checked, and never shown."""

from __future__ import annotations

import base64
import os
import sys
import time
from pathlib import Path

import pytest

from harness.chips import ESP32C3
from harness.errors import HarnessError, LabError, UsageError
from harness.links.environment import child_environment
from harness.vault import KeyFile, KeyState, UnsafePermissionsError, Vault
from harness.vault.key_source import CommandSource, FileSource

MAC = "02:00:00:aa:bb:01"
KEY = bytes.fromhex("00112233445566778899aabbccddeeff102132435465768798a9bacbdcedfe0f")


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault.open(tmp_path / "vault", KeyFile.create(tmp_path / "vault.key"), create=True)


def command(
    tmp_path: Path, script: str, *words: str, timeout_s: float = 120.0, **environment: str
) -> CommandSource:
    """A fake KMS tool: `script` is Python with `argv`, `out` and `KEY` at hand."""
    tool = tmp_path / "kms_tool.py"
    head = f"import os, sys, time\nargv, out, KEY = sys.argv[1:], sys.stdout.buffer, bytes.fromhex('{KEY.hex()}')\n"
    tool.write_text(head + script + "\n")
    return CommandSource(
        (sys.executable, str(tool), *words), {**child_environment(), **environment}, tmp_path, timeout_s
    )


@pytest.mark.parametrize(
    "script",
    ["out.write(KEY)", "print(KEY.hex())", "print(KEY.hex().upper())", "print(KEY.hex(' ', 4))"],
    ids=["raw", "hex", "upper case", "hex in groups"],
)
def test_the_key_that_a_command_prints_is_stored_before_anything_is_burned(
    vault: Vault, tmp_path: Path, script: str
) -> None:
    ref = vault.take_keys_from(command(tmp_path, script)).make_flash_key(MAC, ESP32C3)
    assert vault.flash_key(MAC) == KEY
    assert ref.state is KeyState.TEST_ONLY
    record = vault.key_record(MAC)
    assert record is not None
    assert record.made_by == f"command {Path(sys.executable).name}"


def test_the_command_is_told_the_chip_and_nothing_else(
    vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_VAULT_KEY_FILE", "/secret/place")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    script = "\n".join(
        (
            "assert argv == ['get', '02:00:00:aa:bb:01', 'key-020000aabb01', 'esp32c3'], argv",
            "assert not set(os.environ) & {'HARNESS_VAULT_KEY_FILE', 'AWS_SECRET_ACCESS_KEY'}, os.environ",
            "assert sys.stdin.read() == ''",
            "out.write(KEY)",
        )
    )
    vault.take_keys_from(command(tmp_path, script, "get", "{mac}", "key-{mac_hex}", "{chip}"))
    vault.make_flash_key(MAC, ESP32C3)
    assert vault.flash_key(MAC) == KEY


def test_the_command_is_asked_once_in_the_life_of_a_device(vault: Vault, tmp_path: Path) -> None:
    script = "open('asked', 'a').write('x')\nout.write(KEY)"
    vault.take_keys_from(command(tmp_path, script))
    for _ in range(3):
        vault.make_flash_key(MAC, ESP32C3)
    assert (tmp_path / "asked").read_text() == "x"


COMPLAINTS = (
    # script, what is said
    ("sys.exit('no such key')", r"ended with status 1: no such key"),
    ("pass", "has 0 bytes"),
    ("out.write(KEY[:16])", "has 16 bytes, xts-aes-128 takes 32"),
    ("out.write(KEY + b'\\n')", "has 33 bytes"),
    ("out.write(KEY[:16].hex().encode())", "it is 32 hexadecimal digits, which are 16 bytes"),
    ("out.write(bytes(32))", "all its bytes are the same"),
    ("print('ff' * 32)", "all its bytes are the same"),
    ("out.write(KEY); out.flush(); time.sleep(600)", r"did not end within 1\.5 s"),
    ("out.write(KEY); print(KEY.hex(), file=sys.stderr); sys.exit(3)", "ended with status 3"),
    ("print('the key is ' + KEY.hex()); sys.exit('got ' + KEY.hex()[:40])", "ended with status 1"),
    ("sys.exit(f'the key {KEY!r} is not permitted')", "ended with status 1"),
    ("import json; sys.exit(json.dumps({'key': KEY.decode('latin-1')}))", "ended with status 1"),
    ("sys.exit(str(list(KEY)))", "ended with status 1"),
    ("import base64; sys.exit('key=' + base64.b64encode(KEY).decode())", "ended with status 1"),
)


@pytest.mark.parametrize(("script", "said"), COMPLAINTS)
def test_a_command_that_gives_no_key_is_one_clear_error_without_a_byte_of_it(
    vault: Vault, tmp_path: Path, script: str, said: str
) -> None:
    vault.take_keys_from(command(tmp_path, script, timeout_s=1.5 if "sleep" in script else 120))
    with pytest.raises(LabError, match=said) as error:
        vault.make_flash_key(MAC, ESP32C3)
    assert vault.key_record(MAC) is None
    shown = _everything(error.value)
    for hidden in (
        KEY.hex()[:24],
        base64.b64encode(KEY).decode()[:20],
        repr(KEY)[2:20],
        str(list(KEY))[1:20],
    ):
        assert hidden not in shown


ENDLESS = (
    # script, what is said
    ("while True: out.write(bytes(65536))", r"printed more than 4096 bytes, which is no key; it was ended"),
    ("out.write(KEY * 200); out.flush(); time.sleep(600)", "printed more than 4096 bytes"),
    ("import subprocess; subprocess.run(['cat', '/dev/zero'])", "printed more than 4096 bytes"),
)


@pytest.mark.skipif(os.name != "posix", reason="the group of a process is POSIX")
@pytest.mark.parametrize(("script", "said"), ENDLESS)
def test_a_command_that_prints_more_than_a_key_is_ended_at_once_with_all_that_it_started(
    tmp_path: Path, script: str, said: str
) -> None:
    source = command(tmp_path, f"open('group', 'w').write(str(os.getpgrp()))\n{script}", timeout_s=300)
    began = time.monotonic()
    with pytest.raises(LabError, match=said) as error:
        source.obtain(MAC, ESP32C3)
    assert time.monotonic() - began < 120
    assert KEY.hex()[:24] not in _everything(error.value)
    until = time.monotonic() + 60
    group = int((tmp_path / "group").read_text())
    assert group != os.getpgrp()
    while _lives(group):
        assert time.monotonic() < until, "something of it still runs"
        time.sleep(0.05)


def _lives(group: int) -> bool:
    """Whether a process of `group` runs; what waits for init to collect it does not count."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(of) == group and state != "Z":
            return True
    return False


def test_of_endless_complaints_the_last_are_told(tmp_path: Path) -> None:
    script = "\n".join(
        (
            "sys.stderr.write('x' * (3 << 20) + KEY.hex()[:12] + '\\n')",
            "for number in range(300): print('try', number, 'of the KMS failed', file=sys.stderr)",
            "sys.exit(7)",
        )
    )
    with pytest.raises(
        LabError, match=r"ended with status 7: try 297 .*; try 299 of the KMS failed"
    ) as error:
        command(tmp_path, script).obtain(MAC, ESP32C3)
    assert len(str(error.value)) < 4096


def test_a_complaint_without_an_end_is_not_told(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"ended with status 1\b") as error:
        command(tmp_path, "sys.exit('y' * (1 << 20))").obtain(MAC, ESP32C3)
    assert "yyy" not in _everything(error.value)


def _everything(error: BaseException | None) -> str:
    """An exception with all that hangs on it, as a debugger or a report would show it."""
    text = ""
    while error is not None:
        text += f"{error!s} {error!r} {vars(error)!r}"
        error = error.__cause__ or error.__context__
    return text


NAMES = (
    # command, what a plan calls it
    (("/opt/kms/kms-tool", "get", "{mac}"), "command 'kms-tool get …'"),
    (("kms-tool", "get"), "command 'kms-tool get'"),
    (("kms-tool",), "command 'kms-tool'"),
    (("kms-tool", "--pin=1234", "get"), "command 'kms-tool …'"),
    (("kms-tool", "hunter2"), "command 'kms-tool …'"),
)


@pytest.mark.parametrize(("words", "named"), NAMES)
def test_a_command_is_named_without_what_may_be_secret(
    tmp_path: Path, words: tuple[str, ...], named: str
) -> None:
    assert CommandSource(words, {}, tmp_path).named(MAC, ESP32C3) == named


def test_a_command_that_is_not_there_is_named(vault: Vault, tmp_path: Path) -> None:
    vault.take_keys_from(CommandSource(("kms-tool-that-is-not-there",), {}, tmp_path))
    with pytest.raises(LabError, match="'kms-tool-that-is-not-there' cannot be started"):
        vault.make_flash_key(MAC, ESP32C3)


def test_a_key_comes_from_a_file_per_chip(vault: Vault, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "020000aabb01.bin").write_bytes(KEY)
    (keys / "020000aabb01.bin").chmod(0o600)
    vault.take_keys_from(FileSource("keys/{mac_hex}.bin", tmp_path)).make_flash_key(MAC, ESP32C3)
    assert vault.flash_key(MAC) == KEY
    record = vault.key_record(MAC)
    assert record is not None
    assert record.made_by == "file keys/{mac_hex}.bin"


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
@pytest.mark.parametrize(
    ("path", "mode", "kind", "said"),
    [
        ("missing.bin", 0o600, UsageError, "cannot be read: No such file"),
        ("key.bin", 0o644, UnsafePermissionsError, "may be read or written by others"),
        ("{serial}.bin", 0o600, UsageError, "nobody knows what {serial} stands for"),
        ("short.bin", 0o600, UsageError, "has 5 bytes"),
    ],
)
def test_a_file_that_gives_no_key_is_one_clear_error(
    vault: Vault, tmp_path: Path, path: str, mode: int, kind: type[HarnessError], said: str
) -> None:
    for name, data in (("key.bin", KEY), ("short.bin", b"12345")):
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).chmod(mode)
    vault.take_keys_from(FileSource(path, tmp_path))
    with pytest.raises(kind, match=said):
        vault.make_flash_key(MAC, ESP32C3)
    assert vault.key_record(MAC) is None
