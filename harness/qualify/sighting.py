"""What was seen of the app that runs: which of two it is, from which slot, and whether it stays. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from harness.console.boot_record import BootRecord, Outcome

CONFIRMED_WORDS = frozenset({"valid", "confirmed", "true", "yes"})
"""What a witness of confirmation says, unless qualify.yaml states something else; in lower case, without ESP-IDF's
``ESP_OTA_IMG_``. No number: 1 is ``ESP_OTA_IMG_PENDING_VERIFY`` for some, true for others."""

SHOWN_DIGITS = 16


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What tells one app from another."""

    name: str
    """What it is in this qualification: ``running``, ``update``."""
    project: str
    version: str
    elf_sha256: str
    """Of the ELF file, as the app prints its beginning; hexadecimal."""
    image_sha256: str
    """The SHA-256 that ESP-IDF appends to the image; hexadecimal."""
    file_sha256: str
    size_bytes: int
    secure_version: int = 0
    idf_version: str = ""
    rival: ImageFacts | None = None
    """The other app of this qualification: what both have in common tells neither."""

    def text(self) -> str:
        """A few words."""
        return f"{self.project} {self.version} (SHA-256 {self.file_sha256[:SHOWN_DIGITS]}…)"


@dataclass(frozen=True, slots=True)
class Readings:
    """What the witnesses named in qualify.yaml brought; None: not asked, or no answer."""

    version: str | None = None
    slot: str | None = None
    confirmed: str | None = None
    confirmed_words: frozenset[str] = CONFIRMED_WORDS
    """What of that means so, in lower case."""
    image: str | None = None
    lines: Mapping[str, int] = field(default_factory=dict)
    """In which line of the log each stands."""
    answers: bool = False
    """The app has answered a witness that asks it, or has printed the line that means that it is up."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of one boot."""

    boot: BootRecord | None = None
    readings: Readings = field(default_factory=Readings)
    """What the witnesses said in it."""
    falls: str | None = None
    """Why what it started does not count as running, see `unsteady`."""
    first_try: BootRecord | None = None
    """Where its ROM found a bootloader only at a further try: the first one, which the reset began; None: `boot`."""

    @property
    def line(self) -> int | None:
        """Where it begins in the log."""
        return self.boot.first_line if self.boot is not None else None

    @property
    def has_app(self) -> bool:
        """An app was seen to come up in it; its version alone stands in the log before that."""
        return self.boot is not None and (self.boot.app_started or self.readings.answers)

    @property
    def place(self) -> str | None:
        """From where it started its app: the slot's label where it is known, else its offset; None: not seen."""
        boot = self.boot
        if boot is not None and boot.slot is not None:
            return boot.slot
        if self.readings.slot is not None:
            return self.readings.slot
        return f"{boot.offset:#x}" if boot is not None and boot.offset is not None else None

    def where(self) -> str:
        """`place` in words."""
        place, offset = self.place, self.boot.offset if self.boot is not None else None
        at = f" at {offset:#x}" if offset is not None and place != f"{offset:#x}" else ""
        return f"from {place}{at}" if place else "from a slot that nothing tells"


@dataclass(frozen=True, slots=True)
class Match:
    """How what runs compares with an image: what of it was seen, and whether it is the same."""

    same: bool | None
    """None: nothing was seen that would tell."""
    seen: tuple[str, ...]


def first_try(boot: BootRecord | None, boots: Sequence[BootRecord]) -> BootRecord | None:
    """The boot of `boots` that `boot` is a further try of; None: of none.

    A ROM that cannot read the flash yet, as of a supply that rises slowly, is started anew by its watchdog, in which
    neither a bootloader nor an app had a part.
    """
    found = boot
    for each in reversed(boots):
        if found is None or found.caused_by is not None:
            break
        if each.number < found.number:
            if each.outcome is not Outcome.ROM_FAILED:
                break
            found = each
    return found if found is not boot else None


def unsteady(boot: BootRecord | None, later: Sequence[BootRecord] = ()) -> str | None:
    """Why what `boot` started does not count as running: it died, or the unit began anew by itself; None: it runs."""
    if boot is None:
        return None
    if boot.panic is not None:
        return f"it dies: {boot.panic}"
    again = next((each for each in later if each.number > boot.number and each.caused_by is None), None)
    if again is not None:
        last = next((each for each in reversed(boot.errors) if each.phase == "app"), None)
        said = f", after it printed '{last}'" if last is not None else ""
        return f"it started again by itself ({again.reset_reason or 'reset reason not printed'}){said}"
    return None


MIN_DIGITS = 8
"""Of a digest, for it to tell anything: ESP-IDF prints no fewer."""

Fact = tuple[str, Callable[[ImageFacts], bool]]
"""What was seen, in words, and whether an image fits it."""


def matches(image: ImageFacts, boot: BootRecord | None, readings: Readings | None = None) -> Match:
    """Whether what `boot` runs is `image`, by everything that was printed or read.

    What contradicts always counts; what agrees counts only if it does not agree with the rival as well.
    """
    facts = list(_facts(boot, readings or Readings()))
    wrong = tuple(text for text, fits in facts if not fits(image))
    # Of one project, and of a few digits, there are many apps: they tell something only where they do not fit.
    if boot is not None and boot.project is not None and boot.project != image.project:
        wrong = (*wrong, f"the log says project {boot.project}")
    elf = _elf_digits(boot)
    if len(elf) < MIN_DIGITS and not image.elf_sha256.startswith(elf):
        wrong = (*wrong, f"ELF SHA-256 {elf}…")
    if wrong:
        # What contradicts is what a reader must see.
        return Match(False, wrong)
    rival = image.rival
    telling = tuple(text for text, _ in facts)
    if not any(rival is None or not fits(rival) for _, fits in facts):
        return Match(None, tuple(f"{text}, as both apps would" for text in telling))
    return Match(True, telling)


def _elf_digits(boot: BootRecord | None) -> str:
    return (boot.elf_sha256 or "").rstrip(".").lower() if boot is not None else ""


def _facts(boot: BootRecord | None, said: Readings) -> Iterator[Fact]:
    if boot is not None and boot.version is not None:
        yield f"the log says version {boot.version}", lambda image: image.version == boot.version
    elf = _elf_digits(boot)
    if len(elf) >= MIN_DIGITS:
        yield f"ELF SHA-256 {elf}…", lambda image: image.elf_sha256.startswith(elf)
    if said.version is not None:
        yield f"the witness says version {said.version}", lambda image: image.version == said.version
    if said.image is not None:
        digest = said.image.lower()
        yield (
            f"the witness says image SHA-256 {digest[:SHOWN_DIGITS]}…",
            lambda image: (
                len(digest) >= MIN_DIGITS
                and any(each.startswith(digest) for each in (image.image_sha256, image.file_sha256))
            ),
        )


def same_place(one: Seen, other: Seen) -> bool | None:
    """Whether both started their app from the same slot; None: nothing tells, as of a label beside an offset."""
    boots = [each.boot for each in (one, other)]
    offsets = {boot.offset for boot in boots if boot is not None and boot.offset is not None}
    if len(offsets) == 2:
        return False
    if offsets and all(boot is not None and boot.offset is not None for boot in boots):
        return True
    places = one.place, other.place
    if None in places or len({str(place).startswith("0x") for place in places}) == 2:
        return None
    return places[0] == places[1]
