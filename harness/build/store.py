"""The build store: native programs by SHA-256. A twin executes nothing else."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from harness.errors import LabError

PROGRAM_MODE = 0o700


def install_program(program: bytes, store: Path) -> Path:
    """Puts `program` into `store` under its SHA-256, for its owner only; atomic, and idempotent.

    Raises:
        LabError: the store cannot be written.
    """
    path = store / hashlib.sha256(program).hexdigest()
    try:
        store.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Others must not be able to change what is run here.
        store.chmod(0o700)
        if path.is_file() and path.read_bytes() == program and path.stat().st_mode & 0o777 == PROGRAM_MODE:
            return path
        descriptor, name = tempfile.mkstemp(dir=store, prefix=".installing-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(program)
                file.flush()
                os.fchmod(file.fileno(), PROGRAM_MODE)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise LabError(
            f"the build store {store} cannot be written: {error.strerror}",
            todo="set HARNESS_HOME to a folder that you may write to",
        ) from error
    return path
