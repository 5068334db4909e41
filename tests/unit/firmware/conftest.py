"""Builds of the firmware that the tests share, and boards made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_board import FakeBoard
from fake_server import FakeServer
from firmware_builds import Builds

from harness.build.artefacts import Artefacts


@pytest.fixture(scope="session")
def builds(users_builds: Path) -> Builds:
    """In the same place as those of other tests: what is equal is compiled once, whichever worker comes first."""
    return Builds(users_builds, users_builds / "store")


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
