"""A kill at any step of a write loses no key and leaves a vault that opens."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.chips import ESP32C3
from harness.vault import (
    Intent,
    KeyFile,
    KeyRecord,
    KeyState,
    NoKeyHereError,
    Vault,
    WrongSecretError,
    back_up,
    key_id,
    restore,
    verify,
)
from harness.vault import key_life as key_life_module
from harness.vault import record_file as record_file_module
from harness.vault.hand_over import make_parcel
from harness.vault.key_life import (
    answer_to,
    discard_unproven,
    export_key,
    forget,
    hand_over,
    import_key,
    mark_proven,
    offer,
)

MAC = "02:00:00:aa:bb:01"
OTHER = "02:00:00:aa:bb:02"


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the code may catch it."""


class DyingOs:
    """The `os` module, with an end before the n-th call that changes the disk. A write may be cut in half."""

    CHANGING = ("open", "write", "fsync", "replace", "pwrite", "ftruncate")

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
            dying = DyingOs(alive_for)
            for module in (record_file_module, key_life_module):
                patched.setattr(module, "os", dying)
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


def record_of(vault: Vault, mac: str = MAC) -> KeyRecord:
    record = vault.key_record(mac)
    assert record is not None
    return record


def test_importing_and_proving_a_key(vault, key_file, monkeypatch):
    key = bytes(range(32))

    def act() -> None:
        import_key(vault, OTHER, ESP32C3, key)
        mark_proven(vault, OTHER, "the chip said so")

    seen: list[KeyState] = []
    for _ in lives(monkeypatch, act):
        again = Vault.open(vault.path, key_file)
        assert verify(again).ok
        if again.key_record(OTHER) is not None:
            assert again.stored_key(OTHER) == key
            seen.append(record_of(again, OTHER).state)
    # It never counts as proven before it was, and never stops to be.
    assert seen == sorted(seen, key=[KeyState.UNPROVEN, KeyState.TEST_ONLY].index)
    assert KeyState.UNPROVEN in seen
    assert vault.flash_key(OTHER) == key


def test_discarding_an_import_that_was_wrong(vault, key_file, monkeypatch):
    wrong, right = bytes(range(32)), bytes(range(1, 33))

    def act() -> None:
        import_key(vault, OTHER, ESP32C3, wrong)
        discard_unproven(vault, OTHER)

    for _ in lives(monkeypatch, act):
        record = Vault.open(vault.path, key_file).key_record(OTHER)
        assert record is None or record.state is KeyState.UNPROVEN
    assert import_key(vault, OTHER, ESP32C3, right).key_id == key_id(right)


def test_exporting_a_key(vault, tmp_path, monkeypatch):
    key = vault.flash_key(MAC)
    numbers = iter(range(1000))
    written: list[Path] = []

    def act() -> None:
        written.append(tmp_path / f"key-{next(numbers)}.bin")
        export_key(vault, MAC, written[-1])

    for _ in lives(monkeypatch, act):
        if written[-1].exists():
            # No copy leaves the vault that the record does not know of.
            assert record_of(vault).history[-1].note.startswith("exported")
        assert vault.flash_key(MAC) == key
    assert written[-1].read_bytes() == key


def test_handing_a_key_over(vault, key_file, monkeypatch):
    key = vault.flash_key(MAC)

    def act() -> None:
        asked = offer(vault, MAC, "ACME")
        assert asked.challenge is not None
        hand_over(vault, MAC, answer_to(ESP32C3, key, asked.challenge))

    for _ in lives(monkeypatch, act):
        again = Vault.open(vault.path, key_file)
        assert again.flash_key(MAC) == key
        record = record_of(again)
        answered = any("same bytes" in change.note for change in record.history)
        assert (record.state is KeyState.HANDED_OVER) == answered
    assert record_of(vault).state is KeyState.HANDED_OVER


def test_making_a_parcel(vault, tmp_path, monkeypatch):
    numbers = iter(range(1000))
    folders: list[Path] = []

    def act() -> None:
        folders.append(tmp_path / f"parcel-{next(numbers)}")
        make_parcel(vault, MAC, folders[-1])

    for _ in lives(monkeypatch, act):
        assert record_of(vault).state is KeyState.TEST_ONLY
        if (folders[-1] / "flash-key.bin").exists():
            assert record_of(vault).challenge is not None
    assert (folders[-1] / "challenge.json").exists()


def test_forgetting_a_key_in_the_vault_and_its_copy(vault, key_file, tmp_path, monkeypatch):
    place = tmp_path / "copy"
    back_up(vault, place)
    key = vault.flash_key(MAC)
    seen: list[tuple[bool, bool]] = []

    def held(path: Path) -> bool:
        opened = Vault.open(path, key_file)
        assert verify(opened).ok
        try:
            assert opened.flash_key(MAC) == key
        except NoKeyHereError:
            assert record_of(opened).state is KeyState.FORGOTTEN
            return False
        return True

    for _ in lives(monkeypatch, lambda: forget(vault, MAC, lose_updates=True)):
        seen.append((held(vault.path), held(place)))
    # Whole, then gone from the vault, then from the copy; and what was begun is gone on with.
    assert seen == sorted(seen, reverse=True)
    assert {(True, True), (False, True)} <= set(seen)
    assert (held(vault.path), held(place)) == (False, False)
    assert [change.state for change in record_of(vault).history].count(KeyState.FORGOTTEN) == 1
