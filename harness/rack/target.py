"""A board in a profile: what a test is parametrised with."""

from __future__ import annotations

from dataclasses import dataclass

from harness.inventory.entry import AnyEntry
from harness.provision.profile import Profile


@dataclass(frozen=True, slots=True)
class Target:
    """A board of boards.yaml, or a throwaway twin, in a profile."""

    name: str
    entry: AnyEntry
    profile: Profile | None
    """None: the profile the board is in."""
    throwaway: bool

    @property
    def id(self) -> str:
        """In the ids of tests."""
        return f"{self.name}-{self.profile.value}" if self.profile else self.name

    @property
    def worker(self) -> str:
        """What goes to one worker of pytest-xdist: a board in all its profiles; each throwaway twin is one of its own."""
        return self.id if self.throwaway else self.name
