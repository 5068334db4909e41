"""``python -m harness.twin.explorer``: reads a job (a line of JSON) from standard input, prints one JSON object a line.

It ends when standard input does: whoever asked is gone then.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.twin.explorer.explorer import Explorer
from harness.twin.explorer.job import Job

EXIT_CANNOT_START = 3
EXIT_LEFT_ALONE = 4


def main() -> int:
    """Returns 0 when the job was done, whatever was found; 3 when it could not be begun."""
    job = Job.from_json(json.loads(sys.stdin.buffer.readline()))
    threading.Thread(target=_end_with_stdin, daemon=True).start()

    def emit(row: dict[str, Any]) -> None:
        print(json.dumps(row, separators=(",", ":"), ensure_ascii=False), flush=True)  # noqa: T201

    with tempfile.TemporaryDirectory(prefix="harness-explorer-", dir=job.work) as work:
        try:
            explorer = Explorer(job, Path(work), emit)
        except HarnessError as error:
            print(f"explorer: {error.message}", file=sys.stderr)  # noqa: T201
            return EXIT_CANNOT_START
        try:
            explorer.run()
        finally:
            explorer.close()
    return 0


def _end_with_stdin() -> None:
    # Not through sys.stdin: its lock would be held by this thread at exit.
    while os.read(0, 4096):
        pass
    # The applications of its board die with it, see `harness.twin.app_host`.
    os._exit(EXIT_LEFT_ALONE)


if __name__ == "__main__":
    sys.exit(main())
