"""Where the time goes: blank board to proven switch by phase, bytes on the UART, flashing again, encryption.

    .venv/bin/python benchmarks/run.py [--chip esp32c3] [--rounds 3]

Seconds vary with the machine; the ratios, to a whole write and to espsecure, are measured in the same run, in turns.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import espsecure

from harness.chips import CHIPS, Cipher
from harness.errors import UsageError
from harness.formats.flash_encryption import encrypt
from harness.home import Home
from harness.inventory.entry import TwinEntry
from harness.inventory.inventory import Inventory
from harness.lab import Lab
from harness.main_job import run_main_job
from harness.preparation import Consent, Demand
from harness.provision.profile import Profile
from harness.say import Phase, Say
from harness.vault.secret import Secret

IMAGE_BYTES = 1 << 20
ADDRESS = 0x20000


def no_secret(_place: Path) -> Secret:
    """Virtual boards have vaults of their own."""
    raise UsageError("the benchmark uses virtual boards only")


def main_job(chip: str, home: Home) -> tuple[float, list[Phase]]:
    """Seconds of one main job on a blank twin, and its phases."""
    say = Say(quiet=True)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        with Lab(home, Inventory(None, {}), Path(out), no_secret, say=say) as lab:
            board, demand = lab.throwaway(chip), Demand(Profile.RELEASE)
            verdict = run_main_job(board, demand, Consent(TwinEntry(chip=chip)), home, say=say)
        if verdict.exit_code:
            raise SystemExit("\n".join(verdict.lines()))
    return time.perf_counter() - began, say.phases


def seconds_of(action: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def encryption(cipher: Cipher, rounds: int) -> tuple[float, float]:
    """MiB/s of this project and of espsecure for 1 MiB, medians over `rounds` taken in turns."""
    key = bytes(range(cipher.key_size_bytes))
    image = os.urandom(IMAGE_BYTES)
    xts = cipher is not Cipher.ESP32_AES

    def vendor() -> None:
        espsecure.encrypt_flash_data(io.BytesIO(key), io.BytesIO(), ADDRESS, 0xF, xts, io.BytesIO(image))

    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(seconds_of(lambda: encrypt(cipher, key, ADDRESS, image)))
        theirs.append(seconds_of(vendor))
    return 1 / statistics.median(ours), 1 / statistics.median(theirs)


def flashing(chip: str, home: Home) -> list[tuple[str, float, int]]:
    """What a write of 1 MiB of ciphertext costs by how much of it is in flash already: seconds, UART bytes sent."""
    image = os.urandom(IMAGE_BYTES)
    edited = bytearray(image)
    for sector in (1, 100, 101, 250):
        edited[sector * 4096] ^= 1
    costs = []
    with tempfile.TemporaryDirectory() as out, Lab(home, Inventory(None, {}), Path(out), no_secret) as lab:
        board = lab.throwaway(chip)
        for what, data, compare in (
            ("whole", image, False),
            ("the same again", image, True),
            ("4 sectors differ", bytes(edited), True),
            ("all differ", os.urandom(IMAGE_BYTES), True),
        ):
            with board.rom() as session:
                session.flash_md5(ADDRESS, 4096)
                before = board.link.port.bytes_written
                seconds = seconds_of(
                    lambda s=session, d=data, c=compare: s.write_flash(
                        [(ADDRESS, d)], force=True, skip_identical=c
                    )
                )
                costs.append((what, seconds, board.link.port.bytes_written - before))
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chip", action="append", choices=list(CHIPS), help="default: every chip")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3; medians are printed")
    arguments = parser.parse_args()
    home = Home.of_user()
    for chip in arguments.chip or list(CHIPS):
        runs = [main_job(chip, home) for _ in range(arguments.rounds + 1)][1:]
        print(
            f"\n{chip}: blank board to proven switch and back, profile release, median of {arguments.rounds}"
        )
        print(f"  {'phase':<16}{'seconds':>9}{'UART bytes':>13}")
        for index, phase in enumerate(runs[0][1]):
            seconds = statistics.median(phases[index].seconds for _, phases in runs)
            print(f"  {phase.name:<16}{seconds:>9.2f}{phase.uart_bytes:>13,}")
        total = statistics.median(seconds for seconds, _ in runs)
        print(f"  {'all':<16}{total:>9.2f}{sum(p.uart_bytes for p in runs[0][1]):>13,}")
        print(f"\n{chip}: flashing 1 MiB of ciphertext, beside a whole write")
        costs = flashing(chip, home)
        for what, seconds, count in costs:
            print(
                f"  {what:<16}{seconds:>9.2f}{count:>13,}   "
                f"ratio {seconds / costs[0][1]:.2f} in time, {count / costs[0][2]:.4f} in bytes"
            )
    print(f"\nencryption of 1 MiB, median of {arguments.rounds}, in turns with espsecure")
    for cipher in Cipher:
        ours, theirs = encryption(cipher, arguments.rounds)
        print(
            f"  {cipher.value:<14}{ours:>7.1f} MiB/s   espsecure {theirs:>6.1f} MiB/s   ratio {ours / theirs:.2f}"
        )


if __name__ == "__main__":
    main()
