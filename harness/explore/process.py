"""One explorer's process: started with a job, read by a thread, and gone when it is closed, whatever happened."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from queue import Queue
from typing import Any

from harness.errors import HarnessError, LabError
from harness.links.twin import twin_environment

Rows = Queue[dict[str, Any] | HarnessError | None]
"""What explorers tell; None: one of them has ended in order."""

_END_S = 5.0


class ExplorerProcess:
    """`python -m harness.twin.explorer`, which also ends when its standard input does."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self._job = job
        self._process: subprocess.Popen[bytes] | None = None
        self._threads: list[threading.Thread] = []
        self._said: list[bytes] = []

    def start(self, rows: Rows) -> None:
        """Starts it; what it tells goes to `rows`, then None, or a `LabError` with what went wrong."""
        self._process = process = subprocess.Popen(
            [sys.executable, "-m", "harness.twin.explorer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=twin_environment(),
            # A Ctrl-C at the terminal is for the harness, which then ends it.
            start_new_session=True,
        )
        assert process.stdin is not None
        self._threads = [
            threading.Thread(target=self._read_errors, args=(process,), daemon=True),
            threading.Thread(target=self._read, args=(process, rows), daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        with contextlib.suppress(BrokenPipeError):
            # Whoever does not take its job has ended; the reader says how.
            process.stdin.write(json.dumps(self._job).encode() + b"\n")
            process.stdin.flush()

    def close(self) -> None:
        """Ends it if it lives. May be called twice."""
        process = self._process
        if process is None:
            return
        self._process = None
        if process.poll() is None:
            process.kill()
        process.wait()
        for thread in self._threads:
            thread.join(_END_S)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _read_errors(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        self._said.append(process.stderr.read())

    def _read(self, process: subprocess.Popen[bytes], rows: Rows) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            rows.put(json.loads(line))
        status = process.wait()
        self._threads[0].join(_END_S)
        if status == 0:
            rows.put(None)
            return
        said = b"".join(self._said).decode(errors="replace").strip()
        rows.put(LabError(f"the explorer ended with status {status}: {said or 'it said nothing'}"))
