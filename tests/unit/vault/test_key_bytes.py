"""Keys do not print themselves, and do not get into core files."""

from __future__ import annotations

import hmac
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from pprint import pformat

import pytest

from harness.chips import ESP32C3
from harness.vault import KeyFile, Vault
from harness.vault.key_bytes import KeyBytes

KEY = bytes(range(100, 132))
MAC = "7c:df:a1:00:00:01"


SHOWN: tuple[Callable[[bytes], str], ...] = (
    repr,
    str,
    "{}".format,
    "{!r}".format,
    "%s".__mod__,
    pformat,
    lambda key: pformat([key]),
)


@pytest.mark.parametrize("number", range(len(SHOWN)))
def test_a_key_does_not_print_itself(number: int) -> None:
    text = SHOWN[number](KeyBytes(KEY))
    assert "<key, 32 bytes>" in text
    assert "defgh" not in text


def test_a_key_is_bytes_to_whoever_works_with_it() -> None:
    key = KeyBytes(KEY)
    assert key == KEY
    assert key[:4] == KEY[:4]
    assert io.BytesIO(key).read() == KEY
    assert key.hex() == KEY.hex()
    assert hmac.compare_digest(key, KEY)


def test_the_vault_gives_keys_that_do_not_print_themselves(tmp_path: Path) -> None:
    vault = Vault.open(tmp_path / "vault", KeyFile.create(tmp_path / "key"), create=True)
    vault.make_flash_key(MAC, ESP32C3)
    assert repr(vault.flash_key(MAC)) == repr(vault.stored_key(MAC)) == "<key, 32 bytes>"


@pytest.mark.skipif(os.name != "posix", reason="core files")
def test_whoever_has_opened_a_vault_leaves_no_core_file_and_nor_do_its_children(tmp_path: Path) -> None:
    script = (
        "import resource, subprocess, sys; from pathlib import Path; from harness.vault import KeyFile, Vault;"
        "limit = resource.getrlimit(resource.RLIMIT_CORE)[1];"
        "resource.setrlimit(resource.RLIMIT_CORE, (limit, limit));"
        "folder = Path(sys.argv[1]); Vault.open(folder / 'vault', KeyFile.create(folder / 'key'), create=True);"
        "subprocess.run(['sh', '-c', 'ulimit -S -c'], check=True)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout.strip() == "0", done.stderr
