"""A board for tests: espefuse's own virtual eFuses, NOR flash in memory, and a plug that can be pulled anywhere."""

from __future__ import annotations

import functools
import hashlib
import importlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from espefuse import get_esp
from esptool.util import FatalError

from harness.chips import CHIPS, KEY_PURPOSE_NUMBERS, Chip
from harness.chips.efuses import efuse_geometry
from harness.errors import BoardError
from harness.formats.flash_encryption import encrypt, pad_to_block
from harness.provision import (
    ChipState,
    DeviceRecords,
    Download,
    FlashRegion,
    Lock,
    Outcome,
    Plan,
    Profile,
    SecurityInfo,
    StepEvent,
    carry_out,
    plan_for,
    unreachable_state,
)
from harness.provision.boot_keys import BootDigest
from harness.provision.burner import ChipFellSilentError, FuseBurner
from harness.provision.fuse_definitions import parse_once
from harness.provision.key_blocks import shares_one_block
from harness.provision.session import KeyToBurn
from harness.provision.steps import BurnDigest, BurnFuses, BurnKey, LockDownload, WriteProtect
from harness.provision.vendor_log import listening, vendor_log_installed
from harness.vault import KeyFile, Vault

MAC = "02:00:00:aa:bb:01"
FLASH_BYTES = 1 << 20
SECTOR = 0x1000


for _name in CHIPS:
    # The emulation parses espefuse's table, too: a tenth of a second for every virtual board.
    parse_once(_name)
    _fields = importlib.import_module(f"espefuse.efuse.{_name}.fields")
    _emulation = importlib.import_module(f"espefuse.efuse.{_name}.emulate_efuse_controller")
    _emulation.EfuseDefineFields = _fields.EfuseDefineFields  # type: ignore[attr-defined]


class Killed(BaseException):
    """Stands for SIGKILL or a power cut: nothing in the code may catch it."""


class Plug:
    """Counts what happens to the board and pulls the plug at the n-th event; None: never."""

    def __init__(self) -> None:
        self.pull_at: int | None = None
        self.tear: random.Random | None = None
        self.events: list[str] = []

    def event(self, what: str) -> None:
        """One moment at which a board or its harness can die."""
        if self.pull_at is not None and len(self.events) >= self.pull_at:
            raise Killed(what)
        self.events.append(what)

    def reset(self, pull_at: int | None, *, tear: random.Random | None = None) -> None:
        """From now on, die at event number `pull_at`; with `tear`, in the middle of the burn that is next then."""
        self.pull_at, self.events, self.tear = pull_at, [], tear


class VirtualBoard:
    """One chip. Its eFuses and flash outlive sessions, as on a bench."""

    def __init__(self, chip: Chip, *, mac: str = MAC, revision: int | None = None) -> None:
        self.chip = chip
        self.mac = mac
        self.plug = Plug()
        self.flash = bytearray(b"\xff" * FLASH_BYTES)
        self.log: list[str] = []
        self.programs: list[str] = []
        self.resets = 0
        self._truth: dict[str, bytes] = {}
        self.chip_memory = get_esp(virt=True, chip=chip.name)
        number = int.from_bytes(bytes.fromhex(mac.replace(":", "")), "big")
        place = efuse_geometry(chip.name).field("MAC")
        first = place.bit // 32
        self.set_cells(first, number & 0xFFFFFFFF, block=place.block)
        self.set_cells(first + 1, number >> 32, block=place.block)
        number = chip.min_chip_rev_full if revision is None else revision
        self.chip_memory.get_chip_revision = lambda: number
        self._hook()

    def _hook(self) -> None:
        memory = self.chip_memory
        copy, hide = memory.copy_blocks_wr_regs_to_rd_regs, memory.check_rd_protection_area

        def copied(*arguments: Any, **named: Any) -> None:
            blocks = [memory.Blocks.get(row).id for row in memory.Blocks.BLOCKS]
            if not any(memory.read_block(index, wr_regs=True).any(True) for index in blocks):
                copy(*arguments, **named)  # a plain read command
                return
            try:
                self.plug.event("before a burn")
            except Killed:
                if self.plug.tear is not None:
                    self._tear_burn(self.plug.tear, named.get("updated_block"))
                raise
            copy(*arguments, **named)
            self.programs.append("burn")
            hidden()
            self.plug.event("after a burn")

        def hidden() -> None:
            for row in memory.Blocks.BLOCKS:
                block = memory.Blocks.get(row)
                content = memory.read_block(block.id).bytes
                if block.id and any(content):
                    # Most significant byte first: the byte order of a key file.
                    # A part that was hidden meanwhile reads as zeros.
                    before = self._truth.get(block.name, bytes(len(content)))
                    self._truth[block.name] = bytes(a | b for a, b in zip(before, content, strict=True))
            hide()

        memory.copy_blocks_wr_regs_to_rd_regs = copied
        memory.check_rd_protection_area = hidden

    def _tear_burn(self, choice: random.Random, updated_block: int | None) -> None:
        """Only some of the bits take, as when the supply fails during a burn."""
        memory = self.chip_memory
        for row in memory.Blocks.BLOCKS:
            block = memory.Blocks.get(row)
            if updated_block is not None and block.id != updated_block:
                continue
            for word in range(block.len):
                bits = memory.read_reg(block.wr_addr + 4 * word) & choice.getrandbits(32)
                if memory.read_field("WR_DIS", bitstring=False) >> (block.write_disable_bit or 31) & 1 == 0:
                    memory.update_reg(block.rd_addr + 4 * word, 0xFFFFFFFF, bits)
            if block.id and self.chip.name != "esp32":
                # Three wrong bytes that the code repairs, or a failure beyond that.
                self.damage(block.id, choice.choice((3, 7)))
        memory.check_rd_protection_area()

    def damage(self, block: int, errors: int) -> None:
        """Wrong bytes in a Reed-Solomon block; more than 6 are beyond repair."""
        registers = self.chip_memory.REGS
        if hasattr(registers, "BLOCK_ERRORS"):
            register, mask, offset, fail_bit = registers.BLOCK_ERRORS[block]
        else:
            register, mask, offset = registers.BLOCK_NUM_ERRORS[block]
            fail_bit = registers.BLOCK_FAIL_BIT[block][1]
        failed = 1 << fail_bit if errors > 6 else 0
        self.chip_memory.update_reg(register, 0xFFFFFFFF, (errors & mask) << offset | failed)

    @staticmethod
    @functools.cache
    def blank(chip: Chip) -> ChipState:
        """The state of a new chip."""
        return VirtualBoard(chip).state()

    def set_cells(self, word: int, value: int, *, block: int = 0) -> None:
        """Raises bits of one word of a block as if they had always been there."""
        row = self.chip_memory.Blocks.get(self.chip_memory.Blocks.BLOCKS[block])
        self.chip_memory.update_reg(row.rd_addr + 4 * word, 0xFFFFFFFF, value)

    def set_fuses(self, **values: int) -> None:
        """Burns fields directly, as a factory or a former owner would have."""
        with self.quietly():
            self.burner().burn_fuses(values)

    def protect(self, *names: str) -> None:
        """Write-protects fields directly."""
        with self.quietly():
            for name in names:
                self.burner().write_protect(name)

    def burner(self) -> FuseBurner:
        """espefuse on the virtual chip."""
        return FuseBurner(self.chip_memory, self.chip)

    @contextmanager
    def quietly(self) -> Iterator[None]:
        """espefuse's talk goes to `log`."""
        with vendor_log_installed(), listening(self.log.append, None):
            yield

    def key(self, block: str) -> bytes | None:
        """What the hardware has in a key block, protected or not, in the byte order of a key file."""
        content = self._truth.get(block)
        if content is not None and shares_one_block(self.chip):
            return content[16:]  # the low half, most significant byte first
        return content

    def flash_key_places(self) -> list[str]:
        """The blocks that the hardware takes its flash key from, in the order of the key's bytes."""
        fuses = self.chip.fuses
        if fuses.key_purpose_field is None:
            return [fuses.key_storage_block]
        numbers = [KEY_PURPOSE_NUMBERS[purpose] for purpose in fuses.key_purposes]
        return [
            next(
                (f"BLOCK_KEY{n}" for n in range(6) if self.raw(f"KEY_PURPOSE_{n}") == number),
                "none",
            )
            for number in numbers
        ]

    def flash_key(self) -> bytes:
        """The flash key as the hardware has it, in the byte order of a key file."""
        return b"".join(self.key(block) or b"" for block in self.flash_key_places())

    def fuse(self, name: str) -> int:
        """Current value of a field."""
        return self.state().fuses[name]

    def raw(self, name: str) -> int:
        """A field as the hardware has it, without espefuse."""
        return int(self.chip_memory.read_field(name, bitstring=False))

    def state(self) -> ChipState:
        """As a fresh session reads it."""
        with self.session() as session:
            return session.state()

    @contextmanager
    def session(self) -> Iterator[VirtualSession]:
        """Reset into download mode, and one session."""
        self.resets += 1
        registers = self.chip_memory.REGS
        self.chip_memory.clean_blocks_wr_regs()
        self.chip_memory.write_reg(
            registers.EFUSE_REG_CMD if self.chip.name == "esp32" else registers.EFUSE_CMD_REG, 0
        )
        with self.quietly():
            if self.raw(self.chip.fuses.download_off):
                raise BoardError("connecting to the ROM: no answer", board=self.mac)
            secure = self.chip.fuses.secure_download
            yield VirtualSession(self, secure=secure is not None and bool(self.raw(secure)))


class VirtualSession:
    """What `execute` sees of a virtual board between two resets."""

    def __init__(self, board: VirtualBoard, *, secure: bool) -> None:
        self.board = board
        self.secure = secure
        self.on_progress: Callable[[int, int], None] | None = None
        self._fuses = None if secure else board.burner()
        self._burned = False
        self._stub = False

    @property
    def burned(self) -> bool:
        return self._burned

    @property
    def stub_running(self) -> bool:
        return self._stub

    def state(self) -> ChipState:
        if self._fuses is not None:
            return self._fuses.state()
        state = self.board.burner().state()
        boot = self.board.chip.secure_boot
        flags = 0x484 | int(state.is_set(boot.enable))
        flags |= sum(state.is_set(fuse) << 3 + slot for slot, fuse in enumerate(boot.revoke))
        purposes = tuple(state.fuses.get(f"KEY_PURPOSE_{number}", 0) for number in range(7))
        info = SecurityInfo(flags, state.crypt_count, purposes)
        return ChipState(state.chip_name, None, None, {}, frozenset(), frozenset(), (), Download.SECURE, info)

    def _burning(self) -> FuseBurner:
        assert self._fuses is not None, "eFuses are out of reach in Secure Download Mode"
        assert not self._stub, "burning goes through the ROM"
        self._burned = True
        return self._fuses

    def _vendor(self, act: Callable[[], None]) -> None:
        try:
            act()
        except (FatalError, SystemExit) as error:
            raise BoardError(str(error), board=self.board.mac) from error

    def burn_keys(self, keys: Sequence[KeyToBurn]) -> None:
        self._vendor(lambda: self._burning().burn_keys(keys))

    def protect_key(self, block: str, *, read: bool, write: bool, purpose: bool) -> None:
        self._vendor(lambda: self._burning().protect_key(block, read=read, write=write, purpose=purpose))

    def burn_fuses(self, fuses: Mapping[str, int]) -> None:
        self._vendor(lambda: self._burning().burn_fuses(fuses))

    def write_protect(self, fuse: str) -> None:
        self._vendor(lambda: self._burning().write_protect(fuse))

    def burn_lock(self, fuse: str) -> None:
        try:
            self._burning().burn_fuses({fuse: 1})
        except ChipFellSilentError:
            return

    def _need_reading(self) -> None:
        assert not self.secure, "nothing can be read in Secure Download Mode"
        assert not self._burned, "flash work wants a chip that was reset after its last burn"
        self._stub = True

    def write_flash(
        self,
        pieces: Sequence[tuple[int, bytes]],
        *,
        encrypt: bool = False,
        force: bool = False,
        skip_identical: bool = False,
    ) -> None:
        assert not self._burned, "flash work wants a chip that was reset after its last burn"
        self._stub = not self.secure
        fuses = self.board.chip.fuses
        manual = not self.board.raw(fuses.manual_encrypt_disable)
        encrypted = bin(self.board.raw(fuses.counter)).count("1") % 2
        if encrypt and not manual:
            raise BoardError("encrypt functionality in UART download mode disabled", board=self.board.mac)
        if not encrypt and not force and not manual and encrypted:
            raise BoardError("Flashing plaintext data may brick your device!", board=self.board.mac)
        for offset, data in pieces:
            raw = self._enciphered(offset, data) if encrypt else data
            if (
                skip_identical
                and not self.secure
                and bytes(self.board.flash[offset : offset + len(raw)]) == raw
            ):
                continue
            self.board.plug.event("before a flash write")
            sectors = -(-len(raw) // SECTOR) * SECTOR
            self.board.flash[offset : offset + sectors] = b"\xff" * sectors
            half = len(raw) // 2
            self.board.flash[offset : offset + half] = raw[:half]
            self.board.plug.event("half way through a flash write")
            self.board.flash[offset : offset + len(raw)] = raw
            if self.on_progress is not None:
                self.on_progress(len(raw), len(raw))

    def _enciphered(self, offset: int, data: bytes) -> bytes:
        board = self.board
        keys = [board.key(block) or b"" for block in board.flash_key_places()]
        if not all(keys):
            raise BoardError("Flash encryption key is not programmed.", board=board.mac)
        config = board.raw("FLASH_CRYPT_CONFIG") if board.chip.name == "esp32" else 0xF
        # esptool fills up what the chip shall encipher, with what erased flash holds.
        data = pad_to_block(data, board.chip.encrypted_write_align_bytes)
        return encrypt(board.chip.cipher, b"".join(keys), offset, data, flash_crypt_config=config)

    def read_flash(self, offset: int, size_bytes: int) -> bytes:
        self._need_reading()
        return bytes(self.board.flash[offset : offset + size_bytes])

    def flash_md5(self, offset: int, size_bytes: int) -> str:
        self._need_reading()
        return hashlib.md5(self.board.flash[offset : offset + size_bytes]).hexdigest()


class Bench:
    """A virtual board with its vault, records, and one firmware: what one harness run needs."""

    def __init__(self, chip: Chip, folder: Path, **board: Any) -> None:
        self.board = VirtualBoard(chip, **board)
        self.chip = chip
        secret = KeyFile.create(folder / "vault.key")
        self.vault = Vault.open(folder / "vault", secret, create=True)
        self.records = DeviceRecords(folder / "devices")
        self.regions = firmware(chip)
        self.boot_keys = (boot_key(0),)

    def look(self) -> ChipState:
        """The board's state as a run finds it."""
        try:
            return self.board.state()
        except BoardError:
            return unreachable_state(self.chip, self.board.mac)

    def plan(self, profile: Profile, lock: Lock | None = None, **more: Any) -> Plan:
        """What a run would plan now."""
        mac = self.board.mac
        named: dict[str, Any] = {
            "key": self.vault.key(mac) if profile is not Profile.OPEN else None,
            "regions": self.regions,
            "intent": self.vault.intent(mac),
            "record": self.records.read(mac),
            "signers": signed_with,
        }
        if profile.secure_boot:
            named["digests"] = self.boot_keys
            self.regions = signed(self.regions, *self.boot_keys)
            named["regions"] = self.regions
        return plan_for(self.look(), profile=profile, lock=lock, **{**named, **more})

    def carry_out(self, plan: Plan, **more: Any) -> Outcome:
        """Does it; every step's begin is a moment to die."""

        def on_step(event: StepEvent) -> None:
            if not event.done:
                self.board.plug.event(f"before {event.step.do}")

        named: dict[str, Any] = {"records": self.records, "regions": self.regions, "physical": False}
        return carry_out(plan, self.board.session, self.vault, on_step=on_step, **{**named, **more})

    def run(self, profile: Profile, lock: Lock | None = None, **more: Any) -> Outcome:
        """Plan and do."""
        return self.carry_out(self.plan(profile, lock, **more))


def burns_of(plan: Plan) -> list[str]:
    """What is burned, in order, in the words of a person at espefuse."""
    words: list[str] = []
    for step in plan.burns:
        if isinstance(step, BurnKey):
            beside = f" with {step.digest_purpose}" if step.digest is not None else ""
            words.append(f"key {step.burn_as} {step.purpose or ''}".strip() + beside)
        elif isinstance(step, BurnDigest):
            words.append(f"digest {step.burn_as} {step.purpose or ''}".strip())
        elif isinstance(step, BurnFuses):
            words.append(" ".join(f"{name}={value}" for name, value in step.fuses))
        elif isinstance(step, WriteProtect):
            words.append(f"write-protect {step.fuse}")
        elif isinstance(step, LockDownload):
            words.append(f"lock {step.fuse}{' FINAL' if step.final else ''}")
        else:
            words.append(step.text())
    return words


def boot_key(slot: int, name: str = "boot key") -> BootDigest:
    """A boot key for a slot: nothing but its digest matters to a planner."""
    return BootDigest(slot, hashlib.sha256(f"{name} {slot}".encode()).digest(), f"{name} {slot}")


_SIGNED = b"signed with "


def signed(regions: Sequence[FlashRegion], *keys: BootDigest) -> tuple[FlashRegion, ...]:
    """Bootloader and app with a mark that stands for signatures; one mark, whoever signed before."""
    mark = b"".join(_SIGNED + key.digest for key in keys)
    return tuple(
        replace(each, data=each.data.split(_SIGNED)[0] + mark) if each.data[0] == 0xE9 else each
        for each in regions
    )


def signed_with(image: bytes) -> tuple[bytes, ...]:
    """Reads the marks of `signed`."""
    return tuple(each[:32] for each in image.split(_SIGNED)[1:])


def firmware(chip: Chip) -> tuple[FlashRegion, ...]:
    """Small stand-ins at the places of the real images."""
    return (
        FlashRegion("bootloader", chip.bootloader_offset, image_head(chip) + bytes(range(256)) * 20),
        FlashRegion("partition-table", 0x10000, b"\xaa\x50" + bytes(0xBFE)),
        FlashRegion("otadata", 0x1D000, b"\xff" * 0x2000),
        FlashRegion("app", 0x20000, image_head(chip) + b"application " * 1000),
    )


def image_head(chip: Chip) -> bytes:
    """24 bytes of image header with the chip's id."""
    return bytes([0xE9, 1, 2, 0x20]) + bytes(8) + chip.chip_id.to_bytes(2, "little") + bytes(9) + b"\x01"
