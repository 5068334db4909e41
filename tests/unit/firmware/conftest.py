"""Builds of the firmware that the tests share, and boards made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fake_board import FakeBoard
from fake_server import FakeServer
from firmware_builds import Builds

from harness.build.artefacts import Artefacts


@pytest.fixture(scope="session")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Builds:
    # Above the folder of one worker: with several workers the compiler still runs once.
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if base.name.startswith("popen-") else base
    return Builds(shared / "firmware-builds", shared / "firmware-builds" / "store")


@pytest.fixture
def make_board(builds: Builds) -> Iterator[Callable[..., FakeBoard]]:
    """Provisions boards, and switches them off at the end."""
    boards: list[FakeBoard] = []

    def make(artefacts: Artefacts | None = None, **facts: Any) -> FakeBoard:
        boards.append(FakeBoard.provisioned(artefacts or builds(), builds.store, **facts))
        return boards[-1]

    yield make
    for board in boards:
        board.stop()


@pytest.fixture
def board(make_board: Callable[..., FakeBoard]) -> FakeBoard:
    """A C3 in release mode that runs version 1.0.0 from ota_0."""
    made = make_board()
    made.boot()
    return made


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as running:
        yield running
