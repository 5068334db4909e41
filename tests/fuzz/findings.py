"""What a fuzzer found: told apart, made small, and saved with the command that repeats it."""

from __future__ import annotations

import hashlib
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.fuzz.limits import Hang, cpu_limit
from tests.fuzz.target import Target

SHRINK_S = 20.0
"""How long one finding is made smaller."""


@dataclass(frozen=True, slots=True)
class Finding:
    """An input that its target neither took nor refused."""

    target: str
    data: bytes
    signature: str
    """The same for inputs that fail in the same way at the same place."""
    report: str
    """The traceback."""

    @property
    def name(self) -> str:
        """Of its file."""
        return hashlib.sha256(self.signature.encode()).hexdigest()[:12]


def run_once(target: Target, data: bytes) -> tuple[str, Finding | None]:
    """How `target` takes `data`: its word for it, and a finding where it failed."""
    try:
        with cpu_limit(target.limit_s):
            return target.check(data), None
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - whatever comes out of a target is a finding
        report = "".join(traceback.format_exception(error))[-20_000:]
        return "", Finding(target.name, data, _signature(error), report)


def _signature(error: BaseException) -> str:
    kind = "hang" if isinstance(error, Hang) else type(error).__name__
    # A hang is struck anywhere; what a property says of an input varies only in its numbers.
    return f"{kind} in {_place(error.__traceback__)}"


def _place(trace: TracebackType | None) -> str:
    """The innermost function of the harness, else of the target."""
    places = []
    while trace is not None:
        code = trace.tb_frame.f_code
        path = code.co_filename.replace("\\", "/")
        if "/harness/" in path or "/tests/fuzz/targets/" in path:
            places.append(f"{path.rpartition('/')[2]}:{code.co_name}")
        trace = trace.tb_next
    return places[-1] if places else "?"


def shrink(target: Target, finding: Finding, limit_s: float = SHRINK_S) -> Finding:
    """The smallest input found in `limit_s` seconds that fails in the same way: without stretches, with plainer bytes."""
    until_s = time.monotonic() + limit_s
    best, size = finding, max(1, len(finding.data) // 2)
    while time.monotonic() < until_s:
        smaller = _without(target, best, size, until_s)
        if smaller is not None:
            best = smaller
            size = min(size, max(1, len(best.data) // 2))
        elif size > 1:
            size //= 2
        else:
            break
    return best


def _without(target: Target, finding: Finding, size: int, until_s: float) -> Finding | None:
    """`finding` without some stretch of `size` bytes; None when none can be spared."""
    for at in range(0, len(finding.data), size):
        if time.monotonic() > until_s:
            return None
        _, found = run_once(target, finding.data[:at] + finding.data[at + size :])
        if found is not None and found.signature == finding.signature:
            return found
    return None


def save(finding: Finding, folder: Path) -> Path:
    """Puts `finding` into ``folder/TARGET``, with a text beside it that says what happened and how to see it again."""
    place = folder / finding.target
    place.mkdir(parents=True, exist_ok=True)
    file = place / finding.name
    file.write_bytes(finding.data)
    file.with_suffix(".txt").write_text(
        f"{finding.signature}\n\nagain: {replay_command(finding.target, file)}\n\n{finding.report}"
    )
    return file


def replay_command(target: str, file: Path) -> str:
    """The line for a terminal that repeats a finding."""
    return f"python -m tests.fuzz --target {target} --replay {file}"
