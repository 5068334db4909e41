"""What the first boot of a board that enciphers itself leaves when it is cut off, and what leads out of that."""

from __future__ import annotations

from collections.abc import Callable

from harness.board import Board
from harness.build.flash_layout import lay_out
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
from harness.say import Say

STEP = "first boot"

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
    sign="digest unnamed for good",
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
    shows="Invalid key state",
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
        "development only, by the host over the UART: burn what the key lacks, write everything through the ROM's own "
        "encryption, burn the counter"
    ),
    steps=(STEP,),
    sign="release out of reach",
)
_KEY_SPOILED = Window(
    name="key spoiled",
    shows="Invalid key state",
    does="its bootloader finds half a key in the only block that there is, and refuses to start anything",
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
WINDOWS = (
    _UNNAMED_FOREVER,
    _UNNAMED,
    _KEY_READABLE_FOREVER,
    _KEY_SPOILED,
    _HALF_A_KEY,
    _FROZEN_TOO_EARLY,
    _KEY_LEFT_OPEN,
    _HALF_ENCIPHERED,
    _NOT_FOR_GOOD,
)
"""The first one whose signs there are is the one that it is."""


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
        wanted = "development" if window is _FROZEN_TOO_EARLY else demand.profile.encryption.value
        if running.encryption != wanted:
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


def finish_by_host(board: Board) -> None:
    """What its bootloader would have done, done over the UART: the ROM enciphers with a key that only it has.

    Raises:
        BoardError: a burn or write does not take.
    """
    assert board.app is not None
    protect_key(board)
    regions = lay_out(board.app, encrypts=True).regions
    with board.rom() as session:
        for region in regions:
            session.write_flash([(region.offset, region.data)], encrypt=True)
    with board.rom(writes_flash=False) as session:
        session.burn_fuses({board.chip.fuses.counter: 1})


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
    _HALF_A_KEY: protect_key,
    _KEY_LEFT_OPEN: protect_key,
    _FROZEN_TOO_EARLY: finish_by_host,
}
