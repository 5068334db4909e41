"""Fuzzes the firmware: ``python -m tests.fuzz_c --target handler --seconds 600``.

Builds the target with clang, begins with real packages (`tests.fuzz_c.seeds`) and what is in the corpus, and says at the
end what came of it. With ``--replay FILE`` an input is run once more, by a build of any compiler.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError
from tests.fuzz_c.seeds import SEEDS
from tests.fuzz_c.targets import TARGETS, FuzzTarget, build_target

OUT = Path("fuzz-out")
SLOWEST_RUN_S = 20
"""A run of this length is a finding: no input may make the device work on for that long."""
_COVERAGE = re.compile(r"^#\d+\s.*\bcov: (\d+) ft: (\d+) corp: (\d+)", re.MULTILINE)
_RUNS = re.compile(r"number_of_executed_units: (\d+)")
_ENVIRONMENT = {
    "ASAN_OPTIONS": "detect_stack_use_after_return=1:strict_string_checks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


@dataclass(frozen=True, slots=True)
class Round:
    """What fuzzing one target came to."""

    target: FuzzTarget
    runs: int
    edges: int
    corpus: int
    findings: tuple[Path, ...]

    def __str__(self) -> str:
        found = f"{len(self.findings)} findings" if self.findings else "no finding"
        return f"{self.target.name}: {self.runs} runs, {self.edges} edges, corpus of {self.corpus}, {found}"


def fuzz(target: FuzzTarget, seconds: int, out: Path, extra: list[str]) -> Round:
    """Runs libFuzzer on a target; its own words go to the terminal and to ``log`` in the target's folder."""
    program = build_target(target, out / "build", libfuzzer=True)
    folder = out / target.name
    corpus, findings = folder / "corpus", folder / "findings"
    for path in (corpus, findings):
        path.mkdir(parents=True, exist_ok=True)
    for name, content in SEEDS[target.name]().items():
        (corpus / f"seed-{name}").write_bytes(content)
    before = set(findings.iterdir())
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={target.largest}",
        f"-timeout={SLOWEST_RUN_S}",
        f"-artifact_prefix={findings.absolute()}/",
        "-close_fd_mask=1",  # the log of the firmware
        "-print_final_stats=1",
        *([f"-dict={target.dictionary}"] if target.dictionary else []),
        *extra,
    ]
    folders = [corpus, *([target.regressions] if target.regressions.is_dir() else [])]
    log = folder / "log"
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [program, *options, *folders],
            stderr=subprocess.PIPE,
            env={**os.environ, **_ENVIRONMENT},
            text=True,
            errors="replace",
        )
        assert process.stderr is not None
        for line in process.stderr:
            file.write(line)
            sys.stderr.write(line)
        process.wait()
    said = log.read_text(encoding="utf-8", errors="replace")
    told = _COVERAGE.findall(said)
    runs = _RUNS.search(said)
    return Round(
        target,
        int(runs[1]) if runs else 0,
        int(told[-1][0]) if told else 0,
        len(list(corpus.iterdir())),
        tuple(sorted(set(findings.iterdir()) - before)),
    )


def replay(target: FuzzTarget, files: list[Path], out: Path) -> int:
    """Runs inputs by the program without libFuzzer, the firmware's log on standard output; its exit status."""
    program = build_target(target, out / "build", libfuzzer=False)
    return subprocess.run([program, *files], env={**os.environ, **_ENVIRONMENT}, check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz_c", description=__doc__)
    parser.add_argument("--target", choices=sorted(TARGETS), action="append", help="default: all of them")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument(
        "--out", type=Path, default=OUT, help="builds, corpora and findings; default: %(default)s"
    )
    parser.add_argument(
        "--replay", type=Path, nargs="+", metavar="FILE", help="run these inputs of one target"
    )
    parser.add_argument("libfuzzer", nargs="*", help="options for libFuzzer, after --")
    chosen = parser.parse_args()
    targets = [TARGETS[name] for name in chosen.target or TARGETS]
    if chosen.replay and len(targets) != 1:
        parser.error("--replay needs the --target that the files are of")
    try:
        if chosen.replay:
            return replay(targets[0], chosen.replay, chosen.out)
        rounds = [fuzz(target, chosen.seconds, chosen.out, chosen.libfuzzer) for target in targets]
    except HarnessError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    for done in rounds:
        sys.stdout.write(f"{done}\n")
        for path in done.findings:
            sys.stdout.write(f"  python -m tests.fuzz_c --target {done.target.name} --replay {path}\n")
    return 1 if any(done.findings for done in rounds) else 0


if __name__ == "__main__":
    sys.exit(main())
