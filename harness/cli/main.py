"""`harness`: the group of commands, and the one place where an error becomes a message and an exit code."""

from __future__ import annotations

import os
import signal
import sys

import click

import harness
from harness.cli.boards import boards
from harness.cli.build import build
from harness.cli.doctor import doctor
from harness.cli.encrypt import encrypt
from harness.cli.explore import explore
from harness.cli.init import init
from harness.cli.keys import keys
from harness.cli.log import log
from harness.cli.plan import plan, provision
from harness.cli.rescue import rescue
from harness.cli.restore import restore
from harness.cli.run import run
from harness.cli.sign import sign_image
from harness.cli.twin import twin
from harness.cli.vault import vault
from harness.errors import HarnessError

EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143
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


for command in (
    run,
    explore,
    init,
    doctor,
    boards,
    plan,
    provision,
    build,
    restore,
    rescue,
    twin,
    sign_image,
    encrypt,
    log,
    vault,
    keys,
):
    cli.add_command(command)


class _Terminated(KeyboardInterrupt):
    """SIGTERM: work ends as at Ctrl-C, with every board closed in order."""


def _terminate(*_: object) -> None:
    raise _Terminated


def _leave(code: int) -> None:
    """Ends with `code` even where standard output takes nothing any more (a full disk): Python would make it 120."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(code)


def main() -> None:
    """Entry point of the `harness` command."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = cli(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt) as error:
        # Boards are closed by now; an impatient second signal must not end in a traceback.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        click.echo("harness: interrupted; the next run goes on from here", err=True)
        terminated = isinstance(error, _Terminated) or isinstance(error.__cause__, _Terminated)
        sys.exit(EXIT_TERMINATED if terminated else EXIT_INTERRUPTED)
    except HarnessError as error:
        if os.environ.get("HARNESS_DEBUG"):
            raise
        click.echo(f"harness: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        if os.environ.get("HARNESS_DEBUG"):
            raise
        where = f"{error.filename}: " if error.filename else "input or output failed: "
        click.echo(
            f"harness: {where}{error.strerror or error}\n"
            "  what to do: check free space and permissions there; the next run goes on from here",
            err=True,
        )
        _leave(HarnessError.exit_code)
    except Exception as error:
        if os.environ.get("HARNESS_DEBUG"):
            raise
        click.echo(
            f"harness: internal error, please report it: {type(error).__name__}: {error}\n"
            "  what to do: run again with HARNESS_DEBUG=1 for the traceback",
            err=True,
        )
        sys.exit(EXIT_INTERNAL)
