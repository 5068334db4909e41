"""Commands, modem lines, emulators and twins as ways to switch a board."""

import sys
from pathlib import Path
from typing import Any

import pytest
import serial

from harness.errors import LabError
from harness.links.link import BootMode, Link
from harness.power import Power
from harness.power.command import CommandPower
from harness.power.dtr_rts import DtrRts
from harness.power.virtual import EmulatorPower, TwinPower


class Noted(Power):
    kind = "noted"

    def __init__(self) -> None:
        self.calls: list[str] = []

    @property
    def description(self) -> str:
        return "noted"

    def off(self) -> None:
        self.calls.append("off")

    def on(self) -> None:
        self.calls.append("on")


def test_a_cycle_is_off_and_on() -> None:
    power = Noted()
    power.cycle(0)
    assert power.calls == ["off", "on"]


def test_power_comes_back_when_the_wait_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.power.power.time.sleep", interrupted)
    power = Noted()
    with pytest.raises(KeyboardInterrupt):
        power.cycle()
    assert power.calls == ["off", "on"]


# --- commands ---


def _python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_commands_are_run_as_argument_lists_without_a_shell(tmp_path: Path) -> None:
    script = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_text(sys.argv[2])"
    file = tmp_path / "a b"
    power = CommandPower([*_python(script), str(file), "off; $HOME"], [*_python(script), str(file), "on"])
    power.off()
    assert file.read_text() == "off; $HOME"
    power.on()
    assert file.read_text() == "on"


def test_commands_see_no_variable_that_is_not_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("A_SECRET", "s")
    monkeypatch.setenv("PLUG_HOST", "plug-3")
    code = "import os, sys; sys.exit('A_SECRET' in os.environ or os.environ.get('PLUG_HOST') != 'plug-3')"
    CommandPower(_python(code), _python(code), variables=["PLUG_HOST"]).off()
    with pytest.raises(LabError):
        CommandPower(_python(code), _python(code)).off()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (
            _python("import sys; print('plug is offline', file=sys.stderr); sys.exit(4)"),
            "switching the power off: .* ended with status 4: plug is offline",
        ),
        (_python("print('no such outlet'); raise SystemExit(1)"), "status 1: no such outlet"),
        (_python("import time; time.sleep(600)"), "did not end within 0.5 s"),
        (["/nowhere/plug"], "'/nowhere/plug' cannot be started: No such file"),
    ],
)
def test_a_command_that_fails_is_an_error_for_a_person(command: list[str], words: str) -> None:
    hangs = "sleep" in command[-1]
    with pytest.raises(LabError, match=words):
        CommandPower(command, command, timeout_s=0.5 if hangs else 120, board="b").off()


# --- modem lines ---


class Lines:
    def __init__(self) -> None:
        self.steps: list[str] = []
        self.broken = False

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("dtr", "rts"):
            if self.broken:
                raise serial.SerialException("gone")
            self.steps.append(f"{name[0].upper()}{int(value)}")
        object.__setattr__(self, name, value)


class LineLink(Link):
    physical = True
    kind = "lines"

    def __init__(self) -> None:
        self.lines = Lines()
        self.resets: list[BootMode] = []

    @property
    def description(self) -> str:
        return "/dev/ttyUSB0"

    @property
    def port(self) -> Any:
        return self.lines

    def reset(self, mode: BootMode) -> None:
        self.resets.append(mode)

    def close(self) -> None:
        self.lines.steps.append("closed")


def test_modem_lines_reset_and_hold_but_are_no_power() -> None:
    link = LineLink()
    lines = DtrRts(link)
    lines.reset()
    lines.reset(BootMode.DOWNLOAD)
    assert link.resets == [BootMode.RUN, BootMode.DOWNLOAD]
    with lines.hold():
        assert link.lines.steps == ["D0", "R1"]
    assert link.lines.steps == ["D0", "R1", "D0", "R0"]
    assert not isinstance(lines, Power)
    assert not hasattr(lines, "off")


def test_lines_of_a_port_that_has_gone_are_an_error_for_a_person() -> None:
    link = LineLink()
    link.lines.broken = True
    with (
        pytest.raises(LabError, match=r"board b: /dev/ttyUSB0: DTR and RTS cannot be set: gone"),
        DtrRts(link, board="b").hold(),
    ):
        raise AssertionError("the chip is held")


# --- processes ---


class Recorder:
    description = "twin"

    def __init__(self) -> None:
        self.calls: list[object] = []

    def control(self, op: str, **arguments: Any) -> dict[str, Any]:
        self.calls.append((op, arguments))
        return {"ok": True}

    def power_off(self) -> None:
        self.calls.append("off")

    def power_on(self) -> None:
        self.calls.append("on")


def test_emulators_and_twins_are_switched_by_their_links() -> None:
    recorder = Recorder()
    EmulatorPower(recorder).cycle(0)
    TwinPower(recorder).cycle(0)
    assert recorder.calls == ["off", "on", ("power", {"on": False}), ("power", {"on": True})]
    assert EmulatorPower(recorder).description == TwinPower(recorder).description == "twin"
