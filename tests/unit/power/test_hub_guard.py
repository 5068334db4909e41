"""Locks between those who burn eFuses and those who cut a hub's ports."""

import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from harness.errors import LabError
from harness.power.hub_guard import HubGuard, hub_and_port, is_at_or_below


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("1-1.4:1.0", ("1-1", 4)),
        ("1-1.4", ("1-1", 4)),
        ("1-1.4.2:1.1", ("1-1.4", 2)),
        ("3-4:1.0", ("3", 4)),
        ("10-12", ("10", 12)),
        ("1", None),
        ("", None),
        ("PCI-0", None),
    ],
)
def test_hub_and_port_of_a_usb_location(location: str, expected: tuple[str, int] | None) -> None:
    assert hub_and_port(location) == expected


@pytest.mark.parametrize(
    ("hub", "other", "expected"),
    [
        ("1-1", "1-1", True),
        ("1-1", "1-1.2", True),
        ("1-1", "1-1.2.3", True),
        ("1-1", "1-10", False),
        ("1-1.2", "1-1", False),
        ("1-1", "2-1", False),
        ("1", "1-1.2", True),
        ("1", "10-1", False),
        ("1", "1", True),
    ],
)
def test_a_hub_supplies_itself_and_those_behind_it(hub: str, other: str, expected: bool) -> None:
    assert is_at_or_below(hub, other) is expected


@pytest.fixture
def guard(tmp_path: Path) -> HubGuard:
    return HubGuard(tmp_path, wait_s=0.3)


@pytest.mark.parametrize(("burning", "cutting"), [("1-1", "1-1"), ("1-1.2", "1-1"), ("1-1.2", "1")])
def test_a_cut_is_refused_while_a_board_burns_at_or_below_the_hub(
    guard: HubGuard, burning: str, cutting: str
) -> None:
    with (
        guard.burning(burning, "desk.c3"),
        pytest.raises(LabError, match=rf"no port of hub {cutting} may be cut: desk\.c3 burns"),
        guard.cutting(cutting),
    ):
        raise AssertionError("the port was cut")
    with guard.cutting(cutting):
        pass


@pytest.mark.parametrize(("burning", "cutting"), [("1-1", "1-2"), ("1-1", "1-1.2"), ("2-1", "1-1")])
def test_other_hubs_may_be_cut(guard: HubGuard, burning: str, cutting: str) -> None:
    with guard.burning(burning, "a"), guard.cutting(cutting):
        pass


def test_several_boards_of_a_hub_may_burn_at_a_time(guard: HubGuard) -> None:
    with (
        guard.burning("1-1", "a"),
        guard.burning("1-1", "b"),
        pytest.raises(LabError, match="a, b burns"),
        guard.cutting("1-1"),
    ):
        raise AssertionError("the port was cut")


def test_no_burn_begins_while_a_port_is_being_cut(guard: HubGuard) -> None:
    refused: list[str] = []

    def burn() -> None:
        try:
            with guard.burning("1-1", "a"):
                refused.append("burned")
        except LabError as error:
            refused.append(str(error))

    with guard.cutting("1-1"):
        other = threading.Thread(target=burn)
        other.start()
        other.join()
    assert "board a: a port of a hub is being cut" in refused[0]


def test_a_killed_burner_blocks_nobody(guard: HubGuard, tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from harness.power.hub_guard import HubGuard
        with HubGuard(Path(sys.argv[1])).burning("1-1", "a"):
            print("burning", flush=True)
            time.sleep(600)
        """
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as burner:
        assert burner.stdout is not None
        burner.stdout.readline()
        with pytest.raises(LabError, match="a burns"), guard.cutting("1-1"):
            raise AssertionError("the port was cut")
        burner.kill()
    with guard.cutting("1-1"):
        pass
