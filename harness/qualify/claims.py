"""What is claimed of a unit, and what the evidence makes of it. Pure: boot records and readings in, standings out.

A claim is proven by something that was printed, served or read. Silence proves nothing, and neither does a boot whose
app says neither version nor ELF digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.console.boot_record import BootRecord
from harness.qualify.sighting import (
    ImageFacts,
    Readings,
    Seen,
    matches,
    place_of,
    same_place,
    where_of,
)
from harness.report.verdict import Claim, Standing

PROFILE = "release-mode"
SECURE_BOOT = "secure-boot"
CHIP = "chip"
RUNS_BEFORE = "runs-before"
SERVED = "update-served"
UPDATE = "good-update"
CONFIRMED = "confirmed"
SURVIVES = "survives-reset"
BACK = "update-back"
SERVED_BACK = "back-served"
CONFIRMED_BACK = "back-confirmed"
SURVIVES_BACK = "back-survives-reset"
END = "end-state"
MAY_SHIP = "may-ship"
CARRIED_OUT = "carried-out"
ROLLBACK = "rollback"

CLAIMS: Mapping[str, str] = {
    PROFILE: "the unit is in the demanded security profile",
    SECURE_BOOT: "secure boot v2 is on",
    CHIP: "the unit is the chip that its entry in boards.yaml says",
    RUNS_BEFORE: "the unit runs the version that is to be updated",
    SERVED: "the update was fetched, and it is the demanded one",
    UPDATE: "the new version runs, from another slot",
    CONFIRMED: "the new version is confirmed",
    SURVIVES: "the new version runs again after a reset",
    SERVED_BACK: "the first version was fetched again, and it is the demanded one",
    BACK: "the first version runs again, from another slot",
    CONFIRMED_BACK: "the first version is confirmed again",
    SURVIVES_BACK: "the first version runs again after a reset",
    "refuses-wrong-key": "an update that another key enciphered leaves the old version running",
    "refuses-wrong-slot": "an update that was enciphered for another slot leaves the old version running",
    "refuses-plaintext": "a plaintext update leaves the old version running",
    "refuses-ciphertext": "an enciphered update leaves the old version running",
    "refuses-truncated": "a download that ends half way leaves the old version running",
    "refuses-flipped-byte": "an update with one wrong bit leaves the old version running",
    "refuses-noise": "something that is no image leaves the old version running",
    "refuses-other-certificate": "a server with another certificate leaves the old version running",
    "survives-cut-download": "a cut in the middle of the download leaves the old version running",
    "survives-cut-at-end": "a cut when the download is complete leaves a version that runs",
    ROLLBACK: "a version that is reset before it has confirmed itself gives way to the one before",
    END: "the unit is left as was stated",
    MAY_SHIP: "nothing known here speaks against shipping the unit",
    CARRIED_OUT: "the qualification was carried out to its end",
}
"""Every claim by its key, as ``requirements`` in qualify.yaml names it."""

DEMANDABLE = tuple(key for key in CLAIMS if key != CARRIED_OUT)
"""What a requirement may name; that it came to its end is claimed only of one that did not."""

SACRIFICIAL = (*(key for key in CLAIMS if key.startswith(("refuses-", "survives-cut"))), ROLLBACK)
"""Claims whose cases write, or interrupt, something else than a good update."""

NOT_CONFIRMED_WORDS = frozenset(
    {"no", "0", "false", "pending", "pending_verify", "new", "invalid", "aborted", "undefined"}
    | {"unconfirmed", "not confirmed", "not_confirmed"}
)
"""What names a state that is not confirmed. What is in neither set says nothing."""

_IDF_STATE = "esp_ota_img_"


@dataclass(frozen=True, slots=True)
class Judged:
    """One claim with its key, and the line of the log that shows it."""

    key: str
    claim: Claim
    line: int | None = None

    @classmethod
    def of(cls, key: str, standing: Standing, evidence: str, line: int | None = None) -> Judged:
        """The claim `key` in that standing; proven or failed without evidence is not proven."""
        if not evidence and standing is not Standing.NOT_APPLICABLE:
            standing, evidence = Standing.NOT_PROVEN, "nothing was seen"
        return cls(key, Claim(CLAIMS[key], standing, evidence), line)

    @property
    def standing(self) -> Standing:
        return self.claim.standing


def judge_running(
    key: str,
    image: ImageFacts,
    boot: BootRecord | None,
    readings: Readings | None = None,
    *,
    falls: str | None = None,
) -> Judged:
    """The claim `key`: that `boot` runs `image`. `falls`: see `unsteady`."""
    match = matches(image, boot, readings)
    line = boot.first_line if boot is not None else None
    if match.same is None and boot is None:
        seen = "; ".join(("the log shows no boot of an app", *match.seen))
        return Judged.of(key, Standing.NOT_PROVEN, seen)
    if match.same is None and boot is not None:
        if not boot.app_started:
            why = boot.summary()
            return Judged.of(
                key, Standing.FAILED if boot.boot_errors else Standing.NOT_PROVEN, f"no app: {why}", line
            )
        seen = "; ".join(match.seen) or boot.summary()
        return Judged.of(key, Standing.NOT_PROVEN, f"nothing tells which app runs: {seen}", line)
    number = f"boot {boot.number}" if boot is not None else "no boot in the log,"
    seen = f"{number} {where_of(boot, readings)}: {'; '.join(match.seen)}"
    if not match.same:
        return Judged.of(key, Standing.FAILED, f"{image.version} was demanded; {seen}", line)
    if falls is not None:
        return Judged.of(key, Standing.FAILED, f"{seen}, but {falls}", line)
    return Judged.of(key, Standing.PROVEN, seen, line)


def judge_switch(
    key: str,
    image: ImageFacts,
    before: BootRecord | None,
    after: BootRecord | None,
    readings: Readings | None = None,
    readings_before: Readings | None = None,
    *,
    falls: str | None = None,
) -> Judged:
    """The claim `key`: that `image` runs now, and from another place than what ran before."""
    judged = judge_running(key, image, after, readings, falls=falls)
    if judged.standing is not Standing.PROVEN:
        return judged
    place = place_of(after, readings)
    if place is None:
        return Judged.of(
            key,
            Standing.NOT_PROVEN,
            f"{judged.claim.evidence}; nothing tells its slot: name witness.slot",
            judged.line,
        )
    was = place_of(before, readings_before)
    same = same_place((before, readings_before), (after, readings))
    if same:
        return Judged.of(
            key, Standing.FAILED, f"{judged.claim.evidence}; that is the slot of before", judged.line
        )
    moved = f"; before: {was}" if was else "; where it ran before is not known"
    if same is None and was is not None:
        moved += ", and nothing tells whether that is another slot"
    standing = Standing.PROVEN if same is False else Standing.NOT_PROVEN
    return Judged.of(key, standing, judged.claim.evidence + moved, judged.line)


def judge_same_place(
    key: str,
    image: ImageFacts,
    before: BootRecord | None,
    after: BootRecord | None,
    readings: Readings | None = None,
    readings_before: Readings | None = None,
    *,
    falls: str | None = None,
) -> Judged:
    """The claim `key`: that after a reset `image` runs, where it ran before."""
    judged = judge_running(key, image, after, readings, falls=falls)
    if judged.standing is not Standing.PROVEN:
        return judged
    if after is None:
        # It may never have been reset: whoever answers has perhaps run all the time.
        why = "no boot is in the log, so nothing shows that the reset reached it"
        return Judged.of(key, Standing.NOT_PROVEN, f"{judged.claim.evidence}, but {why}")
    if same_place((before, readings_before), (after, readings)) is False:
        was = place_of(before, readings_before)
        return Judged.of(key, Standing.FAILED, f"{judged.claim.evidence}; it was in {was}", judged.line)
    return judged


def judge_confirmed(key: str, boot: BootRecord | None, readings: Readings, *, demanded: str) -> Judged:
    """The claim `key`: that the running version is confirmed, by a witness or by a line with its otadata state.

    Args:
        demanded: ``valid``, or ``undefined`` for apps that are built without rollback.
    """
    if demanded == "undefined":
        return Judged.of(
            key, Standing.NOT_APPLICABLE, "qualify.yaml says that the app has no rollback: nothing to confirm"
        )
    if readings.confirmed is not None:
        said, line = f"the witness says '{readings.confirmed}'", readings.lines.get("confirmed")
        word = readings.confirmed.strip().lower()
        if word in readings.confirmed_words:
            return Judged.of(key, Standing.PROVEN, said, line)
        plain = word.removeprefix(_IDF_STATE)
        if plain in readings.confirmed_words:
            return Judged.of(key, Standing.PROVEN, said, line)
        if plain in NOT_CONFIRMED_WORDS:
            return Judged.of(key, Standing.FAILED, said, line)
        known = ", ".join(sorted(readings.confirmed_words))
        return Judged.of(
            key,
            Standing.NOT_PROVEN,
            f"{said}, which is none of: {known}; state in qualify.yaml what means so: witness.confirmed.is",
            line,
        )
    if boot is not None and (boot.confirmed or boot.ota_state == "valid"):
        return Judged.of(
            key, Standing.PROVEN, "the log says that its otadata state is valid", boot.first_line
        )
    return Judged.of(
        key,
        Standing.NOT_PROVEN,
        "no witness of it, and the log is silent: name witness.confirmed, or say 'end: {otadata: undefined}'",
    )


def judge_confirmed_later(
    said: Judged, image: ImageFacts, boot: BootRecord | None, readings: Readings | None = None
) -> Judged:
    """The claim `said`, that `image` is confirmed, after a reset: one that gave way to another was not."""
    match = matches(image, boot, readings)
    if said.standing is not Standing.PROVEN or match.same is not False:
        return said
    seen = f"{said.claim.evidence}, but after a reset another app runs: {'; '.join(match.seen)}"
    return Judged.of(said.key, Standing.FAILED, seen, said.line)


_SPOKEN: Mapping[str, tuple[str, ...]] = {
    "release": ("release",),
    "development": ("development",),
    "open": ("off",),
}


def judge_profile(profile: str, boot: BootRecord | None, rom: str | None, rom_by: str = "") -> Judged:
    """The claim that the unit is in `profile`, by what bootloader and start-up code print and by the ROM.

    Args:
        profile: the encryption's part of a profile: ``release``, ``development``, ``open``.
        rom: the profile that follows from eFuses or security info; None: they were not, or could not be, read.
        rom_by: from what it follows.
    """
    seen, holds = [], []
    line = boot.first_line if boot is not None else None
    # "off" is concluded from silence by the tracker: it proves nothing here.
    if boot is not None and boot.encryption not in (None, "off", "enabled"):
        seen.append(f"the log says flash encryption {boot.encryption}")
        holds.append(boot.encryption in _SPOKEN[profile])
    if rom is not None:
        seen.append(f"{rom} by {rom_by or 'the ROM'}")
        holds.append(rom == profile)
    if boot is not None and boot.encryption == "enabled" and profile == "open":
        seen.append("the log says that flash encryption is on")
        holds.append(False)
    if not seen:
        more = " (that flash encryption is on, not in which mode)" if boot and boot.encryption else ""
        return Judged.of(
            PROFILE, Standing.NOT_PROVEN, f"no line of the log says the mode{more}, and no eFuse was read"
        )
    return Judged.of(PROFILE, Standing.PROVEN if all(holds) else Standing.FAILED, "; ".join(seen), line)


def judge_chip(chip: str, boot: BootRecord | None) -> Judged | None:
    """The claim that the unit is a `chip`, by its banner; None: the log does not say which chip it is."""
    if boot is None or boot.chip is None:
        return None
    said = f"its log says {boot.chip}"
    if boot.chip == chip:
        return Judged.of(CHIP, Standing.PROVEN, said, boot.first_line)
    return Judged.of(CHIP, Standing.FAILED, f"{said}, its entry says {chip}", boot.first_line)


def judge_secure_boot(boot: BootRecord | None, rom: bool | None) -> Judged:
    """The claim that secure boot v2 is on: a ROM or bootloader that verified, or the security info."""
    seen = []
    if boot is not None and boot.rom_verified:
        seen.append("the ROM verified the bootloader")
    if boot is not None and boot.secure_boot and not seen:
        seen.append("the log says that secure boot is on")
    if rom is not None:
        seen.append(f"the ROM's security info says that it is {'on' if rom else 'off'}")
    line = boot.first_line if boot is not None else None
    if rom is False:
        return Judged.of(SECURE_BOOT, Standing.FAILED, "; ".join(seen), line)
    if boot is not None and boot.app_signature_verified and not seen:
        # A bootloader with "signed apps without secure boot" says so, too.
        also = "the bootloader verified the app, which it also does without secure boot"
        return Judged.of(SECURE_BOOT, Standing.NOT_PROVEN, also, line)
    return Judged.of(SECURE_BOOT, Standing.PROVEN if seen else Standing.NOT_PROVEN, "; ".join(seen), line)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What shows that the unit tried to take what it was offered."""

    bytes_sent: int | None
    """By the server here; None: nobody here sees it."""
    complaint: str | None = None
    """What the unit printed about it."""
    line: int | None = None
    decided: bool = True
    """Before it was reset it had given the update up, or restarted by itself; a cut decides by itself."""

    def text(self) -> str:
        """In words; empty when nothing shows it."""
        sent = f"{self.bytes_sent} bytes were sent to it" if self.bytes_sent else ""
        said = f"it printed '{self.complaint}'" if self.complaint else ""
        return "; ".join(filter(None, (sent, said)))


def judge_survival(
    key: str,
    attempt: Attempt,
    old: ImageFacts,
    new: ImageFacts,
    boot: BootRecord | None,
    readings: Readings | None = None,
    *,
    falls: str | None = None,
    new_may_run: bool = False,
    before: Seen = (None, None),
) -> Judged:
    """The claim `key`: that after a bad update, or a cut, the old version boots (or also the new, where that is right).

    Without a sign that the unit tried at all it is not proven, however well the old version boots. `before`: the boot
    before it; what runs from another slot than then is not what was left running.
    """
    tried = attempt.text()
    if boot is None or not boot.app_started:
        seen = boot.summary() if boot is not None else "no boot"
        standing = Standing.FAILED if tried and boot is not None else Standing.NOT_PROVEN
        return Judged.of(
            key,
            standing,
            f"no app was seen to start afterwards ({seen}); {tried or 'nor that the unit tried'}",
            boot.first_line if boot is not None else None,
        )
    is_old, is_new = matches(old, boot, readings), matches(new, boot, readings)
    good = is_old.same or (new_may_run and is_new.same)
    if is_old.same is None:
        seen = "; ".join(is_old.seen) or boot.summary()
        return Judged.of(key, Standing.NOT_PROVEN, f"nothing tells which app runs: {seen}", boot.first_line)
    match = is_old if is_old.same or not is_new.same else is_new
    seen = f"boot {boot.number} {where_of(boot, readings)}: {'; '.join(match.seen)}"
    if not good:
        return Judged.of(key, Standing.FAILED, f"{seen}; {tried}".rstrip("; "), boot.first_line)
    if falls is not None:
        return Judged.of(key, Standing.FAILED, f"{seen}, but {falls}; {tried}".rstrip("; "), boot.first_line)
    if not new_may_run and same_place(before, (boot, readings)) is False:
        seen += f", but before it ran from {place_of(*before)}"
        return Judged.of(key, Standing.FAILED, f"{seen}; {tried}".rstrip("; "), boot.first_line)
    if not tried:
        return Judged.of(
            key,
            Standing.NOT_PROVEN,
            f"{seen}, but nothing shows that the unit tried to take it",
            boot.first_line,
        )
    if not attempt.decided:
        return Judged.of(
            key,
            Standing.NOT_PROVEN,
            f"{tried}; {seen}, but nothing shows that the unit had given it up before it was reset: name witness.failed",
            boot.first_line,
        )
    return Judged.of(key, Standing.PROVEN, f"{tried}; then {seen}", boot.first_line)
