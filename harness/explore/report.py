"""The report of an exploration: what was tried, on what it rests, and everything that does not hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
from harness.explore.explorer import Depth
from harness.explore.result import FORMAT, LAYERS, Explored
from harness.explore.sampled import model_lines


@dataclass(frozen=True, slots=True)
class Report:
    """All sequences of one exploration."""

    chip: str
    results: Sequence[Explored]
    depth: Depth

    @property
    def ok(self) -> bool:
        """Everything held, and something was tried."""
        return bool(self.results) and all(result.ok for result in self.results)

    def lines(self) -> list[str]:
        """For a person; the verdict comes last."""
        lines = [line for result in self.results for line in result.lines()]
        lines.append("")
        used = {layer for result in self.results for layer in result.layers}
        lines += [f"{layer}: {about}" for layer, about in LAYERS.items() if layer in used]
        lines += model_lines(self.chip, self._modelled)
        tried = sum(result.cuts + sum(result.chains.values()) for result in self.results)
        failed = sum(len(result.findings) for result in self.results)
        broken = sum(result.clean_problem is not None for result in self.results)
        what = (
            f"{tried} cuts and chains on {self.chip} in {len(self.results)} sequences, seed {self.depth.seed}"
        )
        if any(result.in_windows for result in self.results):
            named = sum(len(result.windows) for result in self.results)
            what += f"; {sum(result.in_windows for result in self.results)} of them in {named} named windows"
        if self.ok:
            lines.append(f"PASSED: {what}")
        else:
            without = f", {broken} sequences fail without any cut" if broken else ""
            lines.append(f"FAILED: {what}: {failed} violations{without}")
        return lines

    @property
    def _modelled(self) -> list[str]:
        """The sequences in which the model made operations."""
        return [result.sequence for result in self.results if "model" in result.layers]

    def to_json(self) -> dict[str, Any]:
        """For machines; carries its format version."""
        return {
            "format": FORMAT,
            "harness": harness.__version__,
            "chip": self.chip,
            "ok": self.ok,
            "seed": self.depth.seed,
            "every_byte": self.depth.every_byte,
            "shared": self.depth.share,
            "layers": LAYERS,
            "model": model_lines(self.chip, self._modelled),
            "sequences": [result.to_json() for result in self.results],
        }


def write_report(report: Report, folder: Path) -> None:
    """``explore.json`` and ``explore.txt``."""
    (folder / "explore.json").write_text(json.dumps(report.to_json(), indent=1) + "\n", encoding="utf-8")
    (folder / "explore.txt").write_text("\n".join(report.lines()) + "\n", encoding="utf-8")
