"""A key's life: nothing is rotated silently, nothing is proven by a claim, nothing is forgotten by accident."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.chips import ESP32, ESP32C3
from harness.errors import NotApplicableError, RefusedError, UsageError
from harness.vault import (
    Intent,
    KeyFile,
    KeyState,
    NoKeyHereError,
    NoVaultError,
    UnprovenKeyError,
    Vault,
    back_up,
    key_id,
    restore,
    verify,
)
from harness.vault.key_life import (
    answer_to,
    discard_unproven,
    due_notes,
    export_key,
    forget,
    hand_over,
    import_key,
    mark_proven,
    note_device_made,
    offer,
    require_forgettable,
)
from harness.vault.key_record import KeyRecord

MAC = "02:00:00:aa:bb:01"
OTHER = "02:00:00:aa:bb:02"
KEY = bytes(range(32))
ANOTHER = bytes(range(1, 33))


@pytest.fixture
def key_file(tmp_path: Path) -> KeyFile:
    return KeyFile.create(tmp_path / "vault.key")


@pytest.fixture
def vault(tmp_path: Path, key_file: KeyFile) -> Vault:
    return Vault.open(tmp_path / "vault", key_file, create=True)


def record_of(vault: Vault, mac: str = MAC) -> KeyRecord:
    record = vault.key_record(mac)
    assert record is not None
    return record


def hand_over_rightly(vault: Vault) -> KeyRecord:
    asked = offer(vault, MAC, "ACME")
    assert asked.challenge is not None
    return hand_over(vault, MAC, answer_to(asked.chip, vault.stored_key(MAC), asked.challenge))


def states_of(vault: Vault) -> list[str]:
    return [change.state.value for change in record_of(vault).history]


# --- what a state allows ---


def make_test_only(vault: Vault) -> None:
    vault.make_flash_key(MAC, ESP32C3)


def make_handed_over(vault: Vault) -> None:
    vault.make_flash_key(MAC, ESP32C3)
    hand_over_rightly(vault)


def make_unproven(vault: Vault) -> None:
    import_key(vault, MAC, ESP32C3, KEY)


def make_forgotten(vault: Vault) -> None:
    vault.make_flash_key(MAC, ESP32C3)
    forget(vault, MAC, lose_updates=True)


def make_device_made(vault: Vault) -> None:
    note_device_made(vault, MAC, ESP32C3)


STATES = (
    # state, how it comes about, enciphers, is here, may be shipped
    (KeyState.TEST_ONLY, make_test_only, None, True, False),
    (KeyState.HANDED_OVER, make_handed_over, None, True, True),
    (KeyState.UNPROVEN, make_unproven, UnprovenKeyError, True, False),
    (KeyState.FORGOTTEN, make_forgotten, NoKeyHereError, False, True),
    (KeyState.DEVICE_MADE, make_device_made, NoKeyHereError, False, True),
)


@pytest.mark.parametrize(
    ("state", "make", "refusal", "here", "shippable"), STATES, ids=lambda value: getattr(value, "value", "")
)
def test_each_state_says_what_may_be_done_with_the_key(
    vault: Vault,
    key_file: KeyFile,
    state: KeyState,
    make: Callable[[Vault], None],
    refusal: type[Exception] | None,
    here: bool,
    shippable: bool,
) -> None:
    make(vault)
    again = Vault.open(vault.path, key_file)
    record = record_of(again)
    assert (record.state, record.state.shippable) == (state, shippable)
    assert (again.key(MAC) is not None) == here
    assert ("do not ship" in " ".join(due_notes(record))) != shippable
    if refusal is None:
        assert key_id(again.flash_key(MAC)) == record.key_id
    else:
        with pytest.raises(refusal, match=MAC):
            again.flash_key(MAC)
    assert verify(again).ok
    assert verify(again).keys == int(here)


def test_where_there_is_no_key_raw_scenarios_are_not_applicable_and_commands_refuse(vault: Vault) -> None:
    make_device_made(vault)
    with pytest.raises(NotApplicableError) as error:
        vault.flash_key(MAC)
    assert error.value.exit_code == RefusedError.exit_code


# --- import ---


def test_an_imported_key_enciphers_nothing_until_the_chip_has_shown_that_it_is_its_own(vault: Vault) -> None:
    record = import_key(vault, MAC, ESP32C3, KEY)
    assert (record.state, record.key_id, record.made_by) == (KeyState.UNPROVEN, key_id(KEY), "imported")
    with pytest.raises(UnprovenKeyError, match="nothing is enciphered with it"):
        vault.flash_key(MAC)
    assert vault.stored_key(MAC) == KEY
    mark_proven(vault, MAC, "the bootloader deciphers")
    assert vault.flash_key(MAC) == KEY
    assert states_of(vault) == ["unproven", "test-only"]
    assert record_of(vault).history[-1].note == "proven: the bootloader deciphers"


def test_a_proof_of_what_is_proven_changes_nothing(vault: Vault) -> None:
    vault.make_flash_key(MAC, ESP32C3)
    before = vault.key_file(MAC).read_bytes()
    mark_proven(vault, MAC, "again")
    assert vault.key_file(MAC).read_bytes() == before


@pytest.mark.parametrize(
    ("make", "chip", "key", "kind", "said"),
    [
        (None, ESP32C3, KEY[:16], UsageError, r"has 16 bytes, ESP32-C3 \(xts-aes-128\) takes 32"),
        (None, ESP32C3, KEY + KEY, UsageError, "has 64 bytes"),
        (make_test_only, ESP32C3, KEY, RefusedError, "a key is never replaced"),
        (make_handed_over, ESP32C3, KEY, RefusedError, "a key is never replaced"),
        (make_forgotten, ESP32C3, KEY, RefusedError, "a key is never replaced"),
        (make_unproven, ESP32C3, ANOTHER, RefusedError, "a key is never replaced"),
        (make_unproven, ESP32, KEY, RefusedError, "as esp32c3, not as esp32"),
        (make_device_made, ESP32C3, KEY, NoKeyHereError, "made its key itself"),
    ],
)
def test_an_import_that_cannot_be_is_one_clear_error_and_changes_nothing(
    vault: Vault,
    make: Callable[[Vault], None] | None,
    chip: object,
    key: bytes,
    kind: type[Exception],
    said: str,
) -> None:
    if make is not None:
        make(vault)
    before = [file.read_bytes() for file in vault.key_files()]
    with pytest.raises(kind, match=said) as error:
        import_key(vault, MAC, chip, key)  # type: ignore[arg-type]
    assert [file.read_bytes() for file in vault.key_files()] == before
    assert key.hex() not in str(error.value)


def test_importing_what_is_here_already_changes_nothing(vault: Vault) -> None:
    vault.make_flash_key(MAC, ESP32C3)
    before = vault.key_file(MAC).read_bytes()
    assert import_key(vault, MAC, ESP32C3, vault.flash_key(MAC)).state is KeyState.TEST_ONLY
    assert vault.key_file(MAC).read_bytes() == before


def test_a_forgotten_key_comes_back_as_proven_as_it_was_if_it_is_the_same(vault: Vault) -> None:
    make_handed_over(vault)
    key = vault.flash_key(MAC)
    forget(vault, MAC)
    assert import_key(vault, MAC, ESP32C3, key).state is KeyState.HANDED_OVER
    assert vault.flash_key(MAC) == key
    assert states_of(vault)[-2:] == ["forgotten", "handed-over"]


def test_a_key_that_was_never_proven_may_be_forgotten_and_followed_by_another(vault: Vault) -> None:
    make_unproven(vault)
    forget(vault, MAC, lose_updates=True)
    record = import_key(vault, MAC, ESP32C3, ANOTHER)
    assert (record.state, record.key_id) == (KeyState.UNPROVEN, key_id(ANOTHER))
    assert states_of(vault) == ["unproven", "forgotten", "unproven"]


def test_nothing_stays_of_an_imported_key_that_is_not_the_chips(vault: Vault) -> None:
    make_unproven(vault)
    discard_unproven(vault, MAC)
    assert vault.key_record(MAC) is None
    assert import_key(vault, MAC, ESP32C3, ANOTHER).key_id == key_id(ANOTHER)


def test_only_an_unproven_key_is_discarded(vault: Vault) -> None:
    make_test_only(vault)
    discard_unproven(vault, MAC)
    assert vault.flash_key(MAC)


# --- hand-over ---


@pytest.mark.parametrize("chip", [ESP32, ESP32C3], ids=lambda chip: chip.name)
def test_a_key_is_handed_over_only_by_the_right_answer(vault: Vault, chip: object) -> None:
    vault.make_flash_key(MAC, chip)  # type: ignore[arg-type]
    asked = offer(vault, MAC, "ACME")
    assert asked.challenge is not None
    assert asked.state is KeyState.TEST_ONLY
    right = answer_to(asked.chip, vault.stored_key(MAC), asked.challenge)
    zero = answer_to(
        asked.chip, vault.stored_key(MAC), type(asked.challenge)(0, asked.challenge.block, "", "")
    )
    for wrong, why in (
        (b"", "it has 0 bytes"),
        (right[:-1], "it has 63 bytes"),
        (asked.challenge.block, "the block itself, not enciphered"),
        (zero, "enciphered for address 0"),
        (answer_to(asked.chip, KEY, asked.challenge), "with another key"),
    ):
        with pytest.raises(RefusedError, match=why):
            hand_over(vault, MAC, wrong)
        assert record_of(vault).state is KeyState.TEST_ONLY
    assert hand_over(vault, MAC, right).state is KeyState.HANDED_OVER
    assert record_of(vault).history[-1].note.startswith("ACME's copy")
    with pytest.raises(UsageError, match="no answer is awaited"):
        hand_over(vault, MAC, right)


def test_a_new_challenge_makes_the_old_answer_void(vault: Vault) -> None:
    vault.make_flash_key(MAC, ESP32C3)
    first = offer(vault, MAC, "")
    assert first.challenge is not None
    old = answer_to(ESP32C3, vault.stored_key(MAC), first.challenge)
    second = offer(vault, MAC, "")
    assert second.challenge != first.challenge
    with pytest.raises(RefusedError):
        hand_over(vault, MAC, old)


def test_an_export_does_not_void_a_challenge(vault: Vault, tmp_path: Path) -> None:
    vault.make_flash_key(MAC, ESP32C3)
    asked = offer(vault, MAC, "")
    export_key(vault, MAC, tmp_path / "key.bin")
    assert record_of(vault).challenge == asked.challenge


def test_an_unproven_key_is_not_handed_over(vault: Vault) -> None:
    make_unproven(vault)
    with pytest.raises(RefusedError, match="is unproven"):
        offer(vault, MAC, "")


def test_challenges_are_never_for_address_0_and_fit_every_cipher(vault: Vault) -> None:
    vault.make_flash_key(MAC, ESP32)
    challenges = [offer(vault, MAC, "").challenge for _ in range(20)]
    assert all(each and each.address > 0 and each.address % 0x1000 == 0 for each in challenges)
    assert len({each.block for each in challenges if each}) == 20


# --- export ---


def test_an_exported_file_is_the_key_and_private_and_the_record_notes_it(
    vault: Vault, tmp_path: Path
) -> None:
    vault.make_flash_key(MAC, ESP32C3)
    export_key(vault, MAC, tmp_path / "key.bin")
    assert (tmp_path / "key.bin").read_bytes() == vault.flash_key(MAC)
    assert (tmp_path / "key.bin").stat().st_mode & 0o777 == 0o600
    assert record_of(vault).history[-1].note == "exported to a file"
    with pytest.raises(UsageError, match="is not overwritten"):
        export_key(vault, MAC, tmp_path / "key.bin")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="is not overwritten"):
        export_key(vault, MAC, tmp_path / "link")
    assert len(record_of(vault).history) == 2


def test_what_is_not_here_is_not_exported(vault: Vault, tmp_path: Path) -> None:
    with pytest.raises(NoVaultError, match="has no key for"):
        export_key(vault, MAC, tmp_path / "key.bin")
    make_forgotten(vault)
    with pytest.raises(NoKeyHereError, match="was forgotten here"):
        export_key(vault, MAC, tmp_path / "key.bin")
    assert not (tmp_path / "key.bin").exists()


# --- forgetting ---


def test_only_a_key_that_was_handed_over_is_forgotten_unless_updates_may_be_lost(vault: Vault) -> None:
    vault.make_flash_key(MAC, ESP32C3)
    with pytest.raises(RefusedError, match="nobody else is known to have it"):
        forget(vault, MAC)
    assert vault.flash_key(MAC)
    hand_over_rightly(vault)
    assert forget(vault, MAC).record.state is KeyState.FORGOTTEN


def test_a_board_that_is_half_provisioned_keeps_its_key(vault: Vault) -> None:
    make_handed_over(vault)
    vault.note_intent(
        MAC, Intent(MAC, "esp32c3", "BLOCK_KEY0", "0" * 16, "p", "release", "none", {}, True, "x")
    )
    with pytest.raises(RefusedError, match="was cut off and needs the key"):
        require_forgettable(vault, MAC, lose_updates=False)
    assert forget(vault, MAC, lose_updates=True).record.state is KeyState.FORGOTTEN


def test_nobody_makes_a_new_key_for_a_device_whose_key_was_forgotten(vault: Vault) -> None:
    make_forgotten(vault)
    stub = vault.key_file(MAC).read_bytes()
    with pytest.raises(NoKeyHereError, match="was forgotten here on 20"):
        vault.make_flash_key(MAC, ESP32C3)
    assert vault.key_file(MAC).read_bytes() == stub


def test_a_record_without_a_key_is_bound_to_its_vault_like_one_with_it(vault: Vault) -> None:
    make_forgotten(vault)
    vault.key_file(OTHER).write_bytes(vault.key_file(MAC).read_bytes())
    vault.key_file(OTHER).chmod(0o600)
    assert not verify(vault).ok


def contents(*folders: Path) -> bytes:
    return b"".join(file.read_bytes() for folder in folders for file in folder.rglob("*") if file.is_file())


def test_a_forgotten_key_is_gone_from_the_vault_and_every_copy_within_reach(
    vault: Vault, key_file: KeyFile, tmp_path: Path
) -> None:
    make_handed_over(vault)
    places = [tmp_path / "one", tmp_path / "unplugged"]
    for place in places:
        back_up(vault, place)
    old = Vault.open(places[0], key_file)
    sealed = vault.key_file(MAC).read_bytes()
    held = vault.key_file(MAC).open("rb")
    shutil.move(places[1], tmp_path / "away")
    done = forget(vault, MAC)
    assert done.copies == (places[0],)
    assert [place for place, _ in done.left] == [places[1]]
    assert sealed not in contents(vault.path, places[0])
    with held:
        # The old file's own bytes were overwritten, not only its name taken away.
        assert held.read().strip(b"\0") == b""
    with pytest.raises(NoKeyHereError):
        old.flash_key(MAC)
    shutil.move(tmp_path / "away", places[1])
    assert forget(vault, MAC).copies == tuple(places)
    with pytest.raises(NoKeyHereError):
        Vault.open(places[1], key_file).flash_key(MAC)
    assert states_of(vault).count("forgotten") == 1


def test_a_copy_that_opens_with_an_older_secret_forgets_too(
    vault: Vault, key_file: KeyFile, tmp_path: Path
) -> None:
    make_handed_over(vault)
    back_up(vault, tmp_path / "copy")
    vault.rekey(KeyFile.create(tmp_path / "new.key"))
    assert forget(vault, MAC).copies == (tmp_path / "copy",)
    with pytest.raises(NoKeyHereError):
        Vault.open(tmp_path / "copy", key_file).flash_key(MAC)


def test_a_copy_of_another_vault_is_left_alone(vault: Vault, key_file: KeyFile, tmp_path: Path) -> None:
    make_handed_over(vault)
    back_up(vault, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy")
    other = Vault.open(tmp_path / "copy", key_file, create=True)
    other.make_flash_key(MAC, ESP32C3)
    done = forget(vault, MAC)
    assert done.left == ((tmp_path / "copy", "it is a copy of another vault"),)
    assert other.flash_key(MAC)


# --- copies follow ---


def test_a_copy_gets_every_change_of_state(vault: Vault, key_file: KeyFile, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    vault.make_flash_key(MAC, ESP32C3)
    back_up(vault, copy)
    hand_over_rightly(vault)
    back_up(vault, copy)
    assert record_of(Vault.open(copy, key_file)).state is KeyState.HANDED_OVER
    forget(vault, MAC)
    back_up(vault, copy)
    assert record_of(Vault.open(copy, key_file)).state is KeyState.FORGOTTEN


def test_a_copy_that_was_away_forgets_when_it_is_made_anew(
    vault: Vault, key_file: KeyFile, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    make_handed_over(vault)
    back_up(vault, copy)
    sealed = vault.key_file(MAC).read_bytes()
    shutil.move(copy, tmp_path / "away")
    forget(vault, MAC)
    shutil.move(tmp_path / "away", copy)
    back_up(vault, copy)
    assert sealed not in contents(copy)


def test_restoring_does_not_bring_a_forgotten_key_back(
    vault: Vault, key_file: KeyFile, tmp_path: Path
) -> None:
    make_handed_over(vault)
    back_up(vault, tmp_path / "copy")
    shutil.copytree(tmp_path / "copy", tmp_path / "old")
    forget(vault, MAC)
    assert restore(vault.path, tmp_path / "old", key_file) == ()
    with pytest.raises(NoKeyHereError):
        vault.flash_key(MAC)


def test_a_vault_that_came_back_from_before_the_forgetting_does_not_undo_it_in_the_copy(
    vault: Vault, key_file: KeyFile, tmp_path: Path
) -> None:
    make_handed_over(vault)
    back_up(vault, tmp_path / "copy")
    shutil.copytree(vault.path, tmp_path / "before")
    forget(vault, MAC)
    revived = Vault.open(tmp_path / "before", key_file)
    with pytest.raises(RefusedError, match="was forgotten on 20"):
        back_up(revived, tmp_path / "copy")


def test_a_wrong_import_in_a_copy_gives_way_to_the_right_one(
    vault: Vault, key_file: KeyFile, tmp_path: Path
) -> None:
    make_unproven(vault)
    back_up(vault, tmp_path / "copy")
    discard_unproven(vault, MAC)
    import_key(vault, MAC, ESP32C3, ANOTHER)
    back_up(vault, tmp_path / "copy")
    assert Vault.open(tmp_path / "copy", key_file).stored_key(MAC) == ANOTHER


# --- formats ---


def test_a_state_that_this_code_does_not_know_is_damage_and_not_test_only(vault: Vault) -> None:
    vault.make_flash_key(MAC, ESP32C3)
    fields = record_of(vault).to_fields() | {"key_state": "escrowed"}
    with pytest.raises(Exception, match="key record is damaged"):
        KeyRecord.from_fields(fields)


def test_a_record_survives_being_written_down(vault: Vault) -> None:
    vault.make_flash_key(MAC, ESP32C3)
    record = offer(vault, MAC, "ACME")
    assert KeyRecord.from_fields(record.to_fields()) == record


def test_the_device_keeps_its_own_key_to_itself(vault: Vault) -> None:
    first = note_device_made(vault, MAC, ESP32C3)
    assert note_device_made(vault, MAC, ESP32C3) == first
    with pytest.raises(NoKeyHereError):
        forget(vault, MAC, lose_updates=True)
    with pytest.raises(NoKeyHereError):
        vault.make_flash_key(MAC, ESP32C3)
    vault.make_flash_key(OTHER, ESP32C3)
    with pytest.raises(RefusedError, match="cannot have made another"):
        note_device_made(vault, OTHER, ESP32C3)
