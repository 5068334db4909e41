"""`harness qualify`: the release-mode acceptance of somebody's own app, handler and unit."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from harness.cli.options import boards_option, json_option, open_lab, out_option, secret_options
from harness.errors import HarnessError, RefusedError, UsageError
from harness.history.keeping import begin_run, keep_run
from harness.qualify.artefacts import load_artefacts
from harness.qualify.example import EXAMPLE
from harness.qualify.file import DEFAULT_FILE, read_qualify_file
from harness.qualify.outcome import unopened_run
from harness.qualify.page import page_lines
from harness.qualify.perform import perform, require_allowed, seal
from harness.qualify.qualification import Qualification
from harness.qualify.signature import PrivateKey, load_signing_key
from harness.qualify.trigger import ask_at_terminal
from harness.qualify.verification import verify_folder
from harness.report.recorder import head_of
from harness.report.run_record import RunRecord
from harness.report.writing import REPORT_FILE, write_run
from harness.say import Say
from harness.vault.secret import Passphrase

KIND = "qualify"
"""Of the run's record."""


@click.command(
    epilog="""\b
Examples:
  harness qualify --init                                  write a commented qualify.yaml
  harness qualify qualify.yaml --board ship-042
  harness qualify qualify.yaml --board ship-042 --observe touch neither eFuses nor flash over the UART
  harness qualify qualify.yaml --board ship-042 --sign qa.pem
  harness qualify --verify harness-out/20260101-120000 --signer qa-public.pem

\b
Exit codes: 0 all claims proven · 1 one failed · 5 one is not proven · 4 refused
""",
)
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--board", metavar="NAME", help="Board of boards.yaml (default: 'board' in the file).")
@click.option(
    "--observe", is_flag=True, help="Ask the ROM nothing and send nothing over the UART: claims by the log."
)
@click.option(
    "--sign",
    "key_file",
    type=click.Path(path_type=Path),
    metavar="KEY.pem",
    help="Sign the evidence with this private key (ECDSA, RSA, Ed25519).",
)
@click.option(
    "--sign-passphrase-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File whose one line is the passphrase of that key.",
)
@click.option(
    "--sign-passphrase-fd",
    type=click.IntRange(min=0),
    metavar="N",
    help="Read the passphrase of that key from this file descriptor.",
)
@click.option("--init", "init", is_flag=True, help=f"Write a commented {DEFAULT_FILE} here (or to FILE).")
@click.option(
    "--verify",
    "verify",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Check the evidence and the signature in FOLDER.",
)
@click.option(
    "--signer",
    type=click.Path(path_type=Path),
    metavar="PUBLIC.pem",
    help="With --verify: the signature must be by this public key (or certificate).",
)
@boards_option
@secret_options
@out_option
@json_option
def qualify(
    file: Path | None,
    board: str | None,
    observe: bool,
    key_file: Path | None,
    sign_passphrase_file: Path | None,
    sign_passphrase_fd: int | None,
    init: bool,
    verify: Path | None,
    signer: Path | None,
    boards_file: Path | None,
    vault_key_file: str | None,
    vault_passphrase_fd: int | None,
    out: Path | None,
    as_json: bool,
) -> int:
    """Qualify a unit as FILE (qualify.yaml) says: update it, watch its log, and say what is proven.

    Nothing is built: the images come by path and SHA-256, and another SHA-256 is refused before anything is touched.
    """
    if init:
        return _write_example(file or Path(DEFAULT_FILE))
    if verify is not None:
        return _verify(verify, signer, as_json=as_json)
    plan = read_qualify_file(file or Path(DEFAULT_FILE))
    name = board or plan.file.board
    if name is None:
        raise UsageError("which board?", todo="give --board NAME, or 'board' in the file")
    _require_empty(out)
    key = _signing_key(key_file, sign_passphrase_file, sign_passphrase_fd)
    artefacts = load_artefacts(plan)
    say = Say(quiet=as_json)
    with open_lab(
        boards_file=boards_file,
        out=out,
        say=say,
        purpose="harness qualify",
        vault_key_file=vault_key_file,
        vault_passphrase_fd=vault_passphrase_fd,
    ) as lab:
        require_allowed(plan, lab.inventory.named(name), name, observe=observe)
        folder = lab.out
        head = head_of(KIND, f"{name}, {plan.file.unit} unit", ["harness", *sys.argv[1:]])
        begin_run(head, folder, tell=say.line)
        try:
            done = perform(lab, name, plan, artefacts, observe=observe, ask=ask_at_terminal(name), head=head)
        except HarnessError as error:
            unopened = unopened_run(head, error)
            write_run(unopened, folder)
            keep_run(unopened, folder, tell=say.line)
            raise
    run = seal(folder, done.run, key)
    keep_run(run, folder, tell=say.line)
    _tell(run, folder, as_json=as_json)
    if done.error is not None:
        raise done.error
    return done.verdict.exit_code


def _write_example(path: Path) -> int:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(EXAMPLE)
    except FileExistsError:
        raise UsageError(f"{path} is there already; it was not touched", todo="name another file") from None
    click.echo(f"Wrote {path}: fill in paths and SHA-256 (sha256sum FILE), then run harness qualify {path}")
    return 0


def _require_empty(out: Path | None) -> None:
    """Evidence of two qualifications in one folder would be sealed as one, and the first verdict be gone.

    Raises:
        RefusedError: there is something in it.
    """
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RefusedError(
            f"{out} is not an empty folder: what is in it would become evidence of this qualification, or be lost",
            todo="give --out a new folder, or leave it out",
        )


def _signing_key(
    path: Path | None, passphrase_file: Path | None, descriptor: int | None
) -> PrivateKey | None:
    """Opened first: a wrong passphrase after an hour of cases helps nobody."""
    if path is None:
        return None
    if passphrase_file is not None and descriptor is not None:
        raise UsageError("the passphrase comes from a file or from a descriptor, not from both")
    words: bytes | None = None
    if descriptor is not None:
        words = Passphrase.from_descriptor(descriptor).words
    elif passphrase_file is not None:
        try:
            words = passphrase_file.read_bytes()[:4096].rstrip(b"\r\n")
        except OSError as error:
            raise UsageError(
                f"the passphrase file {passphrase_file} cannot be read: {error.strerror}"
            ) from None
    return load_signing_key(path, words)


def _verify(folder: Path, signer: Path | None, *, as_json: bool) -> int:
    found = verify_folder(folder, signer)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=1))
    else:
        for line in found.lines():
            click.echo(line)
    return 0 if found.ok else 1


def _tell(run: RunRecord, folder: Path, *, as_json: bool) -> None:
    assert run.qualification is not None
    if as_json:
        click.echo(json.dumps({**run.qualification, "artefacts": str(folder)}, indent=1))
        return
    click.echo()
    for line in page_lines(Qualification.model_validate(run.qualification)):
        click.echo(line)
    click.echo()
    click.secho(
        f"{run.verdict.upper()}: {run.subject}",
        bold=True,
        fg={"passed": "green", "failed": "red"}.get(run.verdict, "yellow"),
    )
    click.echo(f"Artefacts: {folder}")
    click.echo(f"Report:    {folder / REPORT_FILE}")
