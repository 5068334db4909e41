"""On a throwaway twin a scenario may use up what it likes, and the session ends with what is left."""

from __future__ import annotations

from pathlib import Path

import pytest

SCENARIOS = """
    import pytest

    pytestmark = pytest.mark.profiles("open")

    @pytest.mark.consumes(secure_version=10)
    def test_first(board):
        assert board.restart().slot == "ota_0"

    @pytest.mark.consumes(secure_version=10)
    def test_second(board):
        pass

    @pytest.mark.consumes(luck=1)
    def test_third(board):
        pass
"""


def test_what_a_twin_has_is_used_up_once_noted_and_told(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, own_home: Path
) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(own_home))
    pytester.makepyfile(SCENARIOS.replace("assert board.restart", BURN + "    assert board.restart"))
    result = pytester.runpytest_subprocess("-rs", "--junitxml=out.xml", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, skipped=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*nothing called 'luck' can be used up*",
            "left of what board twin-esp32c3-open has only once: secure_version 6 of 16, digest_slots 3 of 3, *",
            "SKIPPED*uses up secure_version 10; board twin-esp32c3-open has left: secure_version 6 of 16*",
        ],
        consecutive=False,
    )
    assert 'name="consumes" value="secure_version 10"' in (pytester.path / "out.xml").read_text()


BURN = """with board.rom() as session:
            session.burn_fuses({"SECURE_VERSION": 0x3FF})
    """
