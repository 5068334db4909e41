"""The command that runs a test again."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.report.pytest_items import repeat_command


def test_a_file_outside_of_pytests_root_folder_is_named_by_its_own_path(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of such a file the node id has no path.
    monkeypatch.setattr("harness.report.pytest_items.node_id", lambda _: "::test_it")
    path, _, name = repeat_command(request.node)[1].partition("::")
    assert (request.config.invocation_params.dir / path).resolve() == Path(__file__).resolve()
    assert name == "test_it"
