"""Leases: who holds what, why and since when, told without taking anything; renewed by whoever lives."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import lock_file
from harness.errors import InUseError
from harness.home import Home
from harness.inventory.entry import AnyEntry, Rfc2217Entry, SerialEntry, TwinEntry
from harness.inventory.inventory import Inventory
from harness.lock_note import Note
from harness.locks import BoardLock, lock_files
from harness.rack import renewal
from harness.rack.lease import Lease, board_locks, holder_of
from harness.rack.reason import REASON_VARIABLE, command_of_pytest, reason_of, reason_of_session
from harness.rack.renewal import LEASE_S, leased

posix = pytest.mark.skipif(os.name != "posix", reason="signals and flock(2)")

TWIN = TwinEntry(chip="esp32c3")

KEEPER = """
import sys, time
from pathlib import Path
from harness.rack.renewal import leased
with leased([Path(sys.argv[1])], board="c3", purpose="pytest", reason="pytest tests/ota in CI job 4711"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def keeper() -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """Starts another process that leases the board with the lock file `path`."""
    started: list[subprocess.Popen[str]] = []

    def start(path: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", KEEPER, str(path)], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


class Rack:
    """A state folder and its boards."""

    def __init__(self, folder: Path, **entries: AnyEntry) -> None:
        self.home = Home(folder)
        self.inventory = Inventory(None, entries)

    def locks(self, name: str) -> tuple[Path, ...]:
        return board_locks(name, self.inventory.named(name), self.inventory, self.home)

    def holder(self, name: str) -> Lease | None:
        return holder_of(name, self.inventory.named(name), self.inventory, self.home)


@pytest.fixture
def rack(tmp_path: Path) -> Rack:
    made = Rack(tmp_path, c3=TWIN)
    made.home.twin("c3").mkdir(parents=True)
    return made


@posix
def test_a_leased_board_tells_holder_reason_since_and_until(
    rack: Rack, keeper: Callable[[Path], subprocess.Popen[str]]
) -> None:
    assert rack.holder("c3") is None
    (path,) = rack.locks("c3")
    process = keeper(path)
    lease = rack.holder("c3")
    assert lease is not None
    assert lease.since_s is not None
    assert lease.until_s == lease.since_s + LEASE_S
    assert abs(lease.since_s - time.time()) < 300
    assert (lease.board, lease.pid, lease.reason) == ("c3", process.pid, "pytest tests/ota in CI job 4711")
    assert f"(process {process.pid}, pytest tests/ota in CI job 4711, since " in lease.text()
    with pytest.raises(
        InUseError, match=r"pytest tests/ota in CI job 4711, since .*, lease until .*\d\d:\d\d"
    ):
        BoardLock([path], board="c3", purpose="p").acquire()


@posix
def test_a_lease_dies_with_its_process(rack: Rack, keeper: Callable[[Path], subprocess.Popen[str]]) -> None:
    (path,) = rack.locks("c3")
    process = keeper(path)
    process.kill()
    process.wait()
    assert path.exists(), "its note lies there still"
    assert rack.holder("c3") is None
    with leased([path], board="c3", purpose="p"):
        pass


@posix
def test_a_stopped_holder_is_overdue_and_keeps_its_board(
    rack: Rack, keeper: Callable[[Path], subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = rack.locks("c3")
    process = keeper(path)
    process.send_signal(signal.SIGSTOP)
    now = time.time() + LEASE_S + 10
    monkeypatch.setattr(time, "time", lambda: now)
    lease = rack.holder("c3")
    assert lease is not None
    assert lease.is_overdue
    assert "not renewed since" in lease.text()
    with pytest.raises(InUseError, match=rf"process {process.pid}, .*, overdue since"):
        BoardLock([path], board="c3", purpose="p").acquire()


@posix
def test_who_lives_renews_its_lease(rack: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = rack.locks("c3")
    monkeypatch.setattr(renewal, "_RENEWER", renewal._Renewer())
    monkeypatch.setattr(renewal, "RENEW_S", 0.01)
    with leased([path], board="c3", purpose="p"):
        first = rack.holder("c3")
        assert first is not None
        assert first.until_s is not None
        now = time.time() + 100
        monkeypatch.setattr(time, "time", lambda: now)
        deadline = time.monotonic() + 60
        while (seen := rack.holder("c3")) and seen.until_s == first.until_s and time.monotonic() < deadline:
            time.sleep(0.01)
        assert seen is not None
        assert seen.until_s == int(now) + LEASE_S
        assert seen.since_s == first.since_s
    assert rack.holder("c3") is None


@posix
def test_a_lease_that_is_let_go_is_not_renewed_into_another_file(rack: Rack) -> None:
    """The descriptor's number is somebody else's by then."""
    (path,) = rack.locks("c3")
    lock = BoardLock([path], board="c3", purpose="p", lease_s=LEASE_S).acquire()
    kept = lock._held[0]
    lock.release()
    other = path.with_name("other")
    with other.open("w+"):
        kept.renew(LEASE_S)
        lock.renew()
    assert other.read_bytes() == b""


@posix
@pytest.mark.parametrize("kernel_tells", [True, False], ids=["by the kernel's list", "without one"])
def test_looking_who_holds_a_board_keeps_nobody_from_taking_it(
    rack: Rack, monkeypatch: pytest.MonkeyPatch, kernel_tells: bool
) -> None:
    (path,) = rack.locks("c3")
    path.write_bytes(Note.of_this_process("c3", "left by a killed one").bytes)
    looker = subprocess.Popen(
        [sys.executable, "-c", LOOKER, str(path), "" if kernel_tells else "blind"], stdout=subprocess.PIPE
    )
    if not kernel_tells:
        monkeypatch.setattr(lock_file, "_flock_pid", lambda _status: None)
    try:
        assert looker.stdout is not None
        looker.stdout.readline()
        for _ in range(300):
            # The file stays, as one does that another user made.
            path.touch()
            with BoardLock([path], board="c3", purpose="p"):
                assert rack.holder("c3") is not None
    finally:
        looker.kill()
        looker.wait()
        looker.stdout.close()


ONE_LOOK = """
import os, sys
from pathlib import Path
from harness.lock_file import holder_of
os.setgid(65534); os.setuid(65534)
print(holder_of(Path(sys.argv[1])))
"""

LOOKER = """
import sys
from pathlib import Path
from harness import lock_file
if sys.argv[2]:
    lock_file._flock_pid = lambda status: None
print("looks", flush=True)
while True:
    lock_file.holder_of(Path(sys.argv[1]))
"""


@posix
@pytest.mark.skipif(os.geteuid() != 0 if os.name == "posix" else True, reason="becomes another user")
@pytest.mark.machine_locks
def test_another_users_lease_is_told_even_where_its_file_may_not_be_read(
    keeper: Callable[[Path], subprocess.Popen[str]],
) -> None:
    (path,) = lock_files([f"test-{os.getpid()}-unreadable"])
    process = keeper(path)
    try:
        path.chmod(0o600)
        seen = subprocess.run(
            [sys.executable, "-c", ONE_LOOK, str(path)], capture_output=True, text=True, check=True
        )
        assert seen.stdout.strip() == f"Holder(pid={process.pid}, note=None)"
    finally:
        path.unlink(missing_ok=True)


ENTRIES: dict[str, tuple[AnyEntry, int]] = {
    "a twin": (TWIN, 1),
    "a port that is not there": (SerialEntry(chip="esp32c3", link="serial", port="/dev/ttyUSB77"), 1),
    "a port and a MAC": (
        SerialEntry(chip="esp32c3", link="serial", port="/dev/ttyUSB77", mac="02:00:00:00:00:01"),
        2,
    ),
    "a MAC alone": (SerialEntry(chip="esp32c3", link="serial", mac="02:00:00:00:00:01"), 1),
    "a USB socket with nothing in it": (SerialEntry(chip="esp32c3", link="serial", usb_location="9-9.9"), 0),
    "a server": (Rfc2217Entry(chip="esp32c3", link="rfc2217", url="rfc2217://127.0.0.1:4000"), 1),
}


@pytest.mark.parametrize(("entry", "files"), ENTRIES.values(), ids=ENTRIES)
def test_every_kind_of_entry_is_looked_at_without_opening_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: AnyEntry, files: int
) -> None:
    monkeypatch.setattr("harness.connection._mac_at", lambda *_: pytest.fail("a chip was asked"))
    rack = Rack(tmp_path, it=entry)
    assert len(rack.locks("it")) == files
    assert rack.holder("it") is None


REASONS: dict[str, tuple[dict[str, str], str]] = {
    "at a desk": ({}, "pytest tests/ota"),
    "GitLab": ({"CI_JOB_ID": "4711", "CI": "true"}, "pytest tests/ota in CI job 4711"),
    "GitHub": ({"GITHUB_RUN_ID": "99"}, "pytest tests/ota in GitHub run 99"),
    "Jenkins": ({"BUILD_TAG": "jenkins-ota-7"}, "pytest tests/ota in build jenkins-ota-7"),
    "said by hand": (
        {"HARNESS_REASON": "Anna tries the new PSU", "CI_JOB_ID": "1"},
        "Anna tries the new PSU",
    ),
    "nothing said": ({"HARNESS_REASON": " ", "CI_JOB_ID": ""}, "pytest tests/ota"),
}


@pytest.mark.parametrize(("environment", "expected"), REASONS.values(), ids=REASONS)
def test_the_reason_names_the_command_and_the_job(environment: dict[str, str], expected: str) -> None:
    assert reason_of("pytest tests/ota", environment) == expected


def test_of_pytests_options_only_those_that_choose_tests_are_shown(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = pytester.makepyfile(test_it="def test_it(): pass\n")
    for variable in ("CI_JOB_ID", "GITHUB_RUN_ID", "BUILD_TAG", REASON_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    given = [
        "test_it.py::test_it",
        "-k",
        "it and not slow",
        f"--basetemp={test.parent / 'hunter2'}",
        "-m",
        "not full",
    ]
    config = pytester.parseconfig(*given, "--rootdir", str(pytester.path), "-p", "no:cacheprovider")
    assert command_of_pytest(config) == "pytest test_it.py::test_it -k 'it and not slow' -m 'not full'"
    assert command_of_pytest(pytester.parseconfig()) == "pytest"
    assert reason_of_session(config) == reason_of_session(config)
    config.option.harness_reason = "as the controller said"
    assert reason_of_session(config) == "as the controller said"


def test_where_a_locked_file_cannot_be_read_the_note_beside_it_tells_the_same(tmp_path: Path) -> None:
    """As on Windows."""
    way, path = lock_file._Filelock, tmp_path / "board.lock"
    assert way.holder_of(path) is None
    note = Note.of_this_process("c3", "pytest", reason="pytest tests/ota", lease_s=LEASE_S)
    held = way.taken(path, note)
    found = way.holder_of(path)
    assert found is not None
    assert found.note == note
    held.tell(note.renewed(2 * LEASE_S))
    again = way.holder_of(path)
    assert again is not None
    assert again.note is not None
    assert again.note.until_s >= note.since_s + 2 * LEASE_S
    with pytest.raises(lock_file.LockHeldError, match="pytest tests/ota, since"):
        way.taken(path, note)
    held.release()
    held.tell(note)
    assert way.holder_of(path) is None
    assert not path.with_suffix(".holder").exists()


@posix
def test_a_full_disk_keeps_nobody_from_a_board(rack: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = rack.locks("c3")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    monkeypatch.setattr(os, "pwrite", full)
    with leased([path], board="c3", purpose="p") as lock:
        lock.renew()
        lease = rack.holder("c3")
        assert lease is not None
        assert lease.pid in (os.getpid(), None)
        with pytest.raises(InUseError):
            BoardLock([path], board="c3", purpose="p").acquire()
    assert rack.holder("c3") is None


FORKER = """
import os, sys
from pathlib import Path
from harness.rack import renewal
from harness.rack.renewal import leased
path = Path(sys.argv[1])
with leased([path], board="c3", purpose="p"):
    renewal._RENEWER._guard.acquire()  # as the renewing thread may hold it at that moment
    child = os.fork()
    if child == 0:
        with leased([path.with_name("other")], board="other", purpose="p"):
            alive = renewal._RENEWER._thread.is_alive()
            os._exit(0 if alive and len(renewal._RENEWER._locks) == 1 else 1)
    renewal._RENEWER._guard.release()
    sys.exit(os.waitpid(child, 0)[1])
"""


@posix
def test_a_forked_child_renews_its_own_leases_and_not_its_parents(rack: Rack) -> None:
    (path,) = rack.locks("c3")
    done = subprocess.run([sys.executable, "-c", FORKER, str(path)], timeout=300, check=False)
    assert done.returncode == 0
    assert rack.holder("c3") is None
