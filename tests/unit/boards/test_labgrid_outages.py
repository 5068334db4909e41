"""Coordinator and exporter go and come back while a board is used; one that went to somebody else is let alone."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from labgrid_site import Lend, Site, until
from wired_twin import Start, WiredLab, provisioned

from harness.board import Board
from harness.errors import LabError
from harness.links.labgrid import LabgridLink
from harness.links.labgrid_lease import PlaceLease
from harness.links.link import BootMode
from harness.main_job import run_main_job
from harness.preparation import Consent, Demand
from harness.provision.profile import Lock, Profile
from harness.rack.health import HealthBook
from harness.report.verdict import Standing
from harness.say import Say

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="labgrid runs on Linux")


def lease_of(board: Board) -> PlaceLease:
    assert isinstance(board.link, LabgridLink)
    return board.link.lease


def says_something_new(board: Board) -> None:
    """The board, reset over the wire, is heard."""
    before = len(board.console.lines)
    board.link.reset(BootMode.RUN)
    until("its boot", lambda: any("ESP-ROM:" in line.text for line in board.console.lines[before:]))


def noted(board: Board, text: str) -> Callable[[], bool]:
    return lambda: text in board.log_path.read_text()


def agent_of(board: Board) -> int:
    process = lease_of(board)._process
    assert process is not None
    return process.pid


def sent_to(site: Site) -> int:
    """Bytes that have reached the twin's UART."""
    return int(site.twins[0].control("account")["rx_bytes"])


def ends_at_once(board: Board, site: Site, why: str) -> None:
    """Every use of the board fails with one sentence, and nothing reaches it any more."""
    until("the end", lambda: lease_of(board).ending is not None)
    sent = sent_to(site)
    with pytest.raises(LabError, match=why):
        board.link.reset(BootMode.RUN)
    with pytest.raises(LabError, match=why):
        board.power.off()
    until("the reader's end", lambda: board.console._recording.is_over)
    with pytest.raises(LabError, match=why):
        board.console.write(b"hello\n")
    assert sent_to(site) == sent
    assert not site.switch.switched


def test_a_run_survives_the_restart_of_coordinator_and_exporter_unless_somebody_else_was_there(
    lend: Lend, start: Start, wired: WiredLab
) -> None:
    site = lend(start(), protocol="ser2net")
    board = wired.open(site.entry(0, reserve_timeout_s=60))
    assert board.read_state().mac == site.twins[0].mac
    holder, port = site.who(), lease_of(board).port
    os.kill(site.pid_of_exporter, signal.SIGSTOP)
    site.kill_coordinator()
    until("the note", noted(board, "is away; the lease on desk-0 is kept for 300 s"))
    # Serial data does not go by way of the coordinator.
    says_something_new(board)
    # labgrid's exporter ends with its coordinator, and its service starts it again: the port is another one then.
    site.kill_exporter()
    site.start()
    until("the note", noted(board, "is back after"))
    assert site.who() == holder
    until("the return", lambda: lease_of(board).port not in (None, port))
    assert board.read_state().mac == site.twins[0].mac
    says_something_new(board)
    board.power.cycle(0.1)
    assert site.switch.switched == [(0, False), (0, True)]

    site.switch.switched.clear()
    os.kill(agent_of(board), signal.SIGSTOP)
    site.kill_coordinator()
    site.kill_exporter()
    site.start()
    assert site.acquire() == "done"
    os.kill(agent_of(board), signal.SIGCONT)
    ends_at_once(board, site, "place desk-0 went to elsewhere/bob at .* while the coordinator was away")
    wired.close()
    # Closing does not take it from the one who has it.
    assert site.who() == {"desk-0": "elsewhere/bob"}


@pytest.mark.full
def test_serial_data_goes_on_through_a_network_port_that_no_exporter_serves(
    lend: Lend, start: Start, wired: WiredLab
) -> None:
    site = lend(start())
    with wired.lab(site.entry(0, reserve_timeout_s=60)) as lab:
        board = lab.open("desk")
        for kill in (site.kill_coordinator, site.kill_exporter):
            kill()
            says_something_new(board)
        site.start()
        until("the note", noted(board, "is back after"))
        says_something_new(board)
        assert "port vanished" not in board.log_path.read_text()
    assert site.is_free


@pytest.mark.full
def test_a_lease_ends_when_its_coordinator_is_away_for_longer_than_agreed(
    lend: Lend, start: Start, wired: WiredLab
) -> None:
    site = lend(start())
    board = wired.open(site.entry(0, reserve_timeout_s=60, grace_s=1))
    site.kill_coordinator()
    ends_at_once(board, site, "place desk-0 could not be kept for longer than 1 s: .* does not answer")
    site.start_coordinator()


@pytest.mark.full
def test_a_board_whose_place_was_released_by_a_person_is_let_alone(
    lend: Lend, start: Start, wired: WiredLab
) -> None:
    site = lend(start())
    board = wired.open(site.entry(0, reserve_timeout_s=60))
    says_something_new(board)
    site.kick()
    ends_at_once(board, site, "place desk-0 was taken away .*nobody has it now")


@pytest.mark.full
def test_the_error_of_a_run_says_that_the_place_was_lost(lend: Lend, start: Start, wired: WiredLab) -> None:
    site = lend(start())

    def run() -> None:
        with wired.lab(site.entry(0, reserve_timeout_s=60)) as lab:
            board = lab.open("desk")
            site.kick()
            deadline = time.monotonic() + 60
            with lab.watch("desk").watching():
                while time.monotonic() < deadline:
                    board.console.write(b"x")
                    time.sleep(0.05)

    with pytest.raises(LabError) as ended:
        run()
    assert ended.value.message.startswith("place desk-0 was taken away (labgrid-client release --kick)")
    assert "nothing more was sent to the board" in (ended.value.todo or "")
    assert HealthBook(wired.home).of("desk").broken is None, "a board that somebody else has is not broken"


@pytest.mark.full
def test_an_exporter_that_is_killed_and_restarted_is_a_gap_in_the_log(
    lend: Lend, start: Start, wired: WiredLab
) -> None:
    site = lend(start(), protocol="ser2net")
    with wired.lab(site.entry(0, reserve_timeout_s=60)) as lab:
        board = lab.open("desk")
        says_something_new(board)
        lease = lease_of(board)
        first = lease.port
        site.kill_exporter()
        until("the note", noted(board, "its exporter is gone"))
        site.start_exporter()
        # Its coordinator gives it the place again within 15 s; the port is another one then.
        until("the gap", noted(board, "port vanished at"))
        until("the return", lambda: lease.port not in (None, first))
        assert board.read_state().mac == site.twins[0].mac
        says_something_new(board)
    assert site.is_free


@pytest.mark.full
def test_an_exporter_that_stays_away_ends_the_run(
    lend: Lend, start: Start, wired: WiredLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.links.labgrid_port.EXPORTER_RETURN_S", 1.0)
    site = lend(start(), protocol="ser2net")
    board = wired.open(site.entry(0, reserve_timeout_s=60))
    says_something_new(board)
    site.kill_exporter()
    with pytest.raises(LabError, match="did not come back within 1 s"):
        until("the end", lambda: board.console.write(b"hello\n"))


@pytest.mark.full
def test_the_main_job_does_not_notice_that_coordinator_and_exporter_are_killed_again_and_again(
    lend: Lend, start: Start, wired: WiredLab
) -> None:
    site = lend(provisioned(start, wired, Lock.NONE))
    entry = site.entry(0, burn_up_to="release", reserve_timeout_s=60)
    over, killed = threading.Event(), 0

    def kill_and_restart() -> None:
        nonlocal killed
        while not over.wait(0.5):
            site.kill_coordinator()
            over.wait(1.0)
            site.kill_exporter()
            site.start()
            killed += 1
            # As long as somebody would have to notice it, and to have the place again.
            over.wait(2.0)

    with wired.lab(entry) as lab:
        board = lab.open("desk")
        holder = site.who()
        trouble = threading.Thread(target=kill_and_restart)
        trouble.start()
        try:
            while killed < 3:
                demand, consent = Demand(Profile.RELEASE), Consent(entry)
                verdict = run_main_job(board, demand, consent, wired.home, say=Say(quiet=True))
                assert verdict.standing is Standing.PROVEN, verdict
        finally:
            over.set()
            trouble.join()
        until("the place", lambda: site.who() == holder)
    assert site.is_free


@pytest.mark.full
def test_a_place_is_given_back_also_when_its_coordinator_answers_after_the_run_has_ended(
    lend: Lend, start: Start, wired: WiredLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.links.labgrid_lease._CLOSE_S", 1.0)
    told: list[str] = []

    class Saying(Say):
        def line(self, text: str) -> None:
            told.append(text)

    site = lend(start())
    lab = wired.lab(site.entry(0, reserve_timeout_s=60))
    lab.say = Saying(quiet=True)
    with lab:
        agent = agent_of(lab.open("desk"))
        os.kill(site.pid_of_coordinator, signal.SIGSTOP)
    assert re.search(rf"does not answer; process {agent} gives desk-0 back once it does", told[-1])
    os.kill(site.pid_of_coordinator, signal.SIGCONT)
    until("the release", lambda: site.is_free)
    until("the end of the agent", lambda: not Path(f"/proc/{agent}").exists())
