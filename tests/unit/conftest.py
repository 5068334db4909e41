"""What the tests without a board of anybody's have in common."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.home import Home


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "machine_locks: takes the locks that all users of the machine share")
    # xdist's own, for where there is no xdist.
    config.addinivalue_line("markers", "xdist_group(name): these tests go to one worker")


@pytest.fixture(autouse=True)
def locks_of_this_test_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> None:
    """Boards that tests invent share MACs and ports; runs beside this one, and its other workers, invent the same."""
    made: list[Path] = []

    def folder() -> Path:
        if not made:
            made.append(tmp_path_factory.mktemp("locks"))
        return made[0]

    if request.node.get_closest_marker("machine_locks") is None:
        monkeypatch.setattr("harness.locks.shared_folder", folder)


@pytest.fixture(scope="session")
def users_builds() -> Path:
    """What this run has compiled so far, whoever needed it."""
    return Home.of_user().builds


@pytest.fixture
def own_home(tmp_path: Path, users_builds: Path) -> Path:
    """A HARNESS_HOME of one test, in which nothing is but what is compiled: that takes longer than most tests."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "builds").symlink_to(users_builds)
    return home
