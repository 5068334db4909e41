"""`harness twin`: a virtual board by hand, for esptool, espefuse, or any program that speaks to a UART."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click

from harness.cli.options import chip_option, json_option
from harness.errors import LabError, UsageError
from harness.home import Home
from harness.inventory.entry import MAC_PATTERN, normalised_mac
from harness.links.twin import twin_environment


def _mac(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    if not MAC_PATTERN.fullmatch(value) or int(value[:2], 16) & 1:
        raise UsageError(
            f"--mac: '{value}' is not the MAC address of a board",
            todo="write six hex bytes, the first one even: 7C:DF:A1:00:00:01",
        )
    return normalised_mac(value)


@click.command(
    epilog="Example: harness twin --chip esp32c3 --state /tmp/board",
)
@chip_option
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    help="Folder of flash.bin and efuse.bin; made if need be.",
)
@click.option(
    "--boot",
    type=click.Choice(["download", "run"]),
    default="download",
    show_default=True,
    help="Start in the ROM's download mode (for esptool and espefuse), or boot what is in flash.",
)
@click.option(
    "--mac", metavar="AA:BB:CC:DD:EE:FF", callback=_mac, help="MAC of a new board (default: generated)."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="TCP port of the UART (default: a free one)."
)
@json_option
def twin(chip: str, state: Path, boot: str, mac: str | None, port: int, as_json: bool) -> None:
    """Start a virtual board and serve its UART until stopped with Ctrl-C.

    The UART is a raw TCP port without reset lines, as an emulator's: tools connect with `--port socket://…
    --before no-reset --after no-reset`. The RFC 2217 port has DTR and RTS, and is slower. The control port takes one
    line of JSON per request: {"op": "reset", "boot": "run"} or {"op": "reset", "boot": "download"}.
    """
    command = [sys.executable, "-m", "harness.twin", "--chip", chip, "--state", str(state)]
    command += [
        "--build-store",
        str(Home.of_user().build_store),
        "--boot",
        boot,
        "--rfc2217",
        "--tie-to-stdin",
    ]
    command += ["--port", str(port)] + (["--mac", mac] if mac else [])
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=twin_environment(), start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdin is not None
    line = process.stdout.readline()
    if not line.strip():
        raise click.exceptions.Exit(process.wait())
    hello = json.loads(line)
    if mac is not None and normalised_mac(hello["mac"]) != mac:
        process.stdin.close()
        process.wait()
        raise UsageError(
            f"the board in {state} has the MAC {hello['mac']}, not {mac}",
            todo="leave --mac out, or use another folder for another board",
        )
    if as_json:
        click.echo(line.decode().rstrip())
    else:
        _explain(hello, boot, state)
    try:
        status = process.wait()
    except KeyboardInterrupt:
        process.stdin.close()
        status = process.wait()
    if status > 0:
        raise LabError(f"the twin ended with status {status}")


def _explain(hello: dict[str, str], boot: str, state: Path) -> None:
    uart, control = hello["uart"], hello["control"]
    click.echo(uart)
    mode = "waits in download mode" if boot == "download" else "boots what is in flash"
    rows = [
        f"{hello['chip']} {hello['mac']}, state in {state}, {mode}. Ctrl-C ends it.",
        f"  esptool:   esptool --port {uart} --before no-reset --after no-reset flash-id",
        f"  espefuse:  espefuse --port {uart} --before no-reset summary",
        f"  with reset lines (slower):  {hello['rfc2217']}",
        f'  reset:     echo \'{{"op":"reset","boot":"run"}}\' | nc {control.replace(":", " ")}',
    ]
    for row in rows:
        click.echo(row, err=True)
    sys.stdout.flush()
