"""A board is taken from a real labgrid coordinator, used, and given back however its run ends. The boards are twins."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from labgrid_site import CHECKOUT, Lend, Site, until
from wired_twin import Start, WiredLab, entry_of, provisioned

from harness.errors import InUseError, LabError
from harness.links.link import BootMode
from harness.main_job import run_main_job
from harness.preparation import Consent, Demand
from harness.provision.profile import Lock, Profile
from harness.rack.coordinators import Coordinators
from harness.report.verdict import Standing
from harness.say import Say

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="labgrid runs on Linux")

OPENS = """\
import sys
from pathlib import Path
from harness.home import Home
from harness.inventory.inventory import read_inventory
from harness.lab import Lab, secret_from

folder = Path(sys.argv[1])
with Lab(Home(folder / "home"), read_inventory(folder / "boards.yaml"), folder / "out", secret_from(None)) as lab:
    lab.open("desk")
    print("open", flush=True)
    sys.stdin.read()
"""


class Run:
    """Another harness process that opens the board, and keeps it until it is killed or told to end."""

    def __init__(self, folder: Path, site: Site, **fields: object) -> None:
        folder.mkdir(exist_ok=True)
        entry = site.entry(0, **fields).model_dump(exclude_defaults=True, mode="json")
        entry["link"] = "labgrid"
        (folder / "boards.yaml").write_text(f"version: 1\nboards: {{desk: {_flow(entry)}}}\n")
        (folder / "script.py").write_text(OPENS)
        self._process = subprocess.Popen(
            [sys.executable, str(folder / "script.py"), str(folder)],
            env=os.environ | {"PYTHONPATH": str(CHECKOUT), "HARNESS_HOME": str(folder / "home")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self.pid = self._process.pid

    def await_open(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "open\n"

    def agent(self) -> int:
        """The process that holds the place for it."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        [agent] = [
            int(pid) for pid in children if "labgrid_agent" in Path(f"/proc/{pid}/cmdline").read_text()
        ]
        return agent

    def end(self, number: int = signal.SIGKILL) -> None:
        if self._process.poll() is None:
            self._process.send_signal(number)
        self._process.wait(60)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


def _flow(fields: dict[str, object]) -> str:
    return "{" + ", ".join(f'{key}: "{value}"' for key, value in fields.items() if value) + "}"


@pytest.mark.full
def test_the_main_job_runs_on_a_board_that_labgrid_lends(lend: Lend, start: Start, wired: WiredLab) -> None:
    twin = provisioned(start, wired, Lock.NONE)
    site = lend(twin)
    entry = site.entry(0, burn_up_to="release", reserve_timeout_s=60)
    with wired.lab(entry) as lab:
        board = lab.open("desk")
        assert {"power", "uart-download"} <= board.capabilities
        verdict = run_main_job(
            board, Demand(Profile.RELEASE), Consent(entry), wired.home, say=Say(quiet=True)
        )
        assert verdict.standing is Standing.PROVEN, verdict
        board.power.cycle(0.1)
        assert site.switch.switched == [(0, False), (0, True)]
    assert site.is_free
    assert f"labgrid place {'desk-0'} is ours" in board.log_path.read_text()


@pytest.mark.full
def test_a_place_that_somebody_holds_is_refused_by_name_or_waited_for(
    lend: Lend, start: Start, wired: WiredLab
) -> None:
    site = lend(start())
    assert site.acquire() == "done"
    with pytest.raises(
        LabError, match=r"place desk-0 is held by elsewhere/bob since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    ):
        wired.open(site.entry(0))
    # What was refused leaves nothing behind, and took nothing away.
    assert site.who() == {"desk-0": "elsewhere/bob"}
    assert not site.reservations()

    waited: list[str] = []
    lab = wired.lab(site.entry(None, reserve_timeout_s=60))

    class Saying(Say):
        def line(self, text: str) -> None:
            waited.append(text)
            site.kick()

    lab.say = Saying(quiet=True)
    with lab:
        board = lab.open("desk")
        assert "held by elsewhere/bob" in waited[0]
        assert re.search(r"harness-\d+-[0-9a-f]{4}", site.who()["desk-0"])
        # And now the other one is kept out.
        assert site.acquire() == "Place desk-0 is already acquired"
        assert board.read_state().mac == site.twins[0].mac
    assert site.is_free


@pytest.mark.full
def test_a_board_that_another_entry_of_this_machine_has_open_is_given_back_at_once(
    lend: Lend, start: Start, wired: WiredLab
) -> None:
    twin = start()
    site = lend(twin)
    wired.open(entry_of(twin, mac=twin.mac))
    with wired.lab(site.entry(0, reserve_timeout_s=60)) as lab:
        with pytest.raises(InUseError):
            lab.open("desk")
        # Not only when the run ends: it may try again.
        assert site.is_free


@pytest.mark.full
def test_what_cannot_be_had_is_said_in_a_sentence(
    lend: Lend, start: Start, wired: WiredLab, tmp_path: Path
) -> None:
    site = lend(start())
    refusals = {
        "has no place called desk-9; it has: desk-0 board=esp32c3 rig=0": site.entry(0, place="desk-9"),
        "has no place with board=esp32p4; it has: desk-0": site.entry(None, filter={"board": "esp32p4"}),
        "labgrid coordinator 127.0.0.1:1 does not answer": site.entry(0, coordinator="127.0.0.1:1"),
        "has no serial port called console; it has: ": site.entry(
            0, serial_port="console", reserve_timeout_s=60
        ),
        f"there is no labgrid at {tmp_path}": site.entry(0, client=str(tmp_path)),
    }
    for said, entry in refusals.items():
        with pytest.raises(LabError) as refusal:
            wired.open(entry)
        assert said in refusal.value.message
        assert refusal.value.todo
        wired.close()
    site.kill_exporter()
    until("the end of the exporter", lambda: not site.resources())
    with pytest.raises(LabError, match="place desk-0: no exporter offers bench/rig-0/"):
        wired.open(site.entry(0))
    assert site.is_free


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.full)])
def test_a_killed_run_gives_the_place_back_to_those_who_wait(
    lend: Lend, start: Start, tmp_path: Path, wired: WiredLab, number: signal.Signals
) -> None:
    site = lend(start())
    run = Run(tmp_path / "run", site, reserve_timeout_s=60)
    run.await_open()
    holder = site.who()["desk-0"]
    assert f"harness-{run.pid}-" in holder
    with pytest.raises(
        InUseError, match=rf"place desk-0 is held by {holder} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d"
    ):
        wired.open(site.entry(0))
    assert site.who() == {"desk-0": holder}
    lease = Coordinators().holder_of("desk", site.entry(0))
    assert lease is not None
    assert (lease.pid, lease.reason) == (run.pid, "harness")
    run.end(number)
    board = wired.open(site.entry(0, reserve_timeout_s=60))
    assert board.read_state().mac == site.twins[0].mac
    wired.close()
    assert site.is_free


def test_a_run_that_is_killed_before_it_has_acquired_leaves_no_reservation(
    lend: Lend, start: Start, tmp_path: Path
) -> None:
    site = lend(start())
    site.kill_exporter()
    # The place is allocated to the reservation, and cannot be acquired without its exporter.
    run = Run(tmp_path / "run", site, reserve_timeout_s=60)
    until("the reservation", lambda: f"harness-{run.pid}-" in str(site.reservations()))
    run.end()
    until("the end of the reservation", lambda: site.is_free)


@pytest.mark.full
def test_the_process_that_holds_the_place_may_die_and_so_may_both(
    lend: Lend, start: Start, tmp_path: Path, wired: WiredLab
) -> None:
    site = lend(start())
    run = Run(tmp_path / "run", site, reserve_timeout_s=60)
    run.await_open()
    first = run.agent()
    holder = site.who()
    os.kill(first, signal.SIGKILL)
    log = tmp_path / "run" / "out" / "desk" / "serial.log"
    until("another", lambda: "another takes over" in log.read_text() and run.agent() != first)
    assert site.who() == holder

    # Nobody is left to give it back: the next run of this user on this host does.
    os.kill(run.agent(), signal.SIGSTOP)
    stopped = run.agent()
    run.end()
    os.kill(stopped, signal.SIGKILL)
    assert site.who() == holder
    again = Run(tmp_path / "run", site, reserve_timeout_s=60)
    again.await_open()
    assert f"harness-{again.pid}-" in site.who()["desk-0"]
    again.end(signal.SIGTERM)
    until("the release", lambda: site.is_free)


@pytest.mark.full
def test_a_plain_tcp_port_is_reset_by_power_and_refuses_download_mode(
    lend: Lend, start: Start, wired: WiredLab
) -> None:
    twin = start()
    site = lend(twin, protocol="raw")
    board = wired.open(site.entry(0, reserve_timeout_s=60))
    assert "uart-download" not in board.capabilities
    board.link.reset(BootMode.RUN)
    assert site.switch.switched == [(0, False), (0, True)]
    until("the ROM's line", lambda: any("ESP-ROM:" in line.text for line in board.console.lines))
    with pytest.raises(LabError, match=r"plain TCP \(protocol: raw\), without DTR and RTS.*download mode"):
        board.read_state()
    wired.close()
    without = lend(twin, protocol="raw", power=False)
    with pytest.raises(LabError, match="the place has no power driver: nothing can reset the board"):
        wired.open(without.entry(0, reserve_timeout_s=60)).link.reset(BootMode.RUN)
