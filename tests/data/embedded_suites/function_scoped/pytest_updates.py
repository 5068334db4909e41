# A suite as projects with pytest-embedded have it: each test gets a board that has just restarted. It knows nothing
# of the harness.
import os
import re

import pexpect
import pytest
from pytest_embedded import Dut
from pytest_embedded.app import App


@pytest.mark.generic
@pytest.mark.parametrize("target", ["esp32c3"], indirect=True)
def test_start_up(dut: Dut, log_minimum_free_heap_size) -> None:
    dut.expect(re.compile(rb"I \(\d+\) boot: "), timeout=10)
    dut.expect_exact("Calling app_main()")
    log_minimum_free_heap_size()


@pytest.mark.generic
@pytest.mark.parametrize("config", ["release", "default"], indirect=True)
@pytest.mark.parametrize("target", ["esp32c3", "esp32c61", "linux"], indirect=True)
def test_versions(dut: Dut, app: App, config: str, target: str, log_performance) -> None:
    version = dut.expect(r"companion: version (\d+\.\d+\.\d+)", timeout=10).group(1).decode()
    assert config in ("release", "default")
    assert target == dut.target == app.target
    log_performance("version", version)


@pytest.mark.esp32c3
@pytest.mark.generic
def test_commands(dut: Dut) -> None:
    dut.expect_exact("Calling app_main()")
    dut.write("status id=7")
    dut.expect([r'"ev":"done".*"id":7', "abort\\(\\) was called"], timeout=10)
    with pytest.raises(pexpect.TIMEOUT):
        dut.expect_exact("a word that no firmware says", timeout=0.2)


@pytest.mark.esp32c3
def test_a_reset_in_the_middle(dut: Dut) -> None:
    dut.expect_exact("Calling app_main()")
    dut.serial.hard_reset()
    dut.expect(
        ["companion: version", "Calling app_main"],
        expect_all=True,
        timeout=10,
        not_matching="Guru Meditation",
    )


@pytest.mark.esp32c3
def test_what_was_built(dut: Dut, serial) -> None:
    assert os.path.isdir(dut.app.binary_path)
    assert dut.app.sdkconfig.get("SECURE_FLASH_ENC_ENABLED") is True
    assert isinstance(dut.app.sdkconfig.get("PARTITION_TABLE_OFFSET"), int)
    assert serial is dut.serial
    assert serial.port
    with open(os.path.join(dut.logdir, "notes.txt"), "w") as file:
        file.write(dut.test_case_name)


@pytest.mark.esp32c61
def test_of_a_chip_that_nobody_has_here(dut: Dut) -> None:
    raise AssertionError("never runs")


@pytest.mark.generic
@pytest.mark.parametrize("target", ["esp32c3"], indirect=True)
def test_unit_test_app(dut: Dut) -> None:
    dut.run_all_single_board_cases(group="psram", timeout=60)
