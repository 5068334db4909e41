"""Which profiles a scenario runs in: by its marker, what a run asks for, and whether everything is run."""

from __future__ import annotations

import pytest

from harness.errors import UsageError
from harness.provision.profile import Profile
from harness.scope import Scope


def names(profiles: tuple[Profile, ...]) -> str:
    return " ".join(profile.value for profile in profiles)


ANY = Scope()
BOTH = Scope.of_marker(["release", "development"], {})
MORE = Scope.of_marker(["release"], {"full": ["ciphertext-only"]})
PLAIN = Scope.of_marker(["open"], {"secure_boot": False})
SIGNED = Scope.of_marker(["release+sbv2"], {"full": ["development"], "secure_boot": True})
BOOT = Scope.of_marker(["release", "open"], {"secure_boot": True})
LATER = Scope.of_marker([], {"full": ["release"]})


@pytest.mark.parametrize(
    ("scope", "only", "full", "expected"),
    [
        (ANY, "", False, "release"),
        (ANY, "", True, "release release+sbv2"),
        (ANY, "open development+sbv2", False, "open development+sbv2"),
        (BOTH, "", False, "release development"),
        (BOTH, "", True, "development release development+sbv2 release+sbv2"),
        (BOTH, "release+sbv2 open", False, "release+sbv2"),
        (BOTH, "ciphertext-only", False, ""),
        (MORE, "", False, "release"),
        (MORE, "ciphertext-only", False, "ciphertext-only"),
        (MORE, "", True, "ciphertext-only release ciphertext-only+sbv2 release+sbv2"),
        (PLAIN, "", True, "open"),
        (PLAIN, "open+sbv2", False, ""),
        (SIGNED, "", False, "release+sbv2"),
        (SIGNED, "", True, "development+sbv2 release+sbv2"),
        (SIGNED, "release development", False, ""),
        (BOOT, "", False, "release+sbv2 open+sbv2"),
        (BOOT, "", True, "open+sbv2 release+sbv2"),
        (LATER, "", False, ""),
        (LATER, "", True, "release release+sbv2"),
    ],
)
def test_a_scenario_runs_in_the_profiles_where_it_makes_sense_and_that_were_asked_for(
    scope: Scope, only: str, full: bool, expected: str
) -> None:
    assert names(scope.chosen([Profile(word) for word in only.split()], full=full)) == expected


def test_a_profile_stands_for_its_encryption_unless_the_marker_says_otherwise() -> None:
    assert BOTH.admits(Profile.RELEASE_SBV2)
    assert not SIGNED.admits(Profile.RELEASE)
    assert not Scope.of_marker(["release+sbv2"], {}).admits(Profile.RELEASE)


@pytest.mark.parametrize(
    ("args", "options", "complaint"),
    [
        (["paranoid"], {}, "there is no profile 'paranoid'"),
        (["release"], {"full": ["paranoid"]}, "there is no profile 'paranoid'"),
        (["release"], {"sbv2": True}, "has no option 'sbv2'"),
    ],
)
def test_a_marker_that_says_something_else_is_refused(args: list[str], options: dict, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        Scope.of_marker(args, options)
