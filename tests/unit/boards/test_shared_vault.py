"""Two hosts, one rack: a board that labgrid lends is provisioned by one and updated by the other, from one vault."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from labgrid_site import Lend
from wired_twin import Start, WiredLab

from harness.home import RACK_FOLDER, Home
from harness.preparation import Consent, Demand, prepare
from harness.provision.device_record import DeviceRecords
from harness.provision.profile import Lock, Profile
from harness.say import Say
from harness.vault import KeyFile, Vault

QUIET = Say(quiet=True)
RELEASE = Demand(Profile.RELEASE, Lock.NONE)


@pytest.fixture(autouse=True)
def safe_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The vault of a test lies in a folder that is thrown away, which is refused for physical boards."""
    monkeypatch.setattr("harness.provision.execute.require_safe_place", lambda *_: ())
    monkeypatch.setattr("harness.provision.execute.refresh", lambda *_: ())


def host(folder: Path, users_builds: Path, vault: Path, key_file: Path) -> WiredLab:
    """A host with a state folder of its own, and the vault of the rack."""
    home = Home(folder / "home", vault)
    home.root.mkdir(parents=True, mode=0o700)
    (home.root / "builds").symlink_to(users_builds)
    lab = WiredLab(folder, home)
    lab.key_file = key_file
    return lab


@pytest.mark.skipif(sys.platform != "linux", reason="labgrid runs on Linux")
def test_a_board_provisioned_on_one_host_is_updated_from_another(
    lend: Lend, start: Start, tmp_path: Path, users_builds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share = tmp_path / "share"
    share.mkdir(mode=0o700)
    Vault.open(share / "vault", KeyFile.create(share / "vault.key"), create=True)
    first, second = (
        host(tmp_path / name, users_builds, share / "vault", share / "vault.key")
        for name in ("host-a", "host-b")
    )
    site = lend(start())
    entry = site.entry(0, burn_up_to="release", reserve_timeout_s=60)

    monkeypatch.setenv("LG_HOSTNAME", "host-a")
    with first.lab(entry) as lab:
        board = lab.open("desk")
        assert site.who()["desk-0"].startswith("host-a/")
        prepare(board, RELEASE, Consent(entry, frozenset({"desk"})), first.home, say=QUIET)
        assert board.status().version == "1.0.0"

    monkeypatch.setenv("LG_HOSTNAME", "host-b")
    with second.lab(entry) as lab:
        board = lab.open("desk")
        assert site.who()["desk-0"].startswith("host-b/")
        # Nothing is burned or flashed again, and no consent is needed: this host knows what the other one did.
        assert prepare(board, RELEASE, Consent(entry), second.home, say=QUIET).plan.empty
        there = board.status().next_slot
        assert board.update(board.release("1.1.0")).ok
        boot = board.reboot()
        assert (boot.slot, boot.version) == (there, "1.1.0")
        assert board.confirm().ok

    with first.lab(entry) as lab:
        board = lab.open("desk")
        assert prepare(board, RELEASE, Consent(entry), first.home, say=QUIET).plan.empty
        assert board.status().version == "1.1.0"


def test_what_a_host_knew_before_it_shared_a_vault_is_taken_over_once(tmp_path: Path) -> None:
    root, vault = tmp_path / "home", tmp_path / "vault"
    (root / "devices").mkdir(parents=True)
    record = root / "devices" / "7c-df-a1-00-00-01.json"
    record.write_text("of this host")
    (root / "saved-flash" / "7c-df-a1-00-00-01").mkdir(parents=True)
    (root / "saved-flash" / "7c-df-a1-00-00-01" / "1.json").write_text("its flash")
    home = Home(root, vault)
    # As long as there is no vault, nothing is put where one may come, or is not mounted.
    assert home.devices == root / "devices"
    assert not vault.exists()

    Vault.open(vault, KeyFile.create(tmp_path / "vault.key"), create=True)
    assert home.devices == vault / RACK_FOLDER / "devices"
    assert (home.devices / record.name).read_text() == "of this host"
    assert (home.with_keys("saved-flash") / "7c-df-a1-00-00-01" / "1.json").read_text() == "its flash"

    # What another host has written since is newer than what this one once knew.
    (home.devices / record.name).write_text("of another host")
    assert (home.devices / record.name).read_text() == "of another host"
    assert sorted(path.name for path in home.devices.iterdir()) == [record.name]
    assert Home(root).devices == root / "devices", "without HARNESS_VAULT all is as it was"


def test_a_vault_whose_head_was_lost_can_be_restored_over_what_the_rack_knows(tmp_path: Path) -> None:
    from harness.vault import back_up, restore

    secret = KeyFile.create(tmp_path / "vault.key")
    vault = Vault.open(tmp_path / "vault", secret, create=True)
    back_up(vault, tmp_path / "copy")
    DeviceRecords(Home(tmp_path / "home", vault.path).devices)
    shutil.rmtree(vault.path / "intents", ignore_errors=True)
    (vault.path / "vault.json").unlink()
    restore(vault.path, tmp_path / "copy", secret)
    assert Vault.open(vault.path, secret).vault_id == vault.vault_id
