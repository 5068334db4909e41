"""One unit is provisioned per worker; each test gets a copy."""

from __future__ import annotations

from pathlib import Path

import pytest
from qualify_bench import Bench, make_unit

from harness.home import Home


@pytest.fixture(scope="session")
def made_unit(tmp_path_factory: pytest.TempPathFactory, users_builds: Path) -> Path:
    folder = tmp_path_factory.mktemp("unit")
    home = Home(folder / "home")
    home.root.mkdir(mode=0o700)
    (home.root / "builds").symlink_to(users_builds)
    make_unit(folder, home)
    return folder


@pytest.fixture
def bench(tmp_path: Path, made_unit: Path, own_home: Path) -> Bench:
    return Bench(tmp_path, made_unit, Home(own_home))
