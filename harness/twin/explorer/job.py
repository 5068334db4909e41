"""What an explorer is told to do: the words between it and the harness, as JSON.

Everything that takes a key of the host's (packages, images) comes ready; the explorer knows places, digests and URLs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Place:
    """A partition; offset and size in bytes."""

    label: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class KnownImage:
    """An application that may lie in a slot, as a whole: its raw bytes by length and SHA-256 (hexadecimal).

    Of a signed image up to the end of its signatures.
    """

    slot: str
    version: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Window:
    """What may be wrong after a cut in one of `steps` without being a violation: the silicon's own."""

    name: str
    shows: str
    """What is in the one thing that is wrong then, or in what the UART said."""
    steps: tuple[str, ...]
    sign: str = ""
    """What eFuses show then, a word of `harness.twin.explorer.signs`; empty: nothing in particular."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that is done to the board, and what must come of it.

    `do`: ``boot`` (switch on and wait for the firmware), ``command``, ``reboot`` (by command), ``reset``, ``cycle``
    (supply off and on), ``update`` (by `command` or ``ota``, with the package for the slot that is next), ``settle``
    (confirm what waits for it), ``pause`` (let `seconds` pass).
    """

    name: str
    do: str
    command: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    refused: str | None = None
    """The error that a command must end with; None: it succeeds."""
    seconds: float = 0.0
    restarts: bool = False
    """The command ends in a restart, and its result may not be seen."""
    expect: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the event that ends the step, and their values."""
    boots: tuple[str, ...] = ()
    """Versions of which one runs after a cut in this step; none: any that is known."""
    then: str | None = None
    """What runs after a cut behind the step's last operation."""


@dataclass(frozen=True, slots=True)
class Job:
    """One sequence to be explored."""

    chip: str
    state: Path
    """A state folder that holds the board as it is when the sequence begins; it is read only."""
    build_store: Path
    work: Path
    """Folder for what the explorer makes and removes again; one in memory is best."""
    slots: tuple[Place, ...]
    otadata: Place
    images: tuple[KnownImage, ...]
    steps: tuple[Step, ...]
    recovery: tuple[Step, ...]
    packages: Mapping[str, str]
    """URL of the recovery's package, by label of its slot."""
    places: tuple[Place, ...] = ()
    """The whole partition table, for flash maps."""
    stuck: Mapping[int, int] = field(default_factory=dict)
    """Bits of flash that cannot be 1 any more, by address."""
    secure_boot_scheme: str | None = None
    """What signatures the bootloader verifies; None: none."""
    windows: tuple[Window, ...] = ()
    fuses: Mapping[str, int] = field(default_factory=dict)
    """eFuse fields and the bits that must be set in them when a recovery has ended."""
    first_boot: bool = False
    """The board begins as plaintext and enciphers itself: images are known as plaintext, and compared deciphered."""
    few_inside: bool = False
    """Cut only once or twice inside an operation of flash: there are very many of them, and all alike."""
    safe: str = ""
    """The version that the recovery updates to."""
    seed: int = 1
    every_byte: bool = False
    sample: int | None = None
    """How many cuts at most, before they are dealt out to shards; None: all."""
    stop_after: int | None = None
    """How many violations are enough; None: none."""
    share: bool = True
    """Whether stored states that agree in all that a recovery depends on share its result."""
    shard: tuple[int, int] = (0, 1)
    """(k, n): every nth cut from the kth on."""
    chains: Mapping[int, int] = field(default_factory=dict)
    """How many chains of so many cuts."""
    only: str | None = None
    """One cut, as a report names it; it is run on the board itself instead of being computed."""
    only_chain: tuple[int, int] | None = None
    """One chain, by its size and number."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Job:
        """From what `harness.explore` writes."""
        fields = dict(data)
        windows = fields.get("windows", ())
        fields["windows"] = [{**row, "steps": tuple(row["steps"])} for row in windows]
        tables = (("slots", Place), ("images", KnownImage), ("places", Place), ("windows", Window))
        for name, kind in tables:
            fields[name] = tuple(kind(**row) for row in fields.get(name, ()))
        for name in ("steps", "recovery"):
            fields[name] = tuple(
                Step(**{**row, "boots": tuple(row.get("boots", ()))}) for row in fields.get(name, ())
            )
        fields["otadata"] = Place(**fields["otadata"])
        for name in ("state", "build_store", "work"):
            fields[name] = Path(fields[name])
        fields["stuck"] = {int(at): bits for at, bits in fields.get("stuck", ())}
        fields["shard"] = tuple(fields.get("shard", (0, 1)))
        if fields.get("only_chain") is not None:
            fields["only_chain"] = tuple(fields["only_chain"])
        fields["chains"] = {int(size): count for size, count in fields.get("chains", {}).items()}
        return cls(**fields)
