"""The command line: one file per command, all errors in one sentence, exit codes that tell what failed."""

from __future__ import annotations

import os
import sys

from harness.interruption import Interrupted, ignore_all, listen

EXIT_LAB = 3
REPAIR = (
    "install it into an environment of its own: python -m pip install --upgrade esp32-secure-ota-harness "
    "'esptool>=5.6,<6' (espefuses before 5.4 need bitstring<5, too)"
)


def misfit(error: ImportError) -> str:
    """What a person reads who has no doctor yet: that needs the same packages."""
    return f"harness: the packages of this environment do not fit together: {error}\n  what to do: {REPAIR}\n"


def main() -> None:
    """Entry point of the `harness` command: listens for signals first, since its imports take a while."""
    asked = os.environ.get("_HARNESS_COMPLETE")
    if asked:
        # Before anything is imported that takes longer than a keystroke.
        from harness.completion.answer import answer

        raise SystemExit(answer(asked))
    if sys.argv[1:2] == ["completion"]:
        # In the start-up file of a shell: nobody waits a second for a prompt.
        from harness.cli.completion import completion

        completion.main(sys.argv[2:], prog_name="harness completion")
    listen()
    try:
        from harness.cli.main import main as carry_on
    except Interrupted as interrupted:
        ignore_all()
        sys.stderr.write("\nharness: interrupted before anything began\n")
        raise SystemExit(interrupted.exit_status) from None
    except ImportError as error:
        if os.environ.get("HARNESS_DEBUG"):
            raise
        sys.stderr.write(misfit(error))
        raise SystemExit(EXIT_LAB) from None
    carry_on()


__all__ = ["main"]
