"""The command that runs a test again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.inventory.entry import TwinEntry
from harness.provision.profile import Profile
from harness.rack.spread import LOAD
from harness.rack.target import Target
from harness.report.pytest_items import plain_name, repeat_command


def test_a_file_outside_of_pytests_root_folder_is_named_by_its_own_path(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of such a file the node id has no path.
    monkeypatch.setattr("harness.report.pytest_items.node_id", lambda _: "::test_it")
    path, _, name = repeat_command(request.node)[1].partition("::")
    assert (request.config.invocation_params.dir / path).resolve() == Path(__file__).resolve()
    assert name == "test_it"


@pytest.mark.parametrize(
    ("dist", "profile", "parameters", "named", "plain"),
    [
        (LOAD, Profile.OPEN, "esp32c3-open", "aa-open", "it"),
        (LOAD, Profile.OPEN, "esp32c3-open-1", "aa-open-1", "it [1]"),
        (LOAD, Profile.OPEN, "1-esp32c3-open", "1-aa-open", "it [1]"),
        (
            LOAD,
            Profile.OPEN,
            "not-esp32c3-opened-esp32c3-open",
            "not-esp32c3-opened-aa-open",
            "it [not-esp32c3-opened]",
        ),
        (LOAD, None, "esp32c3", "aa", "it"),
        ("each", Profile.OPEN, "aa-open-1", "aa-open-1", "it [1]"),
    ],
)
def test_on_one_board_a_test_has_the_id_that_names_the_board(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    dist: str,
    profile: Profile | None,
    parameters: str,
    named: str,
    plain: str,
) -> None:
    monkeypatch.setattr(request.config.option, "rack_dist", dist)
    target = Target("aa", TwinEntry(chip="esp32c3"), profile, throwaway=False)
    item = SimpleNamespace(
        name=f"test_it[{parameters}]",
        nodeid=f"test_x.py::TestIt::test_it[{parameters}]",
        path=request.path,
        config=request.config,
        callspec=SimpleNamespace(params={"_target": target}),
        get_closest_marker=lambda _: None,
    )
    words = repeat_command(item)  # type: ignore[arg-type]
    assert words[1].partition("::")[2] == f"TestIt::test_it[{named}]"
    assert words[2:4] == ["--board", "aa"]
    assert plain_name(item) == plain  # type: ignore[arg-type]
