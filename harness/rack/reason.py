"""Why a board is held, in words that others understand: the command, and the CI job that runs it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

REASON_VARIABLE = "HARNESS_REASON"
"""What a person or a CI job says of itself, in place of what is found out."""

_CI_JOBS = (
    # variable of the job's number, and what to call it
    ("CI_JOB_ID", "CI job"),  # GitLab
    ("GITHUB_RUN_ID", "GitHub run"),
    ("BUILD_TAG", "build"),  # Jenkins
    ("BUILDKITE_JOB_ID", "Buildkite job"),
    ("CIRCLE_WORKFLOW_JOB_ID", "CircleCI job"),
    ("BUILD_BUILDID", "build"),  # Azure
)


def reason_of(command: str, environment: Mapping[str, str] | None = None) -> str:
    """Why this process holds a board: ``pytest tests/ota -k switch in CI job 4711``."""
    known = os.environ if environment is None else environment
    said = known.get(REASON_VARIABLE, "").strip()
    if said:
        return said
    job = next((f"{words} {known[name]}" for name, words in _CI_JOBS if known.get(name)), None)
    return f"{command} in {job}" if job is not None else command


def reason_of_session(config: pytest.Config) -> str:
    """Why a session of pytest holds boards. Asked first in the controller, which hands it to its workers among its
    options: they are started with other arguments than a person typed."""
    told = getattr(config.option, "harness_reason", None)
    if told is None:
        told = config.option.harness_reason = reason_of(command_of_pytest(config))
    return str(told)


def command_of_pytest(config: pytest.Config) -> str:
    """The part of pytest's command line that says which tests are run. Values of other options stay here: they may be
    anything."""
    given = config.args if config.args_source.name == "ARGS" else []
    words = ["pytest", *given]
    for option, value in (("-k", config.option.keyword), ("-m", config.option.markexpr)):
        words += [option, f"'{value}'" if " " in value else value] if value else []
    return " ".join(words)
