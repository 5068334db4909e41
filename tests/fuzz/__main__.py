"""``python -m tests.fuzz``: hostile input for everything that reads what others wrote. See docs/robustness.md."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.fuzz import campaign
from tests.fuzz.campaign import Job
from tests.fuzz.findings import replay_command, run_once
from tests.fuzz.target import Target


def main(words: list[str] | None = None) -> int:
    """Runs one target, some, or all, one after the other; 1 when something was found."""
    options = _parser().parse_args(words)
    engine = options.engine or ("atheris" if campaign.has_atheris() else "random")
    if options.worker:
        target = campaign.target_in(options.worker, options.target[0], instrumented=engine == "atheris")
        campaign.work(_job(options, target, engine, 0), target, options.board)
        return 0
    # Not before: a worker imports its own target only, and after atheris is ready to see it.
    targets: Mapping[str, Target] = importlib.import_module("tests.fuzz.table").TARGETS
    if options.list:
        for target in targets.values():
            print(f"{target.name:20} {target.what}")
        return 0
    names = options.target or list(targets)
    unknown = [name for name in names if name not in targets]
    if unknown:
        print(f"there is no target '{unknown[0]}'; targets: {', '.join(targets)}", file=sys.stderr)
        return 2
    if options.replay:
        return _replay(targets[names[0]], options.replay)
    if engine == "random" and options.engine is None:
        print(
            "atheris is not installed (pip install '.[fuzz]'): seeded mutations, without coverage", flush=True
        )
    found = 0
    for name in names:
        tally = campaign.run_campaign([_job(options, targets[name], engine, n) for n in range(options.jobs)])
        found += len(tally.findings)
        print(f"{name}: {tally}", flush=True)
        for file in tally.findings:
            print(f"  {file.with_suffix('.txt').read_text().splitlines()[0]}")
            print(f"  {replay_command(name, file)}", flush=True)
    return 1 if found else 0


def _job(options: argparse.Namespace, target: Target, engine: str, number: int) -> Job:
    corpus = options.corpus if options.worker else options.corpus / target.name
    module = target.check.__module__
    return Job(target.name, module, engine, options.seconds, options.seed + number, corpus, options.findings)


def _replay(target: Target, files: list[Path]) -> int:
    failed = False
    for file in files:
        word, finding = run_once(target, file.read_bytes())
        print(f"{file}: {finding.report if finding else word or 'taken'}")
        failed |= finding is not None
    return int(failed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--target", action="append", help="one of --list; may be repeated; default: all")
    parser.add_argument("--list", action="store_true", help="say which targets there are")
    parser.add_argument("--seconds", type=float, default=60, help="for each target (60)")
    parser.add_argument(
        "--engine", choices=("atheris", "random"), help="default: atheris where it is installed"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the generators (1)")
    parser.add_argument("--jobs", type=int, default=1, help="processes per target (1)")
    parser.add_argument("--corpus", type=Path, default=Path(".fuzz/corpus"), help="kept from run to run")
    parser.add_argument(
        "--findings", type=Path, default=Path(".fuzz/findings"), help="where inputs that fail go"
    )
    parser.add_argument("--replay", type=Path, nargs="+", metavar="FILE", help="run these inputs once")
    parser.add_argument("--worker", metavar="MODULE", help=argparse.SUPPRESS)
    parser.add_argument("--board", type=Path, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
