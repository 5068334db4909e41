"""A kill at any step of a write loses no key and leaves a vault that opens."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.chips import ESP32C3
from harness.vault import Intent, KeyFile, Vault, WrongSecretError, back_up, restore, verify
from harness.vault import record_file as record_file_module

MAC = "02:00:00:aa:bb:01"
OTHER = "02:00:00:aa:bb:02"


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the code may catch it."""


class DyingOs:
    """The `os` module, with an end before the n-th call that changes the disk. A write may be cut in half."""

    CHANGING = ("open", "write", "fsync", "replace")

    def __init__(self, alive_for: int) -> None:
        self.left = alive_for

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in self.CHANGING:
            return real

        def call(*arguments: Any) -> Any:
            if name == "open" and not arguments[1] & os.O_CREAT:
                return real(*arguments)
            self.left -= 1
            if self.left < 0:
                if name == "write":
                    real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                raise Killed
            return real(*arguments)

        return call


def lives(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> Iterator[int]:
    """Runs `act` again and again, killed at its first, second, … change of the disk, until it survives."""
    for alive_for in range(200):
        with monkeypatch.context() as patched:
            patched.setattr(record_file_module, "os", DyingOs(alive_for))
            try:
                act()
            except Killed:
                pass
            else:
                assert alive_for > 0
                return
        yield alive_for
    pytest.fail("it never came to its end")


@pytest.fixture
def key_file(tmp_path: Path) -> KeyFile:
    return KeyFile.create(tmp_path / "vault.key")


@pytest.fixture
def vault(tmp_path: Path, key_file: KeyFile) -> Vault:
    vault = Vault.open(tmp_path / "vault", key_file, create=True)
    vault.make_flash_key(MAC, ESP32C3)
    return vault


def test_making_a_vault(tmp_path, key_file, monkeypatch):
    steps = 0
    for _ in lives(monkeypatch, lambda: Vault.open(tmp_path / "v", key_file, create=True)):
        steps += 1
    assert steps >= 5
    assert verify(Vault.open(tmp_path / "v", key_file)).ok


def test_making_a_key(vault, key_file, monkeypatch):
    old = vault.flash_key(MAC)
    seen: set[bytes] = set()
    for _ in lives(monkeypatch, lambda: seen.add(vault.make_flash_key(OTHER, ESP32C3).key_id.encode())):
        again = Vault.open(vault.path, key_file)
        assert again.flash_key(MAC) == old
        assert verify(again).ok
        if again.key(OTHER) is not None:
            seen.add(again.key(OTHER).key_id.encode())
    # A key that could be read back once is the key for ever.
    assert len(seen) == 1


def test_noting_an_intent(vault, monkeypatch):
    def intent(block: str) -> Intent:
        return Intent(
            MAC, "esp32c3", block, "0" * 16, "plan", "release", "none", {"X": 1}, True, "2025-01-01"
        )

    vault.note_intent(MAC, intent("BLOCK_KEY0"))
    for _ in lives(monkeypatch, lambda: vault.note_intent(MAC, intent("BLOCK_KEY1"))):
        assert vault.intent(MAC) in (intent("BLOCK_KEY0"), intent("BLOCK_KEY1"))
    assert vault.intent(MAC) == intent("BLOCK_KEY1")
    vault.clear_intent(MAC)
    assert vault.intent(MAC) is None


def test_changing_the_secret_leaves_a_vault_that_opens_with_the_old_or_the_new_one(
    vault, key_file, tmp_path, monkeypatch
):
    key = vault.flash_key(MAC)
    new = KeyFile.create(tmp_path / "new.key")
    opened_with: list[str] = []
    for _ in lives(monkeypatch, lambda: Vault.open(vault.path, key_file).rekey(new)):
        for name, secret in (("old", key_file), ("new", new)):
            try:
                assert Vault.open(vault.path, secret).flash_key(MAC) == key
            except WrongSecretError:
                continue
            opened_with.append(name)
        if opened_with[-1] == "new":
            Vault.open(vault.path, new).rekey(key_file)
    assert "old" in opened_with
    assert "new" in opened_with
    assert Vault.open(vault.path, new).flash_key(MAC) == key
    with pytest.raises(WrongSecretError):
        Vault.open(vault.path, key_file)


def test_copying_the_vault(vault, key_file, tmp_path, monkeypatch):
    key = vault.flash_key(MAC)
    place = tmp_path / "copy"
    for _ in lives(monkeypatch, lambda: back_up(vault, place)):
        assert verify(Vault.open(vault.path, key_file)).ok
        if (place / "vault.json").exists():
            assert Vault.open(place, key_file).flash_key(MAC) == key
    assert verify(Vault.open(place, key_file)).keys == 1


def test_bringing_a_vault_back(vault, key_file, tmp_path, monkeypatch):
    place = tmp_path / "copy"
    back_up(vault, place)
    target = tmp_path / "again"
    for _ in lives(monkeypatch, lambda: restore(target, place, key_file)):
        assert verify(Vault.open(place, key_file)).ok
    assert Vault.open(target, key_file).flash_key(MAC) == vault.flash_key(MAC)
