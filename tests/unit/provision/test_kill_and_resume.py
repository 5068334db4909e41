"""A kill at any moment loses no key and leaves a board that the next run finishes."""

from __future__ import annotations

import dataclasses
import functools
import random
import tempfile
from pathlib import Path

import pytest
from fuse_bench import MAC, Bench, Killed, boot_key
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.chips import ESP32, ESP32C2, ESP32C3, ESP32S2, Chip
from harness.formats.flash_encryption import encrypt, pad_to_block
from harness.provision import Lock, Profile, profile_of
from harness.vault import verify

CASES = [
    (ESP32C3, Profile.RELEASE, Lock.SECURE_DOWNLOAD),
    (ESP32C3, Profile.RELEASE, Lock.DOWNLOAD_OFF),
    (ESP32, Profile.RELEASE, Lock.NONE),
    (ESP32, Profile.RELEASE, Lock.DOWNLOAD_OFF),
    (ESP32C3, Profile.DEVELOPMENT, Lock.NONE),
    (ESP32C3, Profile.RELEASE_SBV2, Lock.SECURE_DOWNLOAD),
    (ESP32, Profile.RELEASE_SBV2, Lock.DOWNLOAD_OFF),
    (ESP32C3, Profile.CIPHERTEXT_ONLY, Lock.NONE),
    (ESP32C3, Profile.OPEN_SBV2, Lock.NONE),
    (ESP32, Profile.OPEN_SBV2, Lock.NONE),
    (ESP32S2, Profile.RELEASE_SBV2, Lock.NONE),
]
EXHAUSTIVE = [CASES[0], CASES[3], CASES[4], CASES[5], CASES[8]]
SAMPLED = [CASES[6], CASES[10], (ESP32C2, Profile.RELEASE_SBV2, Lock.NONE)]
"""Every fourth moment: what differs from the others is how blocks are burned."""


def check_finished(bench: Bench, profile: Profile, lock: Lock) -> None:
    """The board is what was wanted, with the vault's one key, and the next run has nothing to do."""
    chip = bench.chip
    assert verify(bench.vault).ok
    if profile.encrypts:
        key = bench.vault.flash_key(MAC)
        assert bench.board.flash_key() == key
    else:
        key = None
    for region in bench.regions:
        plain = pad_to_block(region.data)
        wanted = encrypt(chip.cipher, key, region.offset, plain) if key is not None else plain
        found = bench.board.flash[region.offset : region.offset + len(plain)]
        assert found == wanted, region.name
    record = bench.records.read(MAC)
    assert record is not None
    assert (record.profile, record.lock) == (profile, lock)
    assert record.key_id == (bench.vault.key(MAC).key_id if profile.encrypts else None)
    if profile.secure_boot:
        assert bench.board.raw(chip.secure_boot.enable) == 1
        assert list(record.digests.values()) == [bench.boot_keys[0].digest.hex()]
    assert bench.vault.intent(MAC) is None
    again = bench.plan(profile, lock)
    assert again.empty if profile.encrypts else not again.burns
    if lock is Lock.NONE:
        assert profile_of(bench.look()).missing_boot == ()


@functools.cache
def events_of(chip: Chip, profile: Profile, lock: Lock) -> tuple[str, ...]:
    """Every moment of a clean run at which something can die."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(chip, Path(folder))
        bench.run(profile, lock)
        return tuple(bench.board.plug.events)


@pytest.mark.parametrize(
    ("chip", "profile", "lock", "step"),
    [*((*case, 1) for case in EXHAUSTIVE), *((*case, 4) for case in SAMPLED)],
    ids=lambda each: getattr(each, "value", None) or getattr(each, "name", None),
)
def test_a_kill_at_every_moment_of_a_run(chip, profile, lock, step, tmp_path):
    events = events_of(chip, profile, lock)
    burns = events.count("before a burn")
    assert burns >= (4 if profile.encryption is Profile.RELEASE else 3)
    # With secure boot there are twice as many moments, and most of them are those of the profile without it.
    for number, event in list(enumerate(events))[:: step + profile.secure_boot]:
        bench = Bench(chip, tmp_path / str(number))
        bench.board.plug.reset(number)
        with pytest.raises(Killed, match=event):
            bench.run(profile, lock)
        key_before = bench.vault.key(MAC)
        bench.board.plug.reset(None)
        bench.run(profile, lock)
        where = f"killed at event {number} of {len(events)}: {event}"
        assert key_before is None or bench.vault.key(MAC) == key_before, where
        try:
            check_finished(bench, profile, lock)
        except AssertionError as failure:
            raise AssertionError(where) from failure


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    case=st.sampled_from([*CASES[:4], *CASES[5:]]), kills=st.lists(st.integers(0, 45), min_size=2, max_size=5)
)
def test_several_kills_in_a_row(case, kills, tmp_path_factory):
    chip, profile, lock = case
    bench = Bench(chip, tmp_path_factory.mktemp("kills"))
    for number in kills:
        bench.board.plug.reset(number)
        try:
            bench.run(profile, lock)
        except Killed:
            continue
    bench.board.plug.reset(None)
    bench.run(profile, lock)
    check_finished(bench, profile, lock)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=st.sampled_from(CASES), burn=st.integers(0, 14), seed=st.integers(0, 10**6))
def test_a_burn_of_which_only_some_bits_took(case, burn, seed, tmp_path_factory):
    chip, profile, lock = case
    folder = tmp_path_factory.mktemp("torn")
    events = events_of(chip, profile, lock)
    moments = [number for number, event in enumerate(events) if event == "before a burn"]
    bench = Bench(chip, folder / "torn")
    bench.board.plug.reset(moments[burn % len(moments)], tear=random.Random(seed))
    with pytest.raises(Killed):
        bench.run(profile, lock)
    bench.board.plug.reset(None)
    bench.run(profile, lock)
    check_finished(bench, profile, lock)
    public = boot_key(0).digest.hex()
    for other in bench.look().key_blocks:
        if other.digest == public:
            continue
        sealed = other.empty or not other.readable
        # Of a digest, half of which was burned, there is nothing to hide: but nobody may complete it.
        assert sealed or (profile.secure_boot and not other.writeable), f"{other.name} shows part of a key"


@pytest.mark.parametrize(
    ("profile", "lock"),
    [
        (Profile.DEVELOPMENT, Lock.NONE),
        (Profile.RELEASE, Lock.NONE),
        (Profile.RELEASE, Lock.SECURE_DOWNLOAD),
    ],
)
def test_a_kill_while_a_finished_board_is_flashed_again(profile, lock, tmp_path):
    """No eFuse tells that flash is half written: the intent does."""
    bench = Bench(ESP32C3, tmp_path)
    bench.run(profile, lock)
    bench.regions = (*bench.regions[:3], dataclasses.replace(bench.regions[3], data=b"\xe9" + b"new" * 5000))
    programs = len(bench.board.programs)
    kills = 0
    for number in range(100):
        bench.board.plug.reset(number)
        try:
            bench.carry_out(bench.plan(profile, lock, reflash=bench.vault.intent(MAC) is None))
            break
        except Killed:
            kills += 1
            assert bench.vault.intent(MAC) is None or bench.plan(profile, lock).writes
    bench.board.plug.reset(None)
    assert kills > 5
    assert len(bench.board.programs) == programs
    check_finished(bench, profile, lock)


def test_what_was_known_before_the_lock_is_not_lost_with_it(tmp_path):
    bench = Bench(ESP32C3, tmp_path)
    events = events_of(ESP32C3, Profile.RELEASE, Lock.SECURE_DOWNLOAD)
    last_burn = len(events) - 1 - events[::-1].index("after a burn")
    bench.board.plug.reset(last_burn)
    with pytest.raises(Killed):
        bench.run(Profile.RELEASE)
    bench.board.plug.reset(None)
    assert bench.look().mac is None
    plan = bench.plan(Profile.RELEASE)
    assert [step.do for step in plan.steps] == ["write-record"]
    record = bench.carry_out(plan).record
    assert record.fuses["SPI_BOOT_CRYPT_CNT"] == 7
    assert set(record.flashed) == {region.name for region in bench.regions}
    assert record.key_block == "BLOCK_KEY0"
    assert record.lock is Lock.SECURE_DOWNLOAD


@pytest.mark.parametrize("chip", [ESP32, ESP32C3], ids=lambda chip: chip.name)
def test_a_run_that_was_killed_towards_development_can_go_on_to_release(chip, tmp_path):
    events = events_of(chip, Profile.DEVELOPMENT, Lock.NONE)
    for number in range(2, len(events), 3):
        bench = Bench(chip, tmp_path / str(number))
        bench.board.plug.reset(number)
        with pytest.raises(Killed):
            bench.run(Profile.DEVELOPMENT, Lock.NONE)
        bench.board.plug.reset(None)
        bench.run(Profile.RELEASE, Lock.NONE)
        check_finished(bench, Profile.RELEASE, Lock.NONE)


def test_the_first_snapshot_survives_the_resumed_run(tmp_path):
    bench = Bench(ESP32C3, tmp_path)
    first = bench.look()
    bench.board.plug.reset(12)
    with pytest.raises(Killed):
        bench.run(Profile.RELEASE)
    begun = bench.vault.intent(MAC)
    assert begun.fuses == first.fuses
    bench.board.plug.reset(2)
    with pytest.raises(Killed):
        bench.run(Profile.RELEASE)
    assert bench.vault.intent(MAC).fuses == first.fuses
    assert bench.plan(Profile.RELEASE).goes_on
