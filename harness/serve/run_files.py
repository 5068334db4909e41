"""Files that runs left, for a browser: reports, logs, records; read only, and nothing but what lies in a run's folder."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

from aiohttp import web

from harness.errors import HarnessError
from harness.history import History
from harness.history.plain_file import open_plain
from harness.history.queries import folders_of
from harness.history.run_folders import ARTEFACTS, ID_PATTERN, RunFolder, run_folder
from harness.home import Home
from harness.serve.access import FILE_POLICY
from harness.serve.live_runs import inside

REPORT = "report.html"

_PIECE = 256 * 1024
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".json": "application/json; charset=utf-8",
    ".jsonl": "text/plain; charset=utf-8",
    ".log": "text/plain; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".xml": "text/xml; charset=utf-8",
    ".raw": "application/octet-stream",
}
"""By suffix; other files (images, bundles) are not given out."""


def find_run(home: Home, run_id: str) -> RunFolder | None:
    """The folder of a run; None: it is gone, or there never was such a run here."""
    if not ID_PATTERN.fullmatch(run_id):
        return None
    folders = [home.root / ARTEFACTS / run_id]
    try:
        with History.of(home, wait_s=0.5).reading() as database:
            folders += [Path(folder) for folder in folders_of(database, run_id)]
    except HarnessError:
        # Then only the usual place is known.
        pass
    for folder in folders:
        try:
            found = run_folder(folder, run_id)
        except OSError:
            continue
        if found is not None:
            return found
    return None


def listed_files(folder: RunFolder) -> list[tuple[str, int]]:
    """What can be looked at in a run's folder: name and size in bytes, the report first."""
    found = []
    for path in sorted(folder.path.rglob("*")):
        name = path.relative_to(folder.path).as_posix()
        if path.suffix in _TYPES and inside(folder.path, name) is not None:
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                found.append((name, status.st_size))
    return sorted(found, key=lambda each: (each[0] != REPORT, each[0].count("/"), each[0]))


async def give(request: web.Request, folder: RunFolder, name: str) -> web.StreamResponse:
    """The file `name` of the run.

    Raises:
        web.HTTPNotFound: there is none, or it is not for a browser.
    """
    path = inside(folder.path, name)
    kind = _TYPES.get(path.suffix) if path is not None else None
    if path is None or kind is None:
        raise web.HTTPNotFound
    try:
        opened = open_plain(path)
    except OSError:
        raise web.HTTPNotFound from None
    with opened as file:
        status = os.fstat(file.fileno())
        answer = web.StreamResponse(
            headers={
                "Content-Type": kind,
                "Content-Security-Policy": FILE_POLICY,
                "Content-Length": str(status.st_size),
            }
        )
        if kind == "application/octet-stream":
            answer.headers["Content-Disposition"] = "attachment"
        await answer.prepare(request)
        left = status.st_size if request.method == "GET" else 0
        while left > 0:
            # Not a byte more than was promised, though a log may grow meanwhile.
            piece = await asyncio.to_thread(file.read, min(_PIECE, left))
            if not piece:
                break
            await answer.write(piece)
            left -= len(piece)
        await answer.write_eof()
    return answer
