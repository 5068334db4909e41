"""What the sessions that these tests start have in common."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_hypothesis_in_inner_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a second at the end of each of them, and none uses it."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:hypothesispytest")
