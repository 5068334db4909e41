"""The command line: one file per command, all errors in one sentence, exit codes that tell what failed."""

from __future__ import annotations

import sys

from harness.interruption import Interrupted, ignore_all, listen


def main() -> None:
    """Entry point of the `harness` command: listens for signals first, since its imports take half a second."""
    listen()
    try:
        from harness.cli.main import main as carry_on
    except Interrupted as interrupted:
        ignore_all()
        sys.stderr.write("\nharness: interrupted before anything began\n")
        raise SystemExit(interrupted.exit_status) from None
    carry_on()


__all__ = ["main"]
