"""What is claimed of a unit, and what the evidence makes of it. Pure: boot records and readings in, standings out.

A claim is proven by something that was printed, served or read. Silence proves nothing, and neither does a boot whose
app says neither version nor ELF digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.console.boot_record import BootRecord
from harness.console.reset_reason import ResetKind
from harness.qualify.sighting import ImageFacts, Readings, Seen, matches, same_place
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

    def but(self, standing: Standing, more: str) -> Judged:
        """The same claim in that standing, with `more` behind its evidence."""
        return Judged.of(self.key, standing, self.claim.evidence + more, self.line)


def judge_running(key: str, image: ImageFacts, seen: Seen) -> Judged:
    """The claim `key`: that `image` runs. All claims of what runs begin with this one, and add to it.

    Without a boot in the log nothing shows that whoever answers is the unit, or has started at all; and what
    start-up code prints of an app does not show that the app came up.
    """
    boot = seen.boot
    match = matches(image, boot, seen.readings)
    if boot is None:
        told = "; ".join(("the log shows no boot of an app", *match.seen))
        return Judged.of(key, Standing.FAILED if match.same is False else Standing.NOT_PROVEN, told)
    if match.same is not False and not seen.has_app:
        standing = Standing.FAILED if boot.boot_errors else Standing.NOT_PROVEN
        # An app without a log says its version all the same, in a line of its own.
        todo = "" if boot.boot_errors else "; if it prints no log of ESP-IDF's, name witness.ready"
        return Judged.of(key, standing, f"no app was seen to start: {boot.summary()}{todo}", seen.line)
    if match.same is None:
        told = "; ".join(match.seen) or boot.summary()
        return Judged.of(key, Standing.NOT_PROVEN, f"nothing tells which app runs: {told}", seen.line)
    told = f"boot {boot.number} {seen.where()}: {'; '.join(match.seen)}"
    if not match.same:
        return Judged.of(key, Standing.FAILED, f"{image.version} was demanded; {told}", seen.line)
    if seen.falls is not None:
        return Judged.of(key, Standing.FAILED, f"{told}, but {seen.falls}", seen.line)
    return Judged.of(key, Standing.PROVEN, told, seen.line)


def judge_switch(key: str, image: ImageFacts, before: Seen, after: Seen) -> Judged:
    """The claim `key`: that `image` runs now, and from another place than what ran before."""
    judged = judge_running(key, image, after)
    if judged.standing is not Standing.PROVEN:
        return judged
    was = before.place
    if after.place is None:
        return judged.but(Standing.NOT_PROVEN, "; nothing tells its slot: name witness.slot")
    same = same_place(before, after)
    if same:
        return judged.but(Standing.FAILED, "; that is the slot of before")
    moved = f"; before: {was}" if was else "; where it ran before is not known"
    if same is None and was is not None:
        moved += ", and nothing tells whether that is another slot"
    return judged.but(Standing.PROVEN if same is False else Standing.NOT_PROVEN, moved)


NOT_BY_A_RESET = frozenset(
    {ResetKind.SOFTWARE, ResetKind.WATCHDOG, ResetKind.BROWNOUT, ResetKind.DEEP_SLEEP, ResetKind.GLITCH}
)
"""Reasons that a chip prints when it was not reset by its EN pin, its supply or its USB."""


def judge_same_place(key: str, image: ImageFacts, before: Seen, after: Seen) -> Judged:
    """The claim `key`: that after a reset `image` runs, where it ran before."""
    judged = judge_running(key, image, after)
    boot = after.boot
    if judged.standing is not Standing.PROVEN or boot is None:
        return judged
    if same_place(before, after) is False:
        return judged.but(Standing.FAILED, f"; it was in {before.place}")
    began = after.first_try or boot
    if began.caused_by is None:
        # It may never have been reset, and have started again by itself.
        return judged.but(Standing.NOT_PROVEN, ", but nothing shows that this boot came of the reset")
    # A supply that falls slowly is a brown-out to the chip.
    by_supply = began.reset_kind is ResetKind.BROWNOUT and began.caused_by.startswith("power:")
    if began.reset_kind in NOT_BY_A_RESET and not by_supply:
        why = f", but it came of {began.reset_reason}, not of the reset"
        return judged.but(Standing.NOT_PROVEN, why)
    return judged


def judge_switch_later(said: Judged, image: ImageFacts, seen: Seen) -> Judged:
    """The claim `said`, that `image` runs, after a reset: if another app runs then, only its log had said so.

    A rollback looks like that, and so does an app that prints what another would: neither is a unit that was updated.
    """
    match = matches(image, seen.boot, seen.readings)
    if said.standing is not Standing.PROVEN or match.same is not False:
        return said
    return said.but(Standing.NOT_PROVEN, f", but after a reset another app runs: {'; '.join(match.seen)}")


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


def judge_confirmed_later(said: Judged, image: ImageFacts, seen: Seen) -> Judged:
    """The claim `said`, that `image` is confirmed, after a reset: one that gave way to another was not."""
    match = matches(image, seen.boot, seen.readings)
    if said.standing is not Standing.PROVEN or match.same is not False:
        return said
    return said.but(Standing.FAILED, f", but after a reset another app runs: {'; '.join(match.seen)}")


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
    seen: Seen,
    *,
    before: Seen | None = None,
    new_may_run: bool = False,
) -> Judged:
    """The claim `key`: that after a bad update, or a cut, the old version boots (or also the new, where that is right).

    Without a sign that the unit tried at all it is not proven, however well the old version boots. `before`: the boot
    before it; what runs from another slot than then is not what was left running.
    """
    tried = attempt.text()
    took_it = new_may_run and matches(new, seen.boot, seen.readings).same
    judged = judge_running(key, new if took_it else old, seen)
    if tried:
        judged = judged.but(judged.standing, f"; {tried}")
    if judged.standing is not Standing.PROVEN:
        dead = bool(tried) and seen.boot is not None and not seen.has_app
        return judged.but(Standing.FAILED if dead else judged.standing, "")
    if not new_may_run and before is not None and same_place(before, seen) is False:
        return judged.but(Standing.FAILED, f"; before it ran from {before.place}")
    if not tried:
        return judged.but(Standing.NOT_PROVEN, ", but nothing shows that the unit tried to take it")
    if not attempt.decided:
        why = "; nothing shows that the unit had given it up before it was reset: name witness.failed"
        return judged.but(Standing.NOT_PROVEN, why)
    return judged
