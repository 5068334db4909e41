"""`harness explore`: the power is cut at every operation of flash and eFuses, and what is left is looked at."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from harness.cli.options import (
    boards_option,
    burn_option,
    chip_option,
    consent_of,
    demand_of,
    firmware_options,
    json_option,
    open_lab,
    out_option,
    secret_options,
)
from harness.cuts.cut import CutResult
from harness.errors import UsageError
from harness.explore.board_walk import DEFAULT_COUNT, passed, walk_on, write_walk
from harness.explore.explorer import Depth, Target, applies, cores, explore_all, replay
from harness.explore.live_cut import LiveCut
from harness.explore.report import Report, write_report
from harness.explore.sequences import SEQUENCES, sequences_named
from harness.provision.profile import Lock, Profile
from harness.say import Say


@click.command(
    "explore",
    epilog="""\b
Examples:
  harness explore                                            all sequences, ESP32-C3, release mode
  harness explore --sequence update --chip esp32 --chains 2:1000
  harness explore --sequence update --cut 17:inside:2048     one cut again, with the whole log
  harness explore --board desk-c3 --sample 30                a board: weaker cuts, by what its bench has
""",
)
@click.option(
    "--board",
    metavar="NAME",
    help="Board of boards.yaml: a sample of cuts of the kinds that its bench can make. Default: a throwaway twin.",
)
@chip_option
@click.option(
    "--profile",
    type=click.Choice([profile.value for profile in Profile]),
    help="Security profile (default: release; development for the sequences that are about it).",
)
@click.option(
    "--lock", type=click.Choice([lock.value for lock in Lock]), help="What is left of UART download."
)
@click.option(
    "--sequence",
    "names",
    multiple=True,
    metavar="NAME",
    help="Only this one; may be given again. See --list.",
)
@click.option("--list", "only_list", is_flag=True, help="Name the sequences and stop.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of mixtures, sampled bytes and chains.")
@click.option(
    "--every-byte", is_flag=True, help="Cut large writes at every byte, not only at pages and samples."
)
@click.option(
    "--sample", type=click.IntRange(min=1), help="At most so many cuts of a sequence (default: all)."
)
@click.option(
    "--max-violations",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Of one sequence and process; then the rest of it is not tried.",
)
@click.option(
    "--chains",
    multiple=True,
    metavar="SIZE:COUNT",
    help="How many chains of SIZE cuts (default: 2:200 and 3:100; 2:0 3:0 for none).",
)
@click.option(
    "--no-sharing",
    is_flag=True,
    help="Run every recovery, also where the stored state agrees in all that it depends on.",
)
@click.option("--jobs", type=click.IntRange(min=1), help="Processes at once (default: one for each core).")
@click.option(
    "--cut", metavar="CUT", help="Run one cut of one sequence on the board itself, as a report names it."
)
@click.option("--chain", metavar="SIZE:NUMBER", help="Run one chain of one sequence, as a report names it.")
@firmware_options
@burn_option
@boards_option
@secret_options
@out_option
@json_option
def explore(
    board: str | None,
    chip: str,
    profile: str | None,
    lock: str | None,
    names: tuple[str, ...],
    only_list: bool,
    seed: int,
    every_byte: bool,
    sample: int | None,
    max_violations: int,
    chains: tuple[str, ...],
    no_sharing: bool,
    jobs: int | None,
    cut: str | None,
    chain: str | None,
    apps: tuple[Path, ...],
    idf: Path | None,
    write: tuple[str, ...],
    erase: tuple[str, ...],
    burn: tuple[str, ...],
    unknown_burns: tuple[str, ...],
    boards_file: Path | None,
    vault_key_file: str | None,
    vault_passphrase_fd: int | None,
    out: Path | None,
    as_json: bool,
) -> int:
    """Cut the power before, inside and after every operation of flash and eFuses, on a twin.

    After each cut the board is switched on: it must boot an image that was valid before or is valid now, otadata must
    name a slot that boots, no half image may pass for one, and the next good update must succeed. Then chains of cuts
    in the recovery from the one before. Exit code 1: something does not hold, with the command that repeats it.

    A board of boards.yaml cannot be cut like that: it gets a sample of the kinds of cut that its bench can make, and the
    report says which.
    """
    if only_list:
        for sequence in SEQUENCES:
            profiles = (sequence.profile, *sequence.also) if sequence.profile else ()
            where = f" [{', '.join(profile.value for profile in profiles)}]" if profiles else ""
            click.echo(f"{sequence.name:<18} {sequence.about}{where}")
        return 0
    _require_sense(board, cut, chain, chains, names, every_byte=every_byte, only_for_boards=locals())
    say = Say(quiet=as_json)
    depth = Depth(
        seed=seed,
        every_byte=every_byte,
        sample=sample,
        stop_after=max_violations,
        share=not no_sharing,
        jobs=jobs or cores(),
    )
    if chains:
        depth = depth.with_chains(_pairs(chains, "--chains"))
    target = Target(chip, Profile(profile) if profile else None, Lock(lock) if lock else None)
    sequences = sequences_named(names)
    with open_lab(
        boards_file=boards_file,
        out=out,
        say=say,
        purpose="harness explore",
        vault_key_file=vault_key_file,
        vault_passphrase_fd=vault_passphrase_fd,
    ) as lab:
        if board is not None:
            word = profile or Profile.RELEASE.value
            demand = demand_of(lab.inventory, word, lock, apps=apps, idf=idf, write=write, erase=erase)
            consent = consent_of(lab.inventory, lab.inventory.named(board), burn, unknown_burns)
            opened = lab.open(board)
            count = sample or DEFAULT_COUNT
            results = walk_on(opened, demand, consent, lab.home, count=count, seed=seed, say=say)
            return _tell_walk(results, opened.folder, as_json=as_json)
        if cut is not None or chain is not None:
            only = {"cut": cut} if cut is not None else {"chain": _pairs((chain or "",), "--chain")}
            return _tell_replay(replay(lab, target, sequences[0], depth, **only), as_json=as_json)
        chosen = [sequence for sequence in sequences if names or applies(target, sequence)]
        report = Report(target.chip, explore_all(lab, target, chosen, depth, say=say), depth)
        folder = lab.out
        write_report(report, folder)
    if as_json:
        click.echo(json.dumps(report.to_json() | {"artefacts": str(folder)}, indent=1))
    else:
        for line in report.lines():
            click.echo(line)
        click.echo(f"Artefacts: {folder}")
    return 0 if report.ok else 1


_BOARD_OPTIONS = {
    "apps": "--app",
    "idf": "--idf",
    "write": "--write",
    "erase": "--erase",
    "burn": "--burn",
    "unknown_burns": "--accept-unknown-burns",
}
"""What speaks of a board of boards.yaml, and of no throwaway twin."""

MOST_CUTS_IN_A_CHAIN = 10


def _require_sense(
    board: str | None,
    cut: str | None,
    chain: str | None,
    chains: tuple[str, ...],
    names: tuple[str, ...],
    *,
    every_byte: bool,
    only_for_boards: Mapping[str, Any],
) -> None:
    """Refuses what contradicts itself before anything is opened.

    Raises:
        UsageError: which options, and what to do.
    """
    if board is not None and (names or cut or chain or every_byte or chains):
        raise UsageError(
            "sequences, single cuts and chains are for throwaway twins, not for a board of boards.yaml",
            todo="leave --board out, or give only --sample and --seed with it",
        )
    for name, option in _BOARD_OPTIONS.items():
        if board is None and only_for_boards[name]:
            raise UsageError(
                f"{option} is for a board of boards.yaml, and none is named",
                todo="name it with --board; throwaway twins run the companion firmware, or the one in HARNESS_FIRMWARE",
            )
    if cut is not None and chain is not None:
        raise UsageError("--cut and --chain together", todo="give one of them")
    if cut is not None:
        LiveCut.parse(cut)
    if (cut is not None or chain is not None) and len(names) != 1:
        raise UsageError("one cut belongs to one sequence", todo="name it with --sequence")
    for size in (*_pairs(chains, "--chains"), *_pairs((chain,) if chain else (), "--chain")):
        if size > MOST_CUTS_IN_A_CHAIN:
            raise UsageError(f"a chain of {size} cuts", todo=f"{MOST_CUTS_IN_A_CHAIN} are the most")


def _tell_walk(results: list[CutResult], folder: Path, *, as_json: bool) -> int:
    summary = write_walk(results, folder)
    if as_json:
        click.echo((folder / "explore.json").read_text(encoding="utf-8"), nl=False)
    else:
        click.echo(f"{'PASSED' if passed(results) else 'FAILED'}: {summary}")
        click.echo(f"Artefacts: {folder}")
    return 0 if passed(results) else 1


def _pairs(values: tuple[str, ...], option: str) -> dict[int, int]:
    pairs = {}
    for value in values:
        size, _, count = value.partition(":")
        if not size.isdecimal() or not count.isdecimal() or int(size) < 2:
            raise UsageError(f"{option} takes SIZE:NUMBER with a size from 2, not '{value}'")
        pairs[int(size)] = int(count)
    return pairs


def _tell_replay(answer: dict[str, Any], *, as_json: bool) -> int:
    """Everything about one cut."""
    if as_json:
        click.echo(json.dumps(answer, indent=1))
    elif answer["ev"] == "clean-run-failed":
        click.echo("\n".join([f"without any cut: {answer['problem']}", *answer["lines"]]))
    else:
        click.echo("\n".join(_replay_lines(answer)))
    if answer["ev"] == "clean-run-failed":
        return 1
    return 1 if answer["problems"] and answer["window"] is None else 0


def _replay_lines(answer: dict[str, Any]) -> list[str]:
    lines = [
        *answer["until"],
        "",
        f"cut {answer['cut']}: operation {answer['n']} of {answer['of']}, in '{answer['step']}': {answer['kind']} of "
        f"{answer['length']} bytes at {answer['place']} by {answer['who']} ({answer['layer']})",
    ]
    if "as_computed" in answer:
        said = (
            "as computed"
            if answer["as_computed"]
            else "NOT as computed: a fault of the explorer, please report it"
        )
        lines.append(f"the stored state is {said}")
    if "legend" in answer:
        lines += [f"otadata: {answer['otadata']}", "flash before:", *(f"  {row}" for row in answer["before"])]
        lines += ["flash after:", *(f"  {row}" for row in answer["after"]), f"  {answer['legend']}"]
    lines += ["", *answer["recovery"], "", f"then runs: {answer['booted'] or 'nothing'}"]
    if answer["window"] is not None:
        lines.append(f"this is the window '{answer['window']}', which the sequence declares:")
    return lines + ([f"✗ {problem}" for problem in answer["problems"]] or ["✓ everything holds"])
