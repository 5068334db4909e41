"""`harness boards`: who holds what, what is broken, and the check that mends it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from harness.cli.main import cli
from harness.cli.options import profile_for
from harness.errors import BoardError, RefusedError
from harness.home import Home
from harness.inventory.entry import TwinEntry
from harness.inventory.inventory import read_inventory
from harness.lab import Lab, secret_from
from harness.linked_board import LinkedBoard
from harness.rack.health import HealthBook
from harness.say import Say

BOARDS = """
version: 1
boards:
  a: {chip: esp32c3, link: twin, tags: [pair]}
  b: {chip: esp32c3, link: twin, tags: [pair], profile: development}
  gone: {chip: esp32c3, link: serial, port: /dev/ttyNOWHERE, mac: "7c:df:a1:00:00:01"}
"""


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HealthBook:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "boards.yaml").write_text(BOARDS)
    return HealthBook(Home.of_user())


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["boards", *arguments], standalone_mode=False)


def told(*arguments: str) -> dict[str, Any]:
    shown = call(*arguments, "--json")
    assert shown.exception is None, shown.exception
    rows: list[dict[str, Any]] = json.loads(shown.stdout)["boards"]
    return {row["board"]: row for row in rows}


def lab(folder: Path, reason: str = "") -> Lab:
    inventory = read_inventory(folder / "boards.yaml")
    return Lab(
        Home.of_user(), inventory, folder / "out", secret_from(None), purpose="harness run", reason=reason
    )


def test_the_list_says_who_holds_what_since_when_and_why_and_what_is_broken(
    book: HealthBook, tmp_path: Path
) -> None:
    book.latch("gone", "port /dev/ttyNOWHERE does not exist", run="pytest (process 7)")
    with lab(tmp_path, "Anna tries the new PSU") as held:
        held.open("a")
        shown = call().stdout
        rows = told()
    by_name = {line.split()[0]: line for line in shown.splitlines() if line[0] != " "}
    assert "pinned: development" in by_name["b"]
    assert "Anna tries the new PSU, since " in by_name["a:"]
    assert "board gone is latched broken since" in shown
    assert "(found by pytest (process 7)): port /dev/ttyNOWHERE does not exist" in shown
    assert rows["a"]["lease"]["reason"] == "Anna tries the new PSU"
    assert rows["a"]["lease"]["until_s"] > rows["a"]["lease"]["since_s"]
    assert (rows["b"]["lease"], rows["b"]["last used"]) == (None, "never")
    assert rows["gone"]["health"]["broken"] == "port /dev/ttyNOWHERE does not exist"
    after = told()["a"]
    assert after["lease"] is None
    assert after["health"]["last_used_s"] >= rows["a"]["health"]["last_used_s"]


def test_a_board_that_is_well_is_mended_and_one_that_is_not_stays_broken(book: HealthBook) -> None:
    for name in ("a", "gone"):
        book.latch(name, "did not answer")
    shown = call("mend", "a", "gone")
    assert shown.return_value == 3, shown.output
    assert "its ROM answers: ESP32-C3" in shown.stdout
    assert "it is well, and not latched broken any more" in shown.stdout
    assert "port /dev/ttyNOWHERE does not exist" in shown.stdout
    assert "it stays latched broken" in shown.stdout
    assert (book.of("a").broken, book.of("gone").broken) == (None, "did not answer")


def test_boards_are_mended_by_tag(book: HealthBook) -> None:
    book.latch("b", "did not answer")
    shown = call("mend", "--tag", "pair", "--json")
    rows = json.loads(shown.stdout)["boards"]
    assert [(row["board"], row["was"], row["ok"]) for row in rows] == [
        ("a", None, True),
        ("b", "did not answer", True),
    ]
    assert shown.return_value == 0
    assert book.of("b").broken is None


def test_a_board_that_somebody_holds_is_not_touched(book: HealthBook, tmp_path: Path) -> None:
    book.latch("a", "did not answer")
    with lab(tmp_path) as held:
        held.open("a")
        shown = call("mend", "a")
    assert shown.return_value == 3
    assert "in use by" in shown.stdout
    assert book.of("a").broken == "did not answer"


def test_a_board_that_answers_and_does_not_boot_any_more_stays_broken(
    book: HealthBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    book.latch("a", "did not answer")

    def silent(*_: object, **__: object) -> None:
        raise BoardError("no boot in 20 s", board="a")

    monkeypatch.setattr(LinkedBoard, "watch_boot", silent)
    shown = call("mend", "a")
    assert shown.return_value == 3
    assert "no boot comes to an end after a reset: no boot in 20 s" in shown.stdout
    assert book.of("a").broken == "did not answer"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("mend",), "which board? latched broken: gone"),
        (("mend", "nobody"), "there is no board 'nobody'"),
        (("mend", "--tag", "nothing"), "there is no board 'nothing'"),
    ],
)
def test_wrong_names_are_told(book: HealthBook, arguments: tuple[str, ...], said: str) -> None:
    book.latch("gone", "x")
    assert said in str(call(*arguments).exception)


def test_a_person_who_names_a_broken_board_may_try_it_and_mends_it_by_that(
    book: HealthBook, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    book.latch("a", "did not answer")
    trying = lab(tmp_path)
    trying.say = Say()
    with trying:
        watch = trying.watch("a")
        with watch.watching():
            trying.open("a")
            watch.ready()
    said = capsys.readouterr().err
    assert "is latched broken since" in said
    assert "it is tried all the same" in said
    assert "board a works again" in said
    assert book.of("a").broken is None


@pytest.mark.parametrize(
    ("profile", "said", "outcome"),
    [
        ("release", False, "development"),
        ("development", True, "development"),
        ("release", True, "its entry pins profile development: it is not brought into release"),
    ],
)
def test_a_pinned_board_is_brought_into_no_other_profile(profile: str, said: bool, outcome: str) -> None:
    entry = TwinEntry(chip="esp32c3", profile="development")
    try:
        found = profile_for("b", entry, profile, said=said)
    except RefusedError as error:
        found = error.message
    assert found.startswith(outcome)


def test_what_a_pinned_board_is_not_meant_for_is_refused_before_anything_is_done(
    book: HealthBook, tmp_path: Path
) -> None:
    for command in (["provision", "--board", "b"], ["run", "--board", "b"]):
        refused = CliRunner().invoke(cli, [*command, "--profile", "release"], standalone_mode=False)
        assert isinstance(refused.exception, RefusedError), refused.output
        assert "its entry pins profile development" in str(refused.exception)
    assert not (tmp_path / "home" / "twins" / "b").exists()
    assert book.of("b").broken is None
