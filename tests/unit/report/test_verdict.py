"""Verdicts: the worst claim decides, and nothing proves itself."""

import pytest

from harness.report.verdict import Claim, Standing, Verdict

PROVEN = Claim.of("it boots", True, "boot 1: ota_0")
FAILED = Claim.of("it switches", False, "still ota_0")
SILENT = Claim.of("it confirms", True, "")


@pytest.mark.parametrize(
    ("claims", "word", "exit_code"),
    [
        ([PROVEN], "PASSED", 0),
        ([PROVEN, FAILED, SILENT], "FAILED", 1),
        ([PROVEN, SILENT], "NOT PROVEN", 5),
        ([], "NOT PROVEN", 5),
    ],
)
def test_the_worst_claim_decides_the_verdict_and_the_exit_code(
    claims: list[Claim], word: str, exit_code: int
) -> None:
    verdict = Verdict("board x", claims, {})
    assert (verdict.word, verdict.exit_code) == (word, exit_code)
    assert verdict.lines()[-1] == f"{word}: board x"
    assert verdict.to_json()["verdict"] == word.lower()


def test_a_claim_without_evidence_is_not_proven_even_if_it_is_said_to_hold() -> None:
    assert SILENT.standing is Standing.NOT_PROVEN


def test_what_must_be_known_whatever_was_proven_stands_right_before_the_verdict() -> None:
    verdict = Verdict("board x", [PROVEN], {}, ("key 0a is test-only: do not ship this device",))
    assert verdict.lines()[-3:] == ["  ! key 0a is test-only: do not ship this device", "", "PASSED: board x"]
    assert verdict.to_json()["marks"] == ["key 0a is test-only: do not ship this device"]
