"""What the sessions that these tests start have in common."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_hypothesis_in_inner_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a second at the end of each of them, and none uses it."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:hypothesispytest")


@pytest.fixture(autouse=True)
def no_ci_service_in_inner_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails in them on purpose is not to stand beside the lines of this project."""
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_WORKSPACE", "GITLAB_CI"):
        monkeypatch.delenv(name, raising=False)
