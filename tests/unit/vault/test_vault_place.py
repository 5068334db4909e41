"""Before the first burn of a physical board: a vault that lasts, and a second copy that opens."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.chips import ESP32C3
from harness.errors import RefusedError
from harness.vault import KeyFile, PlaceFacts, Vault, back_up, place_problems, probe_place, require_safe_place
from harness.vault import place as place_module
from harness.vault.place import CopyFacts, Mount, mount_of, parse_mounts

MAC = "02:00:00:aa:bb:01"
MOUNTS = """\
overlay / overlay rw,relatime,lowerdir=/x 0 0
proc /proc proc rw 0 0
tmpfs /tmp tmpfs rw 0 0
/dev/sda1 /home ext4 rw 0 0
/dev/sdb1 /media/my\\040stick vfat rw 0 0
/dev/sda2 /data btrfs rw,subvol=a 0 0
/dev/sda2 /more btrfs rw,subvol=b 0 0
tmpfs /home/me/ram tmpfs rw 0 0
nonsense
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "overlay"),
        ("/opt/vault", "overlay"),
        ("/tmp", "tmpfs"),
        ("/tmp/x", "tmpfs"),
        ("/tmpfile", "overlay"),
        ("/home/me/vault", "ext4"),
        ("/home/me/ram/vault", "tmpfs"),
        ("/media/my stick/vault", "vfat"),
    ],
)
def test_a_path_lies_on_the_longest_mount_above_it(path, kind):
    mount = mount_of(Path(path), parse_mounts(MOUNTS))
    assert mount is not None
    assert mount.kind == kind


def test_of_two_mounts_on_one_point_the_later_one_counts():
    mounts = (Mount("a", "/x", "ext4"), Mount("b", "/x", "tmpfs"))
    assert mount_of(Path("/x/y"), mounts) == mounts[1]
    assert mount_of(Path("/y"), mounts) is None


def copy(*, elsewhere: bool = True, volatile: bool = False, problem: str | None = None) -> CopyFacts:
    return CopyFacts(Path("/media/stick"), elsewhere, volatile, problem)


@pytest.mark.parametrize(
    ("kind", "record_problem", "copies", "said"),
    [
        ("ext4", None, (copy(),), []),
        (None, None, (copy(),), []),
        ("ext4", None, (copy(elsewhere=False), copy()), []),
        ("tmpfs", None, (copy(),), ["tmpfs"]),
        ("overlay", None, (copy(),), ["overlay"]),
        ("ext4", None, (), ["no second copy"]),
        ("ext4", None, (copy(elsewhere=False),), ["same file system"]),
        ("ext4", None, (copy(volatile=True),), ["does not last"]),
        ("ext4", None, (copy(problem="it is not there"),), ["it is not there"]),
        ("ext4", "wrong passphrase", (copy(),), ["wrong passphrase"]),
        ("tmpfs", "damaged", (), ["tmpfs", "damaged", "no second copy"]),
    ],
)
def test_the_judgement_names_every_reason(kind, record_problem, copies, said):
    problems = place_problems(PlaceFacts(Path("/v"), kind, record_problem, copies))
    assert len(problems) == len(said)
    for problem, word in zip(problems, said, strict=True):
        assert word in problem


@pytest.fixture
def key_file(tmp_path: Path) -> KeyFile:
    return KeyFile.create(tmp_path / "vault.key")


@pytest.fixture
def vault(tmp_path: Path, key_file: KeyFile) -> Vault:
    return Vault.open(tmp_path / "vault", key_file, create=True)


@pytest.fixture
def two_disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which the vault and each copy lie on ext4 disks of their own."""
    lines = [
        f"/dev/sd{letter} {tmp_path / name} ext4 rw 0 0" for letter, name in (("a", "vault"), ("b", "copy"))
    ]
    mounts = tmp_path / "mounts"
    mounts.write_text("\n".join(lines))
    monkeypatch.setattr(place_module, "_MOUNTS", mounts)
    monkeypatch.setattr(place_module, "lies_elsewhere", lambda first, second: first != second)


@pytest.mark.usefixtures("two_disks")
def test_a_vault_with_a_good_second_copy_is_safe(vault, tmp_path):
    vault.make_flash_key(MAC, ESP32C3)
    back_up(vault, tmp_path / "copy")
    assert require_safe_place(vault, MAC) == ()


@pytest.mark.usefixtures("two_disks")
def test_a_copy_without_this_boards_key_does_not_count(vault, tmp_path):
    back_up(vault, tmp_path / "copy")
    vault.make_flash_key(MAC, ESP32C3)
    with pytest.raises(RefusedError, match=f"has no key for {MAC}"):
        require_safe_place(vault, MAC)


@pytest.mark.usefixtures("two_disks")
def test_a_copy_under_the_old_passphrase_does_not_count(vault, tmp_path):
    vault.make_flash_key(MAC, ESP32C3)
    back_up(vault, tmp_path / "copy")
    vault.rekey(KeyFile.create(tmp_path / "new.key"))
    with pytest.raises(RefusedError, match=r"does not open the vault .*copy"):
        require_safe_place(vault, MAC)


@pytest.mark.usefixtures("two_disks")
def test_a_damaged_record_of_this_board_is_a_reason(vault, tmp_path):
    vault.make_flash_key(MAC, ESP32C3)
    back_up(vault, tmp_path / "copy")
    (vault.path / "keys" / "02-00-00-aa-bb-01.json").write_bytes(b"x")
    with pytest.raises(RefusedError, match="key record does not open"):
        require_safe_place(vault, MAC)


def test_a_copy_that_is_unplugged_does_not_count(vault, tmp_path):
    back_up(vault, tmp_path / "copy")
    for file in sorted((tmp_path / "copy").rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    (tmp_path / "copy").rmdir()
    facts = probe_place(vault, MAC)
    assert [fact.problem for fact in facts.copies] == ["it is not there (unplugged?)"]


def test_where_the_system_does_not_tell_the_kind_this_is_said(vault, tmp_path, monkeypatch):
    monkeypatch.setattr(place_module, "_MOUNTS", tmp_path / "no-such-file")
    monkeypatch.setattr(place_module, "lies_elsewhere", lambda *_: True)
    back_up(vault, tmp_path / "copy")
    remarks = require_safe_place(vault, MAC)
    assert len(remarks) == 1
    assert "not checked" in remarks[0]


def test_two_subvolumes_of_one_disk_are_one_file_system(monkeypatch, tmp_path):
    class Status:
        def __init__(self, device: int) -> None:
            self.st_dev = device

    class Folder(type(Path())):  # type: ignore[misc]
        def stat(self, **_: object) -> Status:  # type: ignore[override]
            return Status(len(str(self)))

        def resolve(self, strict: bool = False) -> Path:
            return Path(str(self))

    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS)
    monkeypatch.setattr(place_module, "_MOUNTS", mounts)
    assert not place_module.lies_elsewhere(Folder("/data/a"), Folder("/more/bb"))
    assert place_module.lies_elsewhere(Folder("/data/a"), Folder("/home/bbb"))
    assert not place_module.lies_elsewhere(Folder("/home/a"), Folder("/home/b"))
