"""What the runs of this user were, over time: pass rates, flaky tests, durations, and what of it is kept for how long."""

from __future__ import annotations

from harness.history.history import History

__all__ = ["History"]
