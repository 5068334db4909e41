"""Where labgrid is installed: always in a Python environment of its own.

It brings `pyserial-labgrid`, whose files overwrite those of pyserial, and a pytest plugin that loads itself into every
pytest of its environment. So it is never imported here; `harness.labgrid_agent` runs in its environment.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from harness.errors import LabError

VARIABLE = "HARNESS_LABGRID"
"""Names labgrid's environment, or its program ``labgrid-client``."""

PROGRAM = "labgrid-client"

INSTALL = (
    "install it into an environment of its own: python3 -m venv ~/.labgrid && "
    f"~/.labgrid/bin/pip install 'labgrid>=26,<27', and name that: {VARIABLE}=~/.labgrid, or 'client' in the entry"
)


def labgrid_python(
    named: str | None = None, *, board: str | None = None, environment: Mapping[str, str] = os.environ
) -> Path:
    """The Python that can import labgrid: of the entry, of HARNESS_LABGRID, or of ``labgrid-client`` on PATH.

    Args:
        named: by the board's entry: the folder of an environment, or the program ``labgrid-client``.

    Raises:
        LabError: there is none; says how it is installed.
    """
    wish = named or environment.get(VARIABLE)
    if wish:
        place = Path(wish).expanduser()
        program = place / "bin" / PROGRAM if place.is_dir() else place
    else:
        found = shutil.which(PROGRAM, path=environment.get("PATH"))
        if found is None:
            raise LabError("labgrid is not installed", board=board, todo=INSTALL)
        program = Path(found)
    if not program.is_file():
        raise LabError(f"there is no labgrid at {wish}: {program} is missing", board=board, todo=INSTALL)
    return _python_of(program) or _complain(program, board)


def _python_of(program: Path) -> Path | None:
    """The interpreter in the first line of `program`, or the one beside it."""
    with program.open("rb") as file:
        first = file.readline(512).decode(errors="replace").strip()
    words = first.removeprefix("#!").split()
    # A first line that is too long for the system goes by way of the shell.
    is_python = first.startswith("#!") and len(words) == 1 and "python" in Path(words[0]).name
    named = Path(words[0]) if is_python else None
    beside = program.resolve().parent / "python3"
    return next((path for path in (named, beside) if path is not None and os.access(path, os.X_OK)), None)


def _complain(program: Path, board: str | None) -> Path:
    raise LabError(f"no Python is found that runs {program}", board=board, todo=INSTALL)
