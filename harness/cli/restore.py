"""`harness restore`: the flash of a board as it was before the harness first overwrote it."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import click

from harness.board import Board
from harness.cli.options import boards_option, json_option, open_lab, out_option
from harness.errors import LabError, RefusedError, UsageError
from harness.home import Home
from harness.inventory.entry import AnyEntry, PhysicalEntry
from harness.inventory.inventory import read_inventory
from harness.links.link import BootMode
from harness.provision.saved_flash import FOLDER, SavedFlash, SavedFlashes, put_back
from harness.say import Say


@click.command(
    epilog="""\b
Examples:
  harness restore desk-c3 --list  what was saved of it
  harness restore desk-c3         the newest of it
""",
)
@click.argument("board")
@click.option("--list", "only_list", is_flag=True, help="Only list what was saved of it. Opens no port.")
@click.option("--number", type=int, metavar="N", help="Which one of the list (default: the newest).")
@boards_option
@out_option
@json_option
def restore(
    board: str,
    only_list: bool,
    number: int | None,
    boards_file: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Put the flash of BOARD back as it was before the harness first overwrote it.

    The chip's MAC must be that of the content. Refused where the content would not boot: flash encryption or secure
    boot burned since, UART download locked. eFuses cannot be put back.
    """
    say = Say(quiet=as_json)
    saved = SavedFlashes(Home.of_user().root / FOLDER)
    if only_list:
        _list(board, read_inventory(boards_file).named(board), saved, as_json=as_json)
        return
    with open_lab(boards_file=boards_file, out=out, say=say, purpose="harness restore") as lab:
        entry = lab.inventory.named(board)
        # A board that is named by its MAC needs no reset to be told that nothing was saved.
        if entry.mac is not None:
            _chosen(board, entry.mac, saved, number, physical=isinstance(entry, PhysicalEntry))
        opened = lab.open(board)
        try:
            done, written = _restored(opened, entry, saved, number, say)
        finally:
            # The port may be the very thing that failed, which is what is told then.
            with suppress(LabError):
                opened.reset(BootMode.RUN)
    if as_json:
        click.echo(json.dumps({"board": board, "written_bytes": written} | done.to_fields(), indent=1))
    else:
        click.echo(f"{board}: put back {done.text()}; {written >> 10} KiB differed, all of it verified")


def _restored(
    opened: Board, entry: AnyEntry, saved: SavedFlashes, number: int | None, say: Say
) -> tuple[SavedFlash, int]:
    say.step(f"{opened.name}: asking the ROM who it is")
    state = opened.read_state()
    if state.mac is None:
        raise RefusedError(
            "the ROM does not tell this board's MAC any more (Secure Download Mode): nothing was written",
            board=opened.name,
            todo="a locked board takes updates only; its old flash would not boot",
        )
    if entry.mac is not None and state.mac != entry.mac:
        raise RefusedError(
            f"boards.yaml says {entry.mac}, the chip says {state.mac}: nothing was written",
            board=opened.name,
            todo="connect the right board, or correct its entry",
        )
    chosen = _chosen(opened.name, state.mac, saved, number, physical=isinstance(entry, PhysicalEntry))
    say.step(f"putting back {chosen.text()}")
    opened.run_note.doing("while it put back what was saved of its flash")
    content = saved.content(chosen)
    last = -1

    def progress(done: int, total: int) -> None:
        nonlocal last
        percent = 100 * done // total
        if percent // 10 != last:
            last = percent // 10
            say.detail(f"{percent:3d} %")

    with opened.rom() as session:
        written = put_back(session, chosen, content, progress)
    return saved.note_restored(chosen), written


def _chosen(board: str, mac: str, saved: SavedFlashes, number: int | None, *, physical: bool) -> SavedFlash:
    there = saved.of(mac)
    if not there and not physical:
        raise UsageError(
            f"nothing was saved of {mac}: a virtual board's flash is a file, of which the harness keeps no copy",
            board=board,
            todo="copy its state folder before the run; for a new chip delete it",
        )
    if not there:
        raise UsageError(
            f"nothing was saved of {mac}: the harness has not overwritten a flash of it that could be read",
            board=board,
        )
    if number is None:
        return there[-1]
    found = next((each for each in there if each.number == number), None)
    if found is None:
        numbers = ", ".join(str(each.number) for each in there)
        raise UsageError(f"there is no number {number} of {mac}; there is {numbers}", board=board)
    return found


def _list(board: str, entry: AnyEntry, saved: SavedFlashes, *, as_json: bool) -> None:
    if entry.mac is None:
        raise UsageError(
            "its entry has no 'mac:', and nothing is asked of the board to list what was saved",
            board=board,
            todo="write 'mac:' into its entry; `harness doctor --probe` tells it",
        )
    there = saved.of(entry.mac)
    if as_json:
        click.echo(json.dumps({"format": 1, "saved": [each.to_fields() for each in there]}, indent=1))
        return
    if not there:
        click.echo(f"{board}: nothing was saved")
    for each in there:
        click.echo(f"{board}: {each.text()}\n  {saved.content_file(each)}")
