# A suite whose tests share a board that goes on: the log of one test begins where the one before it ended. It knows
# nothing of the harness.
import pytest
from pytest_embedded import Dut


class TestOneBoot:
    """The class has a dut of its own, which outlives its tests."""

    boots = 0

    @pytest.fixture(scope="class")
    def dut(self, dut: Dut) -> Dut:
        type(self).boots += 1
        dut.expect_exact("Calling app_main()", timeout=10)
        return dut

    def test_starts(self, dut: Dut) -> None:
        dut.expect(r'"ev":"boot"', timeout=10)

    @pytest.mark.parametrize("number", [1, 2, 3])
    def test_answers(self, dut: Dut, number: int) -> None:
        dut.write(f"status id={number}")
        found = dut.expect(r'"ev":"done"[^\n]*"id":(\d+)', timeout=10, not_matching="Calling app_main")
        assert int(found.group(1)) == number

    def test_was_started_once(self, dut: Dut) -> None:
        assert type(self).boots == 1


@pytest.fixture(scope="module")
def running_version(dut: Dut) -> str:
    return dut.expect(r"companion: version (\S+)", timeout=10).group(1).decode()


def test_a_fixture_of_the_module_waits_once(dut: Dut, running_version: str) -> None:
    dut.expect(r'"ev":"boot"', timeout=10)
    assert running_version.startswith("1.")


def test_and_the_board_goes_on(dut: Dut, running_version: str) -> None:
    dut.write("status id=9")
    dut.expect(r'"ev":"done"[^\n]*"id":9', timeout=10, not_matching="ets_main|Calling app_main")


class TestEachItsOwn:
    def test_first(self, dut: Dut) -> None:
        dut.expect_exact("Calling app_main()", timeout=10)

    def test_second(self, dut: Dut) -> None:
        dut.expect_exact("Calling app_main()", timeout=10)
