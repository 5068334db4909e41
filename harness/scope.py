"""What security profiles a scenario is for, and which of them a run chooses. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import UsageError
from harness.provision.profile import Profile


def profile_named(word: str) -> Profile:
    """The profile called `word`.

    Raises:
        UsageError: there is none; the message lists those there are.
    """
    try:
        return Profile(word)
    except ValueError:
        known = ", ".join(profile.value for profile in Profile)
        raise UsageError(f"there is no profile '{word}'", todo=f"use one of: {known}") from None


@dataclass(frozen=True, slots=True)
class Scope:
    """The profiles in which one scenario makes sense.

    A profile stands for its encryption: a scenario for ``release`` is one for ``release+sbv2``, too, when that is
    asked for. One that is for boards with secure boot only, or without it only, says so.
    """

    first: tuple[Profile, ...] = ()
    """Those of the default subset; none: whatever profile a run is about, ``release`` when nothing is said."""
    more: tuple[Profile, ...] = ()
    """Those that are added when everything is run, or one of them is named."""
    secure_boot: bool | None = None
    """None: with secure boot as well as without."""

    @classmethod
    def of_marker(cls, names: Iterable[object], options: Mapping[str, Any]) -> Scope:
        """From ``@pytest.mark.profiles(*names, full=(…), secure_boot=…)``.

        Raises:
            UsageError: a name or an option that there is not.
        """
        unknown = set(options) - {"full", "secure_boot"}
        if unknown:
            raise UsageError(
                f"@pytest.mark.profiles has no option '{min(unknown)}'", todo="use 'full' or 'secure_boot'"
            )
        return cls(
            tuple(profile_named(str(name)) for name in names),
            tuple(profile_named(str(name)) for name in options.get("full", ())),
            options.get("secure_boot"),
        )

    def admits(self, profile: Profile) -> bool:
        """Whether the scenario makes sense in `profile`."""
        if self.secure_boot not in (None, profile.secure_boot):
            return False
        named = (*self.first, *self.more)
        return not named or profile in named or profile.encryption in named

    def default(self) -> tuple[Profile, ...]:
        """The profiles of the default subset."""
        first = self.first or (() if self.more else (Profile.RELEASE,))
        return tuple(Profile.of(each, secure_boot=True) for each in first) if self.secure_boot else first

    def everything(self) -> tuple[Profile, ...]:
        """All profiles in which it makes sense, nearest first; of a scenario that names none, ``release``'s."""
        if not (self.first or self.more):
            return tuple(p for p in Profile if p.encryption is Profile.RELEASE and self.admits(p))
        return tuple(profile for profile in Profile if self.admits(profile))

    def chosen(self, only: Sequence[Profile], *, full: bool) -> tuple[Profile, ...]:
        """What a run does: those of `only` that make sense; without `only`, everything or the default subset."""
        if only:
            return tuple(profile for profile in dict.fromkeys(only) if self.admits(profile))
        return self.everything() if full else self.default()
