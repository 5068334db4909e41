"""`harness restore`: what was saved, and whose it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from harness.cli.restore import restore
from harness.errors import LabError, RefusedError, UsageError
from harness.links.twin import TwinLink
from harness.provision.chip_state import ChipState, Download
from harness.provision.saved_flash import FOLDER, SavedFlash, SavedFlashes

MAC = "7c:df:a1:00:00:01"
BOARDS = f"""\
version: 1
boards:
  desk: {{chip: esp32c3, link: serial, port: /dev/ttyUSB77, mac: "{MAC}"}}
  nameless: {{chip: esp32c3, link: serial, port: /dev/ttyUSB77}}
  twin: {{chip: esp32c3, link: twin, state: state}}
"""


@pytest.fixture(autouse=True)
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SavedFlashes:
    """A bench of our own, and its saved flashes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    (tmp_path / "boards.yaml").write_text(BOARDS)
    return SavedFlashes(tmp_path / "home" / FOLDER)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(restore, list(arguments), standalone_mode=False)


def keep(saved: SavedFlashes, content: bytes, mac: str = MAC) -> SavedFlash:
    state = ChipState("esp32c3", mac, 4, {}, frozenset(), frozenset(), (), Download.OPEN)
    return saved.add(state, content)


def test_the_list_needs_no_board(saved: SavedFlashes) -> None:
    assert "nothing was saved" in run("desk", "--list").output
    keep(saved, b"one")
    keep(saved, b"two")
    assert [row["number"] for row in json.loads(run("desk", "--list", "--json").output)["saved"]] == [1, 2]
    assert "desk: 2: " in run("desk", "--list").output


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        (("nobody",), UsageError, "there is no board 'nobody'"),
        (("nameless", "--list"), UsageError, "no 'mac:'"),
        (("desk",), UsageError, f"nothing was saved of {MAC}"),
        (("nameless",), LabError, "does not exist"),
    ],
)
def test_what_cannot_be_put_back_is_said_in_one_sentence(
    arguments: tuple[str, ...], kind: type[Exception], said: str
) -> None:
    done = run(*arguments)
    assert isinstance(done.exception, kind)
    assert said in str(done.exception)


def test_of_a_virtual_board_no_copy_is_kept_and_the_way_round_it_is_named() -> None:
    refused = run("twin").exception
    assert isinstance(refused, UsageError)
    assert "a virtual board's flash is a file" in refused.message
    assert refused.todo is not None
    assert "copy its state folder" in refused.todo


def test_a_number_that_is_not_there_is_named_with_those_that_are(saved: SavedFlashes) -> None:
    keep(saved, b"one")
    assert "there is no number 7" in str(run("desk", "--number", "7").exception)


def test_a_board_gets_its_flash_back_and_another_board_s_is_refused(
    tmp_path: Path, saved: SavedFlashes
) -> None:
    link = TwinLink("esp32c3", tmp_path / "state", tmp_path / "store")
    mac = link.mac.lower()
    link.close()
    content = bytearray(b"\xff" * (4 << 20))
    content[0x10000:0x10004] = b"mine"
    keep(saved, bytes(content), mac)
    done = run("twin", "--json")
    assert done.exception is None, done.output
    assert json.loads(done.stdout)["written_bytes"] == 1 << 16
    assert (tmp_path / "state" / "flash.bin").read_bytes() == bytes(content)
    newest = saved.newest(mac)
    assert newest is not None
    assert newest.restored is not None

    text = (tmp_path / "boards.yaml").read_text().replace("state: state}", f'state: state, mac: "{MAC}"}}')
    (tmp_path / "boards.yaml").write_text(text)
    keep(saved, b"other")
    other = run("twin")
    assert isinstance(other.exception, (RefusedError, LabError))
    assert (tmp_path / "state" / "flash.bin").read_bytes() == bytes(content)
