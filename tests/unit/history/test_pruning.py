"""Old artefacts go by age and size; the vault, what is in use and what is not ours never does."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.cli.main import cli
from harness.history.amounts import DAY_S
from harness.history.pruning import Limits, prune, prune_after_run
from harness.history.run_folders import STALE_S, run_folders
from harness.home import Home

NOTHING_STAYS = Limits(age_s=0, size=0)
NEWEST = "20990101-000000-ffff"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    made(home, NEWEST, began_s=time.time() + 1)
    return home


def made(
    home: Home,
    name: str = "20250101-120000-0001",
    *,
    age_s: float = 10 * DAY_S,
    began_s: float | None = None,
    size: int = 1000,
    said_id: str | None = None,
    kind: str = "pytest",
    ended: bool = True,
    pid: int | None = None,
) -> Path:
    """The folder of a run, as the recorder leaves it."""
    folder = home.root / "artefacts" / name
    (folder / "parts").mkdir(parents=True)
    began_s = time.time() - age_s if began_s is None else began_s
    head = {"id": said_id or name, "kind": kind, "began_s": began_s, "host": os.uname().nodename}
    lines = [{"what": "run", "at_s": began_s, "run": head | ({"pid": pid} if pid else {})}]
    lines += [{"what": "end", "at_s": began_s}] if ended else []
    (folder / "parts" / "main.jsonl").write_text(
        "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    )
    (folder / "desk-c3").mkdir()
    (folder / "desk-c3" / "serial.log").write_bytes(b"." * size)
    touch_all(folder, began_s)
    return folder


def touch_all(folder: Path, moment_s: float) -> None:
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (moment_s, moment_s), follow_symlinks=False)


def test_folders_older_than_the_limit_go_and_younger_ones_stay(home: Home) -> None:
    old = made(home, "20250101-120000-0001", age_s=40 * DAY_S)
    young = made(home, "20250102-120000-0002", age_s=20 * DAY_S)
    done = prune(home, Limits(age_s=30 * DAY_S, size=None))
    assert [each.path for each in done.deleted] == [old]
    assert not old.exists()
    assert young.exists()


def test_the_oldest_go_until_the_rest_fits(home: Home) -> None:
    folders = [made(home, f"20250101-12000{n}-0000", age_s=(9 - n) * DAY_S, size=100_000) for n in range(4)]
    done = prune(home, Limits(age_s=None, size=220_000))
    assert [each.path for each in done.deleted] == folders[:2]
    assert "more than 220.0 KB" in done.deleted[0].why


def test_the_newest_run_stays_however_large(tmp_path: Path) -> None:
    home = Home(tmp_path)
    only = made(home)
    assert prune(home, NOTHING_STAYS).deleted == ()
    assert only.exists()


def test_a_dry_run_deletes_nothing_and_says_the_same(home: Home) -> None:
    made(home)
    said = prune(home, NOTHING_STAYS, dry_run=True)
    assert [each.path.name for each in said.deleted] == ["20250101-120000-0001"]
    assert prune(home, NOTHING_STAYS) == said


def a_link_to_a_folder_elsewhere(home: Home) -> Path:
    elsewhere = made(Home(home.root / "elsewhere"), "20250101-120000-0001")
    link = home.root / "artefacts" / "20250101-120000-0001"
    link.symlink_to(elsewhere)
    return elsewhere / "desk-c3" / "serial.log"


def a_folder_with_the_id_of_another(home: Home) -> Path:
    return made(home, said_id="20250101-120000-0002")


def a_folder_that_only_has_the_name(home: Home) -> Path:
    folder = home.root / "artefacts" / "20250101-120000-0001"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    touch_all(folder, 0)
    return folder / "thesis.txt"


def a_folder_of_another_name(home: Home) -> Path:
    return made(home, "before-the-holidays")


def the_vault_itself(home: Home) -> Path:
    folder = made(home)
    (folder / "vault" / "keys").mkdir(parents=True)
    (folder / "vault" / "vault.json").write_text("{}")
    touch_all(folder, 0)
    return folder / "vault" / "vault.json"


def a_run_under_way(home: Home) -> Path:
    folder = made(home, ended=False, began_s=time.time(), pid=os.getpid())
    touch_all(folder, time.time() - 10 * DAY_S)
    return folder


def a_run_of_which_only_its_last_word_tells(home: Home) -> Path:
    return made(home, ended=False, age_s=STALE_S - 3600)


def a_qualification(home: Home) -> Path:
    return made(home, kind="qualify")


def a_folder_that_somebody_keeps(home: Home) -> Path:
    folder = made(home)
    (folder / "keep").touch()
    touch_all(folder, 0)
    return folder


@pytest.mark.parametrize(
    "make",
    [
        a_link_to_a_folder_elsewhere,
        a_folder_with_the_id_of_another,
        a_folder_that_only_has_the_name,
        a_folder_of_another_name,
        the_vault_itself,
        a_run_under_way,
        a_run_of_which_only_its_last_word_tells,
        a_qualification,
        a_folder_that_somebody_keeps,
    ],
)
def test_it_stays(home: Home, make: Callable[[Home], Path]) -> None:
    kept = make(home)
    assert prune(home, NOTHING_STAYS).deleted == ()
    assert kept.exists()


def test_a_vault_named_by_the_environment_stays_wherever_it_is(tmp_path: Path) -> None:
    home = Home(tmp_path, vault_override=tmp_path / "artefacts" / "20250101-120000-0001" / "keys-of-the-lab")
    made(home, NEWEST, age_s=0)
    made(home)
    home.vault.mkdir()
    touch_all(home.vault.parent, 0)
    done = prune(home, NOTHING_STAYS)
    assert done.deleted == ()
    assert home.vault.is_dir()
    assert any("vault" in sentence for sentence in done.kept)


@pytest.mark.parametrize("died", ["killed", "long silent"])
def test_a_run_that_was_killed_goes(home: Home, died: str) -> None:
    killed = made(home, ended=False, pid=2**22 + 1 if died == "killed" else None, age_s=2 * STALE_S)
    assert [each.path for each in prune(home, NOTHING_STAYS).deleted] == [killed]


def test_links_in_a_run_are_removed_and_not_what_they_lead_to(home: Home, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("precious")
    folder = made(home)
    (folder / "link").symlink_to(precious)
    (folder / "desk-c3" / "file").symlink_to(precious / "file")
    touch_all(folder, 0)
    prune(home, NOTHING_STAYS)
    assert not folder.exists()
    assert (precious / "file").read_text() == "precious"


def test_artefacts_that_are_a_link_to_elsewhere_delete_nothing_outside(tmp_path: Path) -> None:
    victim = Home(tmp_path / "victim")
    kept = made(victim)
    (tmp_path / "home" / "artefacts").mkdir(parents=True)
    (tmp_path / "home" / "artefacts" / "20250101-120000-0001").symlink_to(kept)
    prune(Home(tmp_path / "home"), NOTHING_STAYS)
    assert kept.exists()


def test_nothing_else_under_the_state_folder_is_touched(home: Home) -> None:
    for name in (
        "vault/vault.json",
        "devices/aa.json",
        "twins/twin-c3/flash.bin",
        "builds/store/x",
        "history/history.sqlite3",
    ):
        path = home.root / name
        path.parent.mkdir(parents=True)
        path.write_text("precious")
        touch_all(home.root / name.split("/")[0], 0)
    plans = home.root / "plans"
    plans.mkdir()
    for name in ("0123abcd.json", "notes.txt"):
        (plans / name).write_text("{}")
    touch_all(plans, 0)
    done = prune(home, NOTHING_STAYS)
    assert [each.path for each in done.deleted] == [plans / "0123abcd.json"]
    assert (
        len([path for path in home.root.rglob("*") if path.is_file() and path.read_bytes() == b"precious"])
        == 5
    )


def test_what_a_kill_left_half_deleted_goes_the_next_time(home: Home) -> None:
    folder = made(home)
    going = folder.rename(folder.with_name(f".going-{folder.name}.12ab34cd"))
    prune(home, Limits(None, None))
    assert not going.exists()


def test_runs_prune_by_themselves_once_an_hour_and_never_fail_by_it(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(home, age_s=100 * DAY_S)
    said = prune_after_run(home)
    assert said is not None
    assert "pruned 1 old artefacts" in said
    made(home, age_s=100 * DAY_S)
    assert prune_after_run(home) is None
    assert len(run_folders(home)) == 2
    (home.root / "artefacts" / ".pruned").unlink()
    monkeypatch.setenv("HARNESS_KEEP_AGE", "for ever")
    assert "'for ever' is no age" in str(prune_after_run(home))
    monkeypatch.setenv("HARNESS_KEEP_AGE", "all")
    assert prune_after_run(home) is None
    assert prune_after_run(Home(home.root / "nowhere")) is None


def test_the_command_says_what_goes_and_how_much_that_frees(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(home.root))
    folder = made(home, size=2_000_000)
    for dry, said in ((True, "would be freed"), (False, "1 deleted, 2.0 MB freed")):
        words = ["prune", "--older-than", "1d", *(["--dry-run"] if dry else [])]
        done = CliRunner().invoke(cli, words, catch_exceptions=False)
        assert done.exit_code == 0
        assert said in done.output
        assert str(folder) in done.output
        assert folder.exists() is dry
