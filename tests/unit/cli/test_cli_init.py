"""`harness init`: a boards.yaml that is never overwritten, and ports that are never opened unasked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from harness.cli.init import init
from harness.errors import LabError, UsageError
from harness.inventory.discover import Identified
from harness.inventory.inventory import read_inventory
from harness.inventory.schema import EDITOR_LINE, FILE_NAME, boards_schema
from harness.links.find_port import SerialPort

MAC = "7c:df:a1:00:00:01"
BRIDGE = SerialPort("/dev/ttyUSB0", "0001", "1-1.4", 0x10C4, "CP2102N")


class Bench:
    """What is plugged in, and what was reset."""

    def __init__(self) -> None:
        self.ports: tuple[SerialPort, ...] = ()
        self.asked: list[str] = []

    def identify(self, device: str) -> Identified:
        self.asked.append(device)
        return Identified("esp32c3", MAC)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A machine of our own."""
    made = Bench()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("harness.cli.init.serial_ports", lambda: made.ports)
    monkeypatch.setattr("harness.cli.init.port_holder", lambda _device: None)
    monkeypatch.setattr("harness.cli.init.identify_at", made.identify)
    return made


def run(*arguments: str) -> Result:
    return CliRunner().invoke(init, list(arguments))


def test_with_nothing_attached_the_file_has_the_twins(bench: Bench, tmp_path: Path) -> None:
    done = run()
    assert done.exit_code == 0, done.output
    assert list(read_inventory(tmp_path / "boards.yaml").boards) == ["twin-c3", "twin-esp32"]
    assert "no board is plugged in" in done.output
    assert "harness doctor" in done.output


def test_a_file_that_exists_is_never_overwritten_and_no_board_is_reset_for_it(
    bench: Bench, tmp_path: Path
) -> None:
    bench.ports = (BRIDGE,)
    (tmp_path / "boards.yaml").write_text("mine")
    done = run("--probe")
    assert isinstance(done.exception, UsageError)
    assert "is not overwritten" in str(done.exception)
    assert (tmp_path / "boards.yaml").read_text() == "mine"
    assert bench.asked == []


def test_a_link_that_leads_nowhere_is_not_written_through(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "boards.yaml").symlink_to(tmp_path / "elsewhere")
    assert isinstance(run().exception, UsageError)
    assert not (tmp_path / "elsewhere").exists()


def test_boards_are_reset_only_with_probe(bench: Bench, tmp_path: Path) -> None:
    bench.ports = (BRIDGE,)
    done = run()
    assert done.exit_code == 0, done.output
    assert bench.asked == []
    assert "harness init --probe" in done.output
    (tmp_path / "boards.yaml").unlink()
    done = run("--probe")
    assert bench.asked == [BRIDGE.device]
    assert f"/dev/ttyUSB0: esp32c3 {MAC}" in done.output
    assert read_inventory(tmp_path / "boards.yaml").named("esp32c3-0001").mac == MAC


def test_printing_writes_no_file(bench: Bench, tmp_path: Path) -> None:
    done = run("--print")
    assert done.output.startswith("# The boards of this bench")
    assert not (tmp_path / "boards.yaml").exists()


def test_machines_get_json(bench: Bench) -> None:
    bench.ports = (BRIDGE,)
    said = json.loads(run("--json").output)
    assert said["format"] == 1
    assert said["ports"][0]["usb_location"] == "1-1.4"


def test_a_folder_that_cannot_be_written_to_is_one_clear_error(bench: Bench) -> None:
    done = run("--boards", "no/such/folder/boards.yaml")
    assert isinstance(done.exception, LabError)
    assert "cannot be written: No such file" in str(done.exception)


def test_editors_find_the_schema_beside_the_file_and_ones_own_is_left_alone(
    bench: Bench, tmp_path: Path
) -> None:
    done = run()
    assert f"{FILE_NAME}: what editors" in done.output
    assert (tmp_path / "boards.yaml").read_text().splitlines()[0] == EDITOR_LINE
    assert json.loads((tmp_path / FILE_NAME).read_text()) == boards_schema()
    (tmp_path / FILE_NAME).write_text("mine")
    assert FILE_NAME not in run("--boards", "other.yaml").output
    assert (tmp_path / FILE_NAME).read_text() == "mine"
