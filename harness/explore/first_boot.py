"""What the first boot of a board that enciphers itself leaves when it is cut off, and what leads out of that."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from harness.board import Board
from harness.chips import KEY_PURPOSE_NUMBERS
from harness.errors import HarnessError
from harness.explore.bench import SAFE
from harness.explore.blank_bench import BlankBench, flash_plaintext
from harness.explore.live_cut import LiveCut, await_strike
from harness.explore.windows import Proof, Window
from harness.lab import Lab
from harness.links.link import BootMode
from harness.links.twin import TwinLink
from harness.preparation import Demand
from harness.provision.key_blocks import flash_key_blocks, holds
from harness.provision.session import KeyToBurn
from harness.say import Say

STEP = "first boot"

_NOTHING_STARTS = "No bootable app partitions"

_HALF_ENCIPHERED = Window(
    name="half enciphered",
    shows="invalid header",
    does="the ROM reads an enciphered bootloader as it is: 'invalid header', again and again",
    why="ESP-IDF's bootloader enciphers itself first and burns the counter last; until then encryption is off",
    way_out=(
        "flash everything again as plaintext over the UART: its download mode is open until an app that locks it has "
        "run; the bootloader then takes the key that is there"
    ),
    steps=(STEP,),
)
_UNNAMED_FOREVER = Window(
    name="digest without its purpose, frozen",
    shows="secure boot verification failed",
    does="secure boot is on, and the ROM finds no key that it trusts: it starts nothing",
    why=(
        "ESP-IDF's bootloader burns purpose, its write protection and SECURE_BOOT_EN in one go, and the chip blows one "
        "bit after another"
    ),
    way_out="no purpose can be given to the digest any more: the board is sacrificed",
    steps=(STEP,),
    sign="unnamed for good",
    leads_out=False,
)
_UNNAMED = Window(
    name="digest without its purpose",
    shows="secure boot verification failed",
    does=_UNNAMED_FOREVER.does,
    why=_UNNAMED_FOREVER.why,
    way_out="burn the purpose of the digest's block over the UART (espefuse); the bootloader then goes on by itself",
    steps=(STEP,),
)
_KEY_READABLE_FOREVER = Window(
    name="key readable for good",
    shows="Initialization of Flash Encryption key failed",
    does="its bootloader finds a key that is not read-protected, and refuses to start anything",
    why=(
        "with secure boot ESP-IDF's bootloader burns the read protection of its key and the write protection of RD_DIS "
        "in one go"
    ),
    way_out=(
        "no key can be read-protected any more: the board is sacrificed. A key that the host burns before has no such "
        "window"
    ),
    steps=(STEP,),
    sign="key readable for good",
    leads_out=False,
)
_FROZEN_TOO_EARLY = Window(
    name="frozen too early",
    shows="Initialization of Flash Encryption key failed",
    does="its bootloader cannot burn what is write-protected already, and starts nothing",
    why=(
        "ESP-IDF's bootloader burns fuses and the write protection of the same fuses in one go; what was left out stays "
        "open for good, and release is out of reach"
    ),
    way_out=(
        "over the UART: burn what the key lacks, and two bits of the counter (encryption is off with them, and the "
        "bootloader burns no other fuse any more); flash again as plaintext. It enciphers then, for good; what was left "
        "open stays open"
    ),
    steps=(STEP,),
    sign="release out of reach",
)
_KEY_SPOILED = Window(
    name="key spoiled",
    shows=_NOTHING_STARTS,
    does="its bootloader finds half a key, or half a digest, in the only block that there is, and starts nothing",
    why="the chip has one key block, and its check bytes are burned with the key, one bit after another",
    way_out="no other key can be burned: the board is sacrificed",
    steps=(STEP,),
    sign="key beyond repair",
    leads_out=False,
)
_HALF_A_KEY = Window(
    name="half a key",
    shows="Invalid key state",
    does="its bootloader finds a key without protections, of which a part may be missing, and refuses to start anything",
    why="the block of ESP32's key has no check bytes, and its bits are blown one after another",
    way_out=(
        "burn the protections over the UART (espefuse), and it goes on by itself; since a part of the key may be zeros, "
        "burn more random bits into the block before"
    ),
    steps=(STEP,),
    sign="key may be half",
)
_KEY_LEFT_OPEN = Window(
    name="key not protected",
    shows="Invalid key state",
    does="its bootloader finds a key without all of its protections, and refuses to start anything",
    why=(
        "ESP-IDF's bootloader burns purpose and protections of its key in one go, and the chip blows one bit after "
        "another"
    ),
    way_out="burn the missing protections over the UART (espefuse); the bootloader then goes on by itself",
    steps=(STEP,),
)
_NOT_FOR_GOOD = Window(
    name="encrypted, not for good",
    shows="fe is 'development', not 'release'",
    does="it boots and takes updates; its app says that it was built for release and that encryption can be turned off",
    why="the counter's bits are blown one after another, and encryption is on with the first of them",
    way_out="burn the counter's other bits, or its write protection, over the UART (espefuse) or by the firmware",
    steps=(STEP,),
)
_ONLY_TOGETHER = Window(
    name="secure boot alone",
    shows="cannot be enabled separately, only together",
    does="secure boot is on and encryption is off, and its bootloader refuses to enable what is missing",
    why="on a chip with one key block ESP-IDF enables both in one go, and the chip blows one bit after another",
    way_out=_FROZEN_TOO_EARLY.way_out,
    steps=(STEP,),
)
_HALF_ENCIPHERED_ALONE = Window(
    name="half enciphered, secure boot alone",
    shows="invalid header",
    does=_HALF_ENCIPHERED.does,
    why=_HALF_ENCIPHERED.why,
    way_out=(
        "over the UART: burn two bits of the counter, without which its bootloader does not enable encryption behind "
        "secure boot, and flash again as plaintext"
    ),
    steps=(STEP,),
    sign="secure boot without encryption",
)
_HALF_A_DIGEST = Window(
    name="half a digest",
    shows="Secure Boot V2 verification failed",
    does="its bootloader finds half a digest in the block of secure boot, and takes no app's signature",
    why="the block of ESP32's digest has no check bytes, and its bits are blown one after another",
    way_out="burn the digest again over the UART (espefuse), which adds its missing bits; the bootloader then goes on",
    steps=(STEP,),
    sign="no check bytes",
)
_HALF_A_PAIR_FOREVER = Window(
    name="half a pair of keys, no other can be hidden",
    shows="Both AES-256 key blocks must be set",
    does="its bootloader finds one half of a key that takes two blocks, and refuses to start anything",
    why=_KEY_READABLE_FOREVER.why,
    way_out="another half could not be read-protected any more: the board is sacrificed",
    steps=(STEP,),
    sign="no key can be hidden",
    leads_out=False,
)
_HALF_A_PAIR = Window(
    name="half a pair of keys",
    shows="Both AES-256 key blocks must be set",
    does="its bootloader finds one half of a key that takes two blocks, and refuses to start anything",
    why=_KEY_LEFT_OPEN.why,
    way_out=(
        "burn another half into a free block over the UART (espefuse), protect both, then as for 'frozen too early'; "
        "release only where nothing was frozen"
    ),
    steps=(STEP,),
)
WINDOWS = (
    _KEY_SPOILED,
    _HALF_ENCIPHERED_ALONE,
    _ONLY_TOGETHER,
    _UNNAMED_FOREVER,
    _UNNAMED,
    _KEY_READABLE_FOREVER,
    _HALF_A_PAIR_FOREVER,
    _HALF_A_PAIR,
    _HALF_A_DIGEST,
    _HALF_A_KEY,
    _FROZEN_TOO_EARLY,
    _KEY_LEFT_OPEN,
    _HALF_ENCIPHERED,
    _NOT_FOR_GOOD,
)
"""The first one whose signs there are is the one that it is."""
_OFTEN_SHORT_OF_RELEASE = (_FROZEN_TOO_EARLY, _HALF_A_PAIR, _ONLY_TOGETHER)


def with_a_key_of_the_device(lab: Lab, chip: str, demand: Demand) -> BlankBench:
    """See `BlankBench.flashed`."""
    return BlankBench.flashed(lab, chip, demand, say=Say(quiet=True))


def with_a_key_of_the_host(lab: Lab, chip: str, demand: Demand) -> BlankBench:
    """See `BlankBench.flashed`."""
    return BlankBench.flashed(lab, chip, demand, host_key=True, say=Say(quiet=True))


def prove(lab: Lab, chip: str, demand: Demand, window: Window, cut: LiveCut) -> Proof:
    """Cuts a board off at its first boot, does what leads out of the window, and has it take an update."""
    return _proof(with_a_key_of_the_device(lab, chip, demand), demand, window, cut)


def prove_with_host_key(lab: Lab, chip: str, demand: Demand, window: Window, cut: LiveCut) -> Proof:
    """The same of a board whose key was burned before."""
    return _proof(with_a_key_of_the_host(lab, chip, demand), demand, window, cut)


def _proof(bench: BlankBench, demand: Demand, window: Window, cut: LiveCut) -> Proof:
    board = bench.board
    link = board.link
    assert isinstance(link, TwinLink)
    try:
        cut.arm(link)
        board.reset(BootMode.RUN)
        await_strike(link)
        link.control("power", on=True)
        WAYS_OUT[window](board)
        board.restart()
        running = board.status()
        wanted = {demand.profile.encryption.value}
        if window in _OFTEN_SHORT_OF_RELEASE:
            wanted |= {"development", "release"}
        if running.encryption not in wanted:
            return Proof(str(cut), f"afterwards it is {running.encryption}", "")
        answer = board.take(bench.release(SAFE).image, name="plain.bin", command="ota-stock")
        if not answer.ok or board.reboot().version != SAFE:
            return Proof(str(cut), f"it does not take its next update: {answer.error}", "")
    except HarnessError as error:
        return Proof(str(cut), error.message, "")
    finally:
        board.close()
        link.close()
    return Proof(str(cut), None, f"it is {running.encryption} then, and takes an update")


def protect_key(board: Board) -> None:
    """Burns what the blocks with a flash key lack of their protections.

    Raises:
        BoardError: a burn does not take.
    """
    with board.rom() as session:
        blocks = flash_key_blocks(session.state())
    with board.rom(writes_flash=False) as session:
        for block in blocks:
            purpose = block.purpose is not None and block.purpose_writeable
            session.protect_key(block.name, read=block.readable, write=block.writeable, purpose=purpose)


def name_digests(board: Board) -> None:
    """Gives the blocks that hold digests of boot keys their purpose.

    Raises:
        BoardError: a burn does not take.
    """
    assert board.firmware is not None
    chip = board.chip
    with board.rom() as session:
        blocks = session.state().key_blocks
    # Half a purpose is another one; its other bits can be added.
    fuses = {
        f"KEY_PURPOSE_{number}": KEY_PURPOSE_NUMBERS[purpose]
        for number, block in enumerate(blocks)
        for digest in board.firmware.digests
        for purpose in (chip.secure_boot.digest_purposes[digest.slot],)
        if block.purpose != purpose and holds(block, digest, chip)
    }
    with board.rom(writes_flash=False) as session:
        session.burn_fuses(fuses)


def complete_digests(board: Board) -> None:
    """Burns the digests of boot keys again into the block that they have, for the bits that are missing.

    Raises:
        BoardError: a burn does not take.
    """
    assert board.firmware is not None
    boot = board.chip.secure_boot
    with board.rom(writes_flash=False) as session:
        session.burn_keys(
            [KeyToBurn(str(boot.digest_block), None, digest.digest) for digest in board.firmware.digests[:1]]
        )


def complete_pair(board: Board) -> None:
    """Burns the half of a key of two blocks that is missing into a free one, and makes the bootloader go on.

    Raises:
        BoardError: a burn does not take.
    """
    with board.rom() as session:
        blocks = session.state().key_blocks
    there = {block.purpose for block in blocks}
    missing = [purpose for purpose in board.chip.fuses.key_purposes if purpose not in there]
    free = [block for block in blocks if block.unused]
    keys = [
        KeyToBurn(block.name, purpose, secrets.token_bytes(32))
        for block, purpose in zip(free, missing, strict=False)
    ]
    with board.rom(writes_flash=False) as session:
        session.burn_keys(keys)
    finish_by_host(board)


def finish_by_host(board: Board) -> None:
    """Makes its bootloader leave the fuses alone: with two bits in the counter it only enciphers, and burns a third.

    Raises:
        BoardError: a burn or write does not take.
    """
    protect_key(board)
    with board.rom(writes_flash=False) as session:
        count = session.state().crypt_count
        while bin(count).count("1") not in (2, 4, 6):
            count |= count + 1
        if count != session.state().crypt_count:
            session.burn_fuses({board.chip.fuses.counter: count})
    flash_plaintext(board)


def fill_counter(board: Board) -> None:
    """Burns the counter's other bits, and its write protection where release has it.

    Raises:
        BoardError: the burn does not take.
    """
    fuses = board.chip.fuses
    with board.rom(writes_flash=False) as session:
        if session.state().crypt_count != fuses.counter_release:
            session.burn_fuses({fuses.counter: fuses.counter_release})
        if fuses.release_write_protect == fuses.counter:
            session.write_protect(fuses.counter)


WAYS_OUT: dict[Window, Callable[[Board], None]] = {
    _HALF_ENCIPHERED: flash_plaintext,
    _NOT_FOR_GOOD: fill_counter,
    _UNNAMED: name_digests,
    _HALF_A_DIGEST: complete_digests,
    _HALF_A_PAIR: complete_pair,
    _ONLY_TOGETHER: finish_by_host,
    _HALF_ENCIPHERED_ALONE: finish_by_host,
    _HALF_A_KEY: protect_key,
    _KEY_LEFT_OPEN: protect_key,
    _FROZEN_TOO_EARLY: finish_by_host,
}
