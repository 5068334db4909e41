"""`harness`: the group of commands, and the one place where an error becomes a message and an exit code."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import click

import harness
from harness.cli.boards import boards
from harness.cli.build import build
from harness.cli.completion import completion
from harness.cli.doctor import doctor
from harness.cli.encrypt import encrypt
from harness.cli.explore import explore
from harness.cli.history import history
from harness.cli.init import init
from harness.cli.keys import keys
from harness.cli.log import log
from harness.cli.plan import plan, provision
from harness.cli.prune import prune_command
from harness.cli.qualify import qualify
from harness.cli.report import report
from harness.cli.rescue import rescue
from harness.cli.restore import restore
from harness.cli.retire import retire
from harness.cli.run import run
from harness.cli.schema import schema
from harness.cli.serve import serve_command
from harness.cli.sign import sign_image
from harness.cli.twin import twin
from harness.cli.vault import vault
from harness.errors import HarnessError
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


@click.group(
    epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(harness.__version__, prog_name="harness")
def cli() -> None:
    """Prove that an ESP32 in release-mode flash encryption takes encrypted updates, and survives bad ones.

    Start with `harness run`: the main job on a virtual board, nothing attached.
    """


for each in (
    run,
    qualify,
    explore,
    init,
    doctor,
    boards,
    plan,
    provision,
    build,
    restore,
    rescue,
    retire,
    twin,
    sign_image,
    encrypt,
    log,
    history,
    prune_command,
    serve_command,
    report,
    vault,
    keys,
    schema,
    completion,
):
    cli.add_command(each)


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


def _run() -> None:
    """The one place where an error becomes a sentence and an exit code."""
    try:
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
