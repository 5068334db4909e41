"""Board locks: one user, named, freed by death, on whatever path the device is reached."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import locks
from harness.errors import LabError
from harness.home import Home
from harness.inventory.entry import AnyEntry, Rfc2217Entry, SerialEntry, TwinEntry
from harness.inventory.inventory import Inventory
from harness.lab import Lab, secret_from
from harness.links.device_names import mac_name
from harness.links.device_port import open_device
from harness.lock_note import Note
from harness.locks import BoardLock, lock_files, shared_folder
from harness.provision.identity import Identity

linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's list of locks is Linux's")
posix = pytest.mark.skipif(os.name != "posix", reason="flock(2)")
as_root = pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="becomes another user")

NOBODY = 65534


def lock_on(path: Path, *, board: str = "desk", purpose: str = "pytest") -> BoardLock:
    return BoardLock([path], board=board, purpose=purpose)


HOLDER = """
import os, sys, time
from pathlib import Path
from harness.locks import BoardLock
import harness.lock_file
if sys.argv[3:]:
    os.setgid(int(sys.argv[3])); os.setuid(int(sys.argv[3]))
lock = BoardLock([Path(sys.argv[1])], board="b", purpose="a long job")
try:
    lock.acquire()
except Exception as error:
    print(error, flush=True)
    sys.exit(1)
exec(sys.argv[2])
print("held", flush=True)
time.sleep(600)
"""

pytestmark = pytest.mark.machine_locks


class Holder:
    """Another process that takes the lock on `path`, and then does `then`."""

    def __init__(self, path: Path, then: str = "", *, uid: int | None = None) -> None:
        more = [] if uid is None else [str(uid)]
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path), then, *more], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline().strip()

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def holder() -> Iterator[Callable[..., Holder]]:
    started: list[Holder] = []

    def start(path: Path, then: str = "", *, uid: int | None = None) -> Holder:
        started.append(Holder(path, then, uid=uid))
        return started[-1]

    yield start
    for each in started:
        each.kill()


# --- held, and by whom ---


def test_a_held_board_is_refused_and_the_holder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with (
        lock_on(path, purpose="harness run"),
        pytest.raises(LabError, match=r"board desk: in use by .*harness run, since") as caught,
    ):
        lock_on(path).acquire()
    assert "what to do" in str(caught.value)
    with lock_on(path):
        pass
    assert not path.exists()


def test_two_entries_for_one_device_in_one_run_are_told_so(tmp_path: Path) -> None:
    with (
        lock_on(tmp_path / "lock", board="left"),
        pytest.raises(LabError, match=r"board right: this run has the device open already, as board left"),
    ):
        lock_on(tmp_path / "lock", board="right").acquire()


def test_a_lock_is_freed_when_its_holder_is_killed(tmp_path: Path, holder: Callable[..., Holder]) -> None:
    path = tmp_path / "lock"
    other = holder(path)
    with pytest.raises(LabError, match=rf"process {other.pid}, a long job, since"):
        lock_on(path).acquire()
    other.kill()
    assert path.exists(), "a killed holder leaves its file and its note"
    with lock_on(path), pytest.raises(LabError, match=rf"process {os.getpid()}"):
        lock_on(path).acquire()


STALE = {
    "a note of a dead process": json.dumps(
        {
            "user": "u",
            "host": socket.gethostname(),
            "pid": 4_000_000,
            "purpose": "p",
            "since": "s",
            "board": "b",
        }
    ),
    "a note of a living process that holds nothing": json.dumps(
        {"user": "u", "host": socket.gethostname(), "pid": 1, "purpose": "p", "since": "s", "board": "b"}
    ),
    "half a note": '{"user": "u", "ho',
    "no note": "",
    "rubbish": "\x00\x1b[2J" * 5000,
    "a number": "7",
    "a process id that is none": json.dumps(
        {"user": "u", "host": "h", "pid": -1, "purpose": "p", "since": "s", "board": "b"}
    ),
}


@linux
@pytest.mark.parametrize("left", STALE.values(), ids=STALE)
def test_the_kernel_names_the_holder_whatever_the_note_says(
    tmp_path: Path, holder: Callable[..., Holder], left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a kill between lock and note: the holder's own note is still that of another."""
    monkeypatch.setattr("harness.lock_file.NOTE_TIMEOUT_S", 0.05)
    path = tmp_path / "lock"
    other = holder(path)
    path.write_text(left)
    with pytest.raises(LabError) as caught:
        lock_on(path).acquire()
    assert caught.value.message == f"in use by {_user()} (process {other.pid})"


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


def test_what_another_user_wrote_does_not_reach_the_terminal_as_it_is() -> None:
    note = Note("\x1b[31mroot\n", "h", 1, "b", "x" * 5000, "s")
    read = Note.parsed(note.bytes)
    assert read is not None
    assert "\x1b" not in read.text()
    assert "\n" not in read.text()
    assert len(read.text()) < 400


# --- what a lock does not depend on ---


@posix
@pytest.mark.parametrize(
    "child",
    [
        "import subprocess; subprocess.Popen(['sleep', '300'], close_fds=False)",
        "pid = os.fork()\nif pid == 0:\n    os.close(1)\n    time.sleep(300)\n    os._exit(0)",
    ],
    ids=["a program that keeps all descriptors", "a forked copy"],
)
def test_a_child_that_outlives_its_parent_does_not_hold_the_lock(
    tmp_path: Path, holder: Callable[..., Holder], child: str
) -> None:
    path = tmp_path / "lock"
    other = holder(path, child.replace("['sleep', '300']", "['sleep', '300'], stdout=subprocess.DEVNULL"))
    assert other.said == "held"
    children = _children_of(other.pid)
    try:
        other.kill()
        with lock_on(path):
            assert children
            assert all(_lives(pid) for pid in children)
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)


def _children_of(pid: int) -> list[int]:
    shown = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout
    pairs = (line.split() for line in shown.splitlines())
    return [int(child) for child, parent in pairs if int(parent) == pid]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@posix
def test_a_lock_that_is_let_go_is_free_although_a_child_still_has_its_descriptor(tmp_path: Path) -> None:
    """Between fork and exec every child has it for a moment."""
    lock = lock_on(tmp_path / "lock").acquire()
    descriptor = os.dup(lock._held[0]._file._descriptor)  # type: ignore[union-attr]
    lock.release()
    with lock_on(tmp_path / "lock"):
        pass
    os.close(descriptor)


@posix
def test_a_file_that_is_deleted_and_made_anew_while_held_is_not_taken_away_from_its_new_holder(
    tmp_path: Path,
) -> None:
    path = tmp_path / "lock"
    first = lock_on(path).acquire()
    path.unlink()
    second = lock_on(path).acquire()
    first.release()
    with pytest.raises(LabError, match="in use"):
        lock_on(path).acquire()
    second.release()


@posix
@pytest.mark.parametrize("replaced", [False, True], ids=["deleted", "and made anew"])
def test_a_file_that_goes_between_opening_and_locking_it_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    """Its holder lets go just then: what was opened is a file that nobody else will ever see."""
    import fcntl

    path = tmp_path / "lock"
    path.touch()
    ours = path.stat().st_ino
    others: list[BoardLock] = []
    flock = fcntl.flock

    def slow(descriptor: int, operation: int) -> None:
        if os.fstat(descriptor).st_ino == ours and path.exists() and path.stat().st_ino == ours:
            path.unlink()
            if replaced:
                others.append(lock_on(path, board="quicker").acquire())
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", slow)
    if replaced:
        with pytest.raises(LabError, match="as board quicker"):
            lock_on(path).acquire()
        others[0].release()
    else:
        with lock_on(path), pytest.raises(LabError, match="in use"):
            lock_on(path).acquire()


def test_all_names_of_a_device_are_locked_or_none(tmp_path: Path) -> None:
    names = lock_files(["a", "b", "c"], tmp_path)
    with lock_on(names[1]), pytest.raises(LabError, match="in use"):
        BoardLock(names, board="desk", purpose="p").acquire()
    for path in names:
        with lock_on(path):
            pass


@pytest.mark.parametrize(("one", "other"), [("a/b", "a_b"), ("x" * 300 + "1", "x" * 300 + "2"), ("ä", "ö")])
def test_names_that_no_file_may_have_stay_apart(tmp_path: Path, one: str, other: str) -> None:
    first, second = lock_files([one], tmp_path)[0], lock_files([other], tmp_path)[0]
    assert first != second
    assert len(first.name.encode()) < 255


# --- in a folder that everybody may write to ---

PLANTED: dict[str, Callable[[Path, Path], None]] = {
    "a link": lambda path, precious: path.symlink_to(precious),
    "a link to nothing": lambda path, precious: path.symlink_to(precious.with_name("new")),
    "a hard link": lambda path, precious: os.link(precious, path),
    "a pipe": lambda path, _precious: os.mkfifo(path),
    "a folder": lambda path, _precious: path.mkdir(),
}


@posix
@pytest.mark.parametrize("plant", PLANTED.values(), ids=PLANTED)
def test_what_was_planted_in_the_place_of_a_lock_is_refused_and_harms_nothing(
    tmp_path: Path, plant: Callable[[Path, Path], None]
) -> None:
    precious, path = tmp_path / "precious", tmp_path / "lock"
    precious.write_text("the user's own")
    plant(path, precious)
    with pytest.raises(LabError, match=f"the lock {path} cannot be taken: ") as caught:
        lock_on(path).acquire()
    assert "remove that file" in (caught.value.todo or "")
    assert precious.read_text() == "the user's own"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["lock", "precious"]


@posix
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_others_may_lock_the_file_after_us_whatever_our_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with lock_on(tmp_path / "lock"):
            assert stat.S_IMODE((tmp_path / "lock").stat().st_mode) == 0o666
    finally:
        os.umask(before)


@posix
def test_a_system_without_nameless_files_locks_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holder: Callable[..., Holder]
) -> None:
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    path = tmp_path / "lock"
    with lock_on(path, purpose="by the old way"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
        assert re_read(path).purpose == "by the old way"
        assert "in use by" in holder(path).said
    assert holder(path).said == "held"


def re_read(path: Path) -> Note:
    note = Note.parsed(path.read_bytes())
    assert note is not None
    return note


@linux
def test_a_lock_appears_with_its_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing comes between: a file that exists has told already who holds it."""
    refusals: list[str] = []
    link = os.link

    def looked_at(source: str, name: str, **more: Any) -> None:
        link(source, name, **more)
        monkeypatch.setattr(os, "link", link)
        with pytest.raises(LabError) as caught:
            lock_on(tmp_path / "lock").acquire()
        refusals.append(caught.value.message)

    monkeypatch.setattr(os, "link", looked_at)
    with lock_on(tmp_path / "lock", purpose="just born"):
        assert len(refusals) == 1
        assert f"process {os.getpid()}, just born" in refusals[0]


FOLDERS = {
    "the first that is root's and sticky": ({"a": 0o1777, "b": 0o1777}, "a"),
    "not one that only a group may write to": ({"a": 0o1775, "b": 0o1777}, "b"),
    "not one where anybody may delete": ({"a": 0o777, "b": 0o1777}, "b"),
    "not one that is missing": ({"b": 0o1777}, "b"),
}


@as_root
@pytest.mark.parametrize(("modes", "expected"), FOLDERS.values(), ids=FOLDERS)
def test_every_user_finds_the_same_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modes: dict[str, int], expected: str
) -> None:
    for name, mode in modes.items():
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(mode)
    monkeypatch.setattr(locks, "_SHARED_FOLDERS", tuple(str(tmp_path / name) for name in "ab"))
    # What differs from user to user is not asked.
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert shared_folder() == tmp_path / expected


def test_a_machine_without_a_shared_folder_says_what_to_make(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(locks, "_SHARED_FOLDERS", (str(tmp_path),))
    with pytest.raises(LabError, match="no folder for locks that all users") as caught:
        shared_folder()
    assert "mode 1777" in (caught.value.todo or "")


# --- two users ---


@as_root
@pytest.mark.parametrize(("first", "second"), [(0, NOBODY), (NOBODY, 0), (NOBODY, NOBODY - 1)])
def test_two_users_never_both_hold_a_board_and_each_is_named_to_the_other(
    holder: Callable[..., Holder], first: int, second: int
) -> None:
    (path,) = lock_files([f"test-{os.getpid()}-{first}-{second}"])
    try:
        one = holder(path, uid=first)
        assert one.said == "held"
        refused = holder(path, uid=second).said
        name = {0: "root", NOBODY: "nobody"}[first]
        assert f"in use by {name} (process {one.pid}, a long job, since" in refused
        one.kill()
        assert path.exists()
        assert holder(path, uid=second).said == "held", "what the first left keeps the second out"
    finally:
        path.unlink(missing_ok=True)


# --- one device, by whichever way ---


def lab_of(home: Path, **entries: AnyEntry) -> Lab:
    return Lab(Home(home), Inventory(None, entries), home / "out", secret_from(None), purpose="pytest")


OPENER = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from harness.home import Home
    from harness.inventory.entry import SerialEntry, TwinEntry
    from harness.inventory.inventory import Inventory
    from harness.lab import Lab, secret_from
    home, place = map(Path, sys.argv[1:])
    twin = TwinEntry(chip="esp32c3", state=str(place))
    entry = twin if place.is_dir() else SerialEntry(chip="esp32c3", link="serial", port=str(place))
    inventory = Inventory(None, {"theirs": entry})
    with Lab(Home(home), inventory, home / "out", secret_from(None), purpose="their job") as lab:
        lab.open("theirs")
        print("held", flush=True)
        time.sleep(600)
    """
)


@posix
@pytest.mark.parametrize("kind", ["serial", "twin"])
def test_two_homes_and_two_paths_are_one_board(tmp_path: Path, kind: str) -> None:
    board, device = os.openpty()
    place = Path(os.ttyname(device)) if kind == "serial" else tmp_path / "state"
    if kind == "twin":
        place.mkdir()
    alias = tmp_path / "by-id"
    alias.symlink_to(place)
    command = [sys.executable, "-c", OPENER, str(tmp_path / "theirs"), str(place)]
    os.close(device)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        entry: AnyEntry = (
            SerialEntry(chip="esp32c3", link="serial", port=str(alias))
            if kind == "serial"
            else TwinEntry(chip="esp32c3", state=str(alias))
        )
        with (
            lab_of(tmp_path / "ours", ours=entry) as lab,
            pytest.raises(LabError, match=rf"board ours: in use by .*process {other.pid}, their job"),
        ):
            lab.open("ours")
        other.kill()
        other.wait()
        with lab_of(tmp_path / "ours", ours=entry) as lab:
            lab.open("ours")
    os.close(board)


@posix
def test_an_open_port_is_free_again_when_its_holder_is_killed_although_a_child_of_it_lives(
    tmp_path: Path,
) -> None:
    board, device = os.openpty()
    path = os.ttyname(device)
    os.close(device)
    script = (
        "import subprocess, sys, time; from harness.links.device_port import open_device;"
        "port = open_device(sys.argv[1], 115200);"
        "child = subprocess.Popen(['sleep', '300'], close_fds=False, stdout=subprocess.DEVNULL);"
        "print(child.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        child = int(other.stdout.readline())
        try:
            with pytest.raises(OSError, match="busy"):
                open_device(path, 115_200)
            other.kill()
            other.wait()
            open_device(path, 115_200).close()
        finally:
            os.kill(child, signal.SIGKILL)
    os.close(board)


def test_a_board_that_tells_its_mac_is_locked_by_that_too(tmp_path: Path) -> None:
    """A board has two wires: its UART's bridge, and its own USB. Which chip it is shows only when it is asked."""
    mac = f"02:00:{os.getpid() % 256:02x}:{time.time_ns() % 256:02x}:00:01"
    with BoardLock(lock_files([mac_name(mac)]), board="own-usb", purpose="their job"):
        lock = BoardLock(lock_files(["usb-9-9:1.0"], tmp_path), board="bridge", purpose="p").acquire()
        identity = Identity(
            "bridge",
            physical=True,
            declared=None,
            claim=lambda told: lock.extend(lock_files([mac_name(told)])),
        )
        with pytest.raises(LabError, match="this run has the device open already, as board own-usb"):
            identity.told(mac.upper())
        lock.release()
    lock = BoardLock([], board="bridge", purpose="p")
    lock.extend(lock_files([mac_name(mac)]))
    lock.extend(lock_files([mac_name(mac)]))
    lock.release()


def test_a_board_whose_entry_names_its_mac_is_one_board_on_two_servers(tmp_path: Path) -> None:
    mac = f"02:01:{os.getpid() % 256:02x}:{time.time_ns() % 256:02x}:00:01"
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        BoardLock(lock_files([mac_name(mac)]), board="there", purpose="their job"),
    ):
        url = f"rfc2217://127.0.0.1:{one.getsockname()[1]}"
        entry = Rfc2217Entry(chip="esp32c3", link="rfc2217", url=url, mac=mac)
        with (
            lab_of(tmp_path, here=entry) as lab,
            pytest.raises(LabError, match="as board there"),
        ):
            lab.open("here")
