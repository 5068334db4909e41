"""The app host: what is started, what carries its bytes, and how each end of a program resets the chip."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import boot_board
import pytest
from boot_board import OTA_0, Board, app_image

from harness.formats.app_image import Segment, build_app_image
from harness.twin.app_host import AppHost, NotStartable, _dies_with_parent, find_program
from harness.twin.boot_context import LoadedApp

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="native programs do not run on Windows")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler (cc, gcc or clang) on this host")

SOURCE = r"""
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ASAN "warming up\n==7==ERROR: AddressSanitizer: heap-buffer-overflow on address 1\n    #0 0x1 in f raw.c:7\n"
#define TSAN "==================\nWARNING: ThreadSanitizer: data race (pid=7)\n"

static int chip;

static uint32_t ask(uint32_t op, uint32_t arg0, void *out, uint32_t room)
{
    uint32_t request[4] = {op, arg0, 0, 0}, reply[3] = {0};
    if (write(chip, request, sizeof request) != sizeof request) exit(9);
    if (op == 13) { pause(); }
    if (read(chip, reply, sizeof reply) != sizeof reply) exit(9);
    for (uint32_t got = 0; got < reply[2] && got < room;) got += read(chip, (char *)out + got, room - got);
    return reply[0];
}

int main(void)
{
    char c;
    chip = atoi(getenv("ESP_TWIN_FD"));
    setvbuf(stdout, NULL, _IONBF, 0);
    printf("up %d\r\n", (int)(getenv("HOME") != NULL));
    while (read(0, &c, 1) == 1) {
        uint32_t info[12] = {0};
        switch (c) {
        case 'i':
            ask(6, 0, info, sizeof info);
            printf("info %u %u %u %u\r\n", info[0], info[1], info[5], info[11] >> 24);
            break;
        case 'r': printf("bye"); ask(13, 0, NULL, 0); break;
        case 'p': ask(13, 1, NULL, 0); break;
        case 'w': ask(13, 2, NULL, 0); break;
        case 'x': return 3;
        case 'A': fputs(ASAN, stderr); return 1;
        case 'T': fputs(TSAN, stderr); ask(13, 0, NULL, 0); break;
        case 'a': fprintf(stderr, "to stderr\n"); abort();
        case 's': { volatile int *null = NULL; *null = 1; break; }
        case 'n': memset(info, 0xff, sizeof info); if (write(chip, info, 16)) {} pause(); break;
        case 'c': close(chip); pause(); break;
        default: printf("<%c>", c);
        }
    }
    return 0;
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("program")
    (folder / "app.c").write_text(SOURCE)
    assert COMPILER is not None
    subprocess.run([COMPILER, "-o", folder / "app", folder / "app.c"], check=True, timeout=300)
    return folder / "app"


@pytest.fixture(scope="module")
def deaf_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that notices neither a closed input nor a closed socket."""
    folder = tmp_path_factory.mktemp("deaf")
    (folder / "app.c").write_text("#include <unistd.h>\nint main(void) { for (;;) pause(); }\n")
    assert COMPILER is not None
    subprocess.run([COMPILER, "-o", folder / "app", folder / "app.c"], check=True, timeout=300)
    return folder / "app"


def import_program(board: Board, content: bytes) -> Path:
    import hashlib

    path = board.store / hashlib.sha256(content).hexdigest()
    path.write_bytes(content)
    path.chmod(0o700)
    return path


class RunningApp:
    """An app booted on an encrypted board, its host running in a thread."""

    def __init__(self, board: Board, content: bytes | None = None, *, reason: int = 0xC) -> None:
        self.board = board
        if content is not None:
            board.provision(versions={})
            board.put(OTA_0, app_image(board.chip, "1.0.0", program=content))
        loaded = board.boot(reason)
        assert isinstance(loaded, LoadedApp)
        board.printed.clear()
        self.host = AppHost(board.context, loaded)
        self.result: object = "still running"
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        self.result = self.host.run()

    def wait_for(self, text: bytes) -> None:
        deadline = time.monotonic() + 60
        while text not in self.board.printed:
            assert time.monotonic() < deadline, bytes(self.board.printed)
            time.sleep(0.005)

    def ended(self) -> object:
        self.thread.join(60)
        assert not self.thread.is_alive()
        return self.result


@pytest.fixture(params=boot_board.KINDS)
def app(request: pytest.FixtureRequest, tmp_path: Path, program: Path) -> Iterator[RunningApp]:
    board = Board.named(str(request.param), tmp_path, encrypted=True)
    import_program(board, program.read_bytes())
    running = RunningApp(board, program.read_bytes())
    running.wait_for(b"up 0\r\n")
    yield running
    board.context.stop.set()
    running.ended()


@needs_compiler
def test_the_uart_is_its_standard_input_and_output_byte_for_byte(app: RunningApp) -> None:
    app.board.uart.feed(b"\x00\xffz")
    app.wait_for(b"<\x00><\xff><z>")
    app.board.uart.feed(b"i")
    app.wait_for(f"info 1 {app.board.chip.chip_id} 12 0\r\n".encode())


@needs_compiler
@pytest.mark.parametrize(("command", "hint"), [(b"r", 0), (b"p", 1), (b"w", 2), (b"x", 1)])
def test_the_next_app_learns_why_the_last_one_restarted(command: bytes, hint: int, app: RunningApp) -> None:
    app.board.uart.feed(command)
    reason = app.ended()
    assert isinstance(reason, int)
    again = RunningApp(app.board, reason=reason)
    app.board.uart.feed(b"i")
    again.wait_for(f" 12 {hint}\r\n".encode())
    app.board.context.stop.set()
    again.ended()
    app.board.context.stop.clear()
    third = RunningApp(app.board, reason=1)
    app.board.uart.feed(b"i")
    third.wait_for(b" 1 0\r\n")
    app.board.context.stop.set()
    third.ended()


@needs_compiler
@pytest.mark.parametrize("command", [b"r", b"p", b"w"])
def test_each_kind_of_restart_is_a_software_reset_of_the_cpu(command: bytes, app: RunningApp) -> None:
    pid = app.host.pid
    assert pid is not None
    app.board.uart.feed(command)
    assert app.ended() == 0xC
    assert app.host.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert app.board.printed.endswith(b"bye" if command == b"r" else b"up 0\r\n")


@needs_compiler
def test_what_was_printed_before_a_restart_comes_out_first(app: RunningApp) -> None:
    app.board.uart.feed(b"z" * 5000 + b"r")
    assert app.ended() == 0xC
    assert app.board.printed.count(b"<z>") == 5000


@needs_compiler
@pytest.mark.parametrize(
    ("command", "xtensa_word", "riscv_word", "how"),
    [
        (b"x", "(Unknown)", "(Unknown)", "ended with status 3"),
        (b"s", "(LoadProhibited)", "(Load access fault)", "was ended by SIGSEGV"),
        (b"a", "abort() was called", "abort() was called", "was ended by SIGABRT"),
        (b"n", "(Unknown)", "(Unknown)", "broke off its connection to the chip"),
        (b"c", "(Unknown)", "(Unknown)", "broke off its connection to the chip"),
    ],
)
def test_a_program_that_just_ends_is_a_panic(
    command: bytes, xtensa_word: str, riscv_word: str, how: str, app: RunningApp
) -> None:
    app.board.uart.feed(command)
    assert app.ended() == 0xC
    text = app.board.printed.decode()
    assert (xtensa_word if app.board.chip.xtensa else riscv_word) in text
    assert f"twin: the native program {how}\r\n" in text
    assert text.endswith("Rebooting...\r\n")


@needs_compiler
def test_a_reset_kills_it_at_once(app: RunningApp) -> None:
    app.board.context.stop.set()
    assert app.ended() is None
    assert app.host.pid is None


@needs_compiler
@pytest.mark.skipif(not _dies_with_parent(), reason="no setpriv with --pdeathsig on this host")
def test_even_a_deaf_program_dies_with_a_killed_twin(tmp_path: Path, deaf_program: Path) -> None:
    """A second process plays the twin and is killed the hard way."""
    program = deaf_program
    board = Board.named("esp32c3", tmp_path)
    import_program(board, program.read_bytes())
    board.provision(versions={})
    board.put(OTA_0, app_image(board.chip, "1.0.0", program=program.read_bytes()))
    parent = subprocess.Popen(
        [sys.executable, "-c", _TWIN_SCRIPT, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
        parent.kill()
        parent.wait(60)
    deadline = time.monotonic() + 60
    while _lives(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


_TWIN_SCRIPT = """
import sys, threading, time
from pathlib import Path
from harness.chips import ESP32C3
from harness.twin import rom_boot
from harness.twin.app_host import AppHost
from harness.twin.boot_context import BootContext
from harness.twin.cipher import FlashCipher
from harness.twin.efuses import Efuses
from harness.twin.flash import Flash
from harness.twin.uart import Uart
folder = Path(sys.argv[1])
flash, efuses = Flash(folder / "flash.bin"), Efuses(ESP32C3, folder / "efuse.bin")
cipher = FlashCipher(ESP32C3, flash, efuses)
stop, builds = threading.Event(), folder / "builds"
ctx = BootContext(ESP32C3, flash, efuses, cipher, Uart(), stop, folder, builds, lambda: 0.0)
host = AppHost(ctx, rom_boot.boot(ctx, 1))
threading.Thread(target=host.run, daemon=True).start()
while host.pid is None:
    time.sleep(0.01)
print(host.pid, flush=True)
time.sleep(600)
"""


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        # Where nobody reaps orphans, a dead one stays as a zombie.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True


@needs_compiler
def test_its_stderr_is_kept_in_the_state_folder(app: RunningApp) -> None:
    app.board.uart.feed(b"a")
    app.ended()
    assert (app.board.folder / "app-stderr.log").read_text() == "to stderr\n"
    assert b"to stderr" not in app.board.printed


@needs_compiler
@pytest.mark.parametrize(
    ("command", "told"),
    [
        (
            b"A",
            b"==7==ERROR: AddressSanitizer: heap-buffer-overflow on address 1\r\ntwin: sanitizer: #0 0x1 in f",
        ),
        (b"T", b"WARNING: ThreadSanitizer: data race (pid=7)"),
    ],
    ids=["that ended it", "that it went on after, to a reset"],
)
def test_a_sanitizer_s_report_is_told_on_the_uart_and_kept_over_the_next_start(
    command: bytes, told: bytes, app: RunningApp
) -> None:
    app.board.uart.feed(command)
    assert app.ended() == 0xC
    assert (
        b"\r\ntwin: sanitizer report, whole in app-sanitizer-1.log:\r\ntwin: sanitizer: " + told
        in app.board.printed
    )
    again = RunningApp(app.board, reason=0xC)
    again.wait_for(b"up 0\r\n")
    again.board.uart.feed(command)
    again.ended()
    for number in (1, 2):
        assert b"Sanitizer: " in (app.board.folder / f"app-sanitizer-{number}.log").read_bytes()


# What is not started


def not_started(board: Board, image: bytes) -> str:
    board.provision(versions={})
    board.put(OTA_0, image)
    loaded = board.boot()
    assert isinstance(loaded, LoadedApp)
    board.context.stop.set()
    assert AppHost(board.context, loaded).run() is None
    return board.lines[-1]


def test_target_code_is_loaded_and_then_not_run(tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path, encrypted=True)
    segment = Segment(board.chip.drom_base + 0x20, boot_board.description("1.0.0").to_bytes())
    image = build_app_image(board.chip, [segment], entry_point=0)
    assert not_started(board, image) == "twin: this image holds target code, which does not run on the twin"


def test_a_program_that_was_not_built_here_is_not_run(tmp_path: Path) -> None:
    board = Board.named("esp32", tmp_path)
    line = not_started(board, app_image(board.chip, "1.0.0", program=b"#!/bin/sh\ntouch /tmp/planted\n"))
    assert line.startswith("twin: native program ")
    assert "is not in this user's build store" in line


def test_a_payload_that_is_not_what_its_mark_says_is_not_run(tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path)
    segment = boot_board.native_segment(board.chip, boot_board.description("1.0.0"), b"program")
    changed = Segment(segment.load_address, segment.data[:-7] + b"another")
    line = not_started(board, build_app_image(board.chip, [changed], entry_point=0))
    assert line.endswith("does not have the SHA-256 that its mark gives")


def test_the_build_store_must_be_private_and_true(tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path)
    content = b"program"
    path = import_program(board, content)
    digest = bytes.fromhex(path.name)
    assert find_program(board.store, digest) == path

    path.chmod(0o722)
    found = find_program(board.store, digest)
    assert isinstance(found, NotStartable)
    assert "can be changed by other users" in found.why

    path.chmod(0o700)
    path.write_bytes(b"another")
    found = find_program(board.store, digest)
    assert isinstance(found, NotStartable)
    assert "another SHA-256" in found.why

    path.rename(board.store / "elsewhere")
    path.symlink_to(board.store / "elsewhere")
    assert isinstance(find_program(board.store, digest), NotStartable)

    path.unlink()
    import_program(board, content)
    board.store.chmod(0o777)
    found = find_program(board.store, digest)
    assert isinstance(found, NotStartable)
    assert "build store can be changed" in found.why


def test_a_file_that_is_no_program_leaves_one_line(tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path)
    import_program(board, b"no program at all")
    image = app_image(board.chip, "1.0.0", program=b"no program at all")
    board.provision(versions={})
    board.put(OTA_0, image)
    running = RunningApp(board)
    running.wait_for(b"twin: the native program")
    board.context.stop.set()
    running.ended()
