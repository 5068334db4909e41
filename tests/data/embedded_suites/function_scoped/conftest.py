# What such a project has beside its tests: the configuration that a test is for, and where numbers are told.
import logging
import os
from typing import Callable

import pytest
from pytest_embedded import Dut
from pytest_embedded.plugin import multi_dut_argument


@pytest.fixture
@multi_dut_argument
def config(request: pytest.FixtureRequest) -> str:
    return getattr(request, "param", None) or "default"


@pytest.fixture
@multi_dut_argument
def build_dir(app_path: str, target: str, config: str) -> str:
    for name in (f"build_{target}_{config}", f"build_{target}", "build"):
        if os.path.isdir(os.path.join(app_path, name)):
            return name
    return "build"


@pytest.fixture
def log_performance(record_property: Callable[[str, object], None]) -> Callable[[str, str], None]:
    def really_log(item: str, value: str) -> None:
        logging.info("[Performance][%s]: %s", item, value)
        record_property(item, value)

    return really_log


@pytest.fixture
def log_minimum_free_heap_size(dut: Dut, config: str) -> Callable[..., None]:
    def really_log() -> None:
        logging.info(
            "config %s, slot %s",
            config,
            dut.expect(r'running slot (\S+)?|"slot":"(\w+)"', timeout=10).group(0),
        )

    return really_log
