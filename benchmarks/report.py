"""The HTML report: how large it is, how long it takes to be made, and to be opened in headless Chromium.

    .venv/bin/python -m benchmarks.report [--tests 200] [--boards 4] [--lines 0]

Seconds vary with the machine. Opened means: navigation to the load event, and to the first picture.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from harness.console.log_file import stamp
from harness.report.html import write_report
from tests.unit.report.made_run import BEGAN_S, made_run

TIMES = "(() => { const n = performance.getEntriesByType('navigation')[0]; return n.loadEventEnd; })()"
PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"


def opened(path: Path, rounds: int) -> tuple[list[float], list[float]]:
    """Milliseconds to the load event and to the first picture, each in a browser of its own."""
    load, paint = [], []
    with sync_playwright() as play:
        for _ in range(rounds):
            chromium = play.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
            page = chromium.new_page()
            page.goto(path.resolve().as_uri())
            page.wait_for_timeout(300)
            load.append(page.evaluate(TIMES))
            paint.append(page.evaluate(PAINT))
            chromium.close()
    return load, paint


def main() -> None:
    """Prints what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tests", type=int, default=200)
    parser.add_argument("--boards", type=int, default=4)
    parser.add_argument("--lines", type=int, default=0, help="further lines in the first board's log")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = made_run(folder, asked.tests, asked.boards)
        with (folder / str(run.boards[0].log)).open("a", encoding="utf-8") as log:
            for n in range(asked.lines):
                log.write(f"{stamp(BEGAN_S + 900 + n / 1000)} | I ({n}) app: measured {n * 7919 % 10007}\n")
        began = time.perf_counter()
        path = write_report(run, folder)
        made_s = time.perf_counter() - began
        lines = sum(len((folder / str(board.log)).read_text().splitlines()) for board in run.boards)
        print(f"{asked.tests} tests, {asked.boards} boards, {lines} lines of log")
        print(f"made in {made_s:.2f} s, {path.stat().st_size / 1e6:.2f} MB")
        load, paint = opened(path, asked.rounds)
        print(
            f"opened: load event after {statistics.median(load):.0f} ms, first picture {statistics.median(paint):.0f} ms"
        )


if __name__ == "__main__":
    main()
