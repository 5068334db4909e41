"""`harness`: the group of commands, and the one place where an error becomes a message and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise

import click

import harness
from harness.cli import EXIT_LAB, misfit
from harness.cli.lazy_group import LazyGroup
from harness.errors import HarnessError, UsageError
from harness.interruption import Interrupted, ignore_all
from harness.report.workflow_commands import command

EXIT_INTERRUPTED = 130
EXIT_INTERNAL = 70

EPILOG = """\b
Exit codes: 0 passed · 1 a test failed · 2 wrong usage · 3 the board or the lab failed
            4 refused · 5 not proven

\b
State (vaults, device records, virtual boards) lives under HARNESS_HOME; the vault of
physical boards may be elsewhere: HARNESS_VAULT. HARNESS_DEBUG=1 shows tracebacks.
"""


COMMANDS = {
    "run": ("run:run", "The main job: provision, update there and back, prove it."),
    "qualify": ("qualify:qualify", "Accept or reject a unit with your own app: a report to sign."),
    "explore": (
        "explore:explore",
        "Cut the power at every flash operation of a twin, and look at what is left.",
    ),
    "init": ("init:init", "Write a commented boards.yaml from what is plugged in."),
    "doctor": ("doctor:doctor", "Look at this machine and every board; say what is wrong."),
    "boards": ("boards:boards", "List the boards of boards.yaml; mend broken ones."),
    "plan": ("plan:plan", "Print what would be done to a board; touch nothing."),
    "provision": ("plan:provision", "Bring a board into a profile, or carry out a plan."),
    "build": ("build:build", "Build the companion firmware into a folder for --app."),
    "restore": ("restore:restore", "Put back the flash of a board as it was before the harness."),
    "rescue": ("rescue:rescue", "Bring back a dead board that is locked and cannot say who it is."),
    "retire": ("retire:retire", "Take a board off the bench: what is for good, what runs, where its key is."),
    "twin": ("twin:twin", "Serve a virtual board's UART."),
    "sign": ("sign:sign_image", "Sign an app or bootloader for one board's secure boot."),
    "encrypt": ("encrypt:encrypt", "Encipher an app for one board, for every slot."),
    "log": ("log:log", "Say what a serial log says: boots first."),
    "history": ("history:history", "Pass rates, flaky tests and durations over all runs."),
    "prune": ("prune:prune_command", "Delete old artefacts of runs; never keys, records or states."),
    "serve": ("serve:serve_command", "Show the rack live in a browser, read-only."),
    "report": ("report:report", "Make the HTML report of a run again, from the run's folder."),
    "vault": ("vault:vault", "Look after the vault of flash keys."),
    "keys": ("keys:keys", "Look after flash keys: list, import, export, hand over, forget."),
    "schema": ("schema:schema", "Print the JSON Schema of boards.yaml or qualify.yaml."),
    "completion": ("completion:completion", "Print what makes your shell complete commands and boards."),
}
"""Where each command is, and what `harness --help` says of it."""


@click.group(
    cls=LazyGroup,
    places=COMMANDS,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(harness.__version__, prog_name="harness")
def cli() -> None:
    """Prove that an ESP32 in release-mode flash encryption takes encrypted updates, and survives bad ones.

    Start with `harness run`: the main job on a virtual board, nothing attached.
    """


def _leave(code: int) -> None:
    """Ends with `code` even where nobody takes what is said any more (a full disk): Python would make it 120."""
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    sys.exit(code)


def _tell(text: str) -> None:
    """To standard error; where that takes nothing (a closed terminal, a full disk) the exit status says it alone."""
    with suppress(OSError):
        click.echo(text, err=True)


def _tell_interrupted(error: BaseException) -> None:
    """One sentence that says where it stopped, and the status of the signal."""
    ignore_all()
    signalled: BaseException | None = error
    # click makes an Abort of every KeyboardInterrupt.
    while signalled is not None and not isinstance(signalled, Interrupted):
        signalled = signalled.__cause__
    where = ""
    if signalled is not None:
        where = f" {signalled.where}" if signalled.where else ""
        if isinstance(signalled.failed, HarnessError):
            _tell(f"harness: {signalled.failed}")
    _tell(f"harness: interrupted{where}; the next run goes on from here")
    _leave(signalled.exit_status if signalled is not None else EXIT_INTERRUPTED)


def main() -> None:
    """Runs the command that the arguments name, and exits."""
    try:
        _run()
    except KeyboardInterrupt as error:
        # Boards are closed by now.
        _tell_interrupted(error)
    finally:
        # Only the exit status is left: an impatient second signal must not end in a traceback.
        ignore_all()


def _refuse_empty(words: Sequence[str]) -> None:
    """No name and no path is empty; a shell variable without a value is, and must not mean "the default".

    Raises:
        UsageError: one of the arguments is.
    """
    for before, word in pairwise(("", *words)):
        if word and not (word.startswith("--") and word.find("=") == len(word) - 1):
            continue
        where = (
            f"after {before}" if not word and before else f"for {word[:-1]}" if word else "at the beginning"
        )
        raise UsageError(
            f"there is an empty argument {where}",
            todo="give it a value; a variable of the shell that is not set is empty",
        )


def _run() -> None:
    """The one place where an error becomes a sentence and an exit code."""
    try:
        _refuse_empty(sys.argv[1:])
        code = cli(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as error:
        with suppress(OSError):
            error.show()
        _leave(error.exit_code)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.Abort as error:
        _tell_interrupted(error)
    except HarnessError as error:
        if os.environ.get("HARNESS_DEBUG"):
            raise
        _tell(f"harness: {error}")
        if os.environ.get("GITHUB_ACTIONS") == "true":
            _tell(command("error", str(error), title="harness"))
        _leave(error.exit_code)
    except ImportError as error:
        if os.environ.get("HARNESS_DEBUG"):
            raise
        _tell(misfit(error).rstrip())
        _leave(EXIT_LAB)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        if os.environ.get("HARNESS_DEBUG"):
            raise
        where = f"{error.filename}: " if error.filename else "input or output failed: "
        _tell(
            f"harness: {where}{error.strerror or error}\n"
            "  what to do: check free space and permissions there; the next run goes on from here"
        )
        _leave(HarnessError.exit_code)
    except Exception as error:
        if os.environ.get("HARNESS_DEBUG"):
            raise
        _tell(
            f"harness: internal error, please report it: {type(error).__name__}: {error}\n"
            "  what to do: run again with HARNESS_DEBUG=1 for the traceback"
        )
        _leave(EXIT_INTERNAL)
