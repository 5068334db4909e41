"""Follows one board's flash for a run's record: by the link's log of operations where it keeps one, else by hearsay."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.board import Board
from harness.errors import HarnessError
from harness.formats.otadata import SECTOR_BYTES
from harness.linked_board import DEFAULT_FLASH_BYTES
from harness.links.emulator_state import FLASH_FILE
from harness.links.flash_log import END_OF_FLASH_LOG
from harness.links.twin import TwinLink
from harness.provision.steps import Canary
from harness.report.flash_map import KnownFlash, partition_rows
from harness.report.flash_steps import Layout, Story, judge, last_otadata_answer, steps_of_log, steps_told
from harness.report.otadata_view import READ_BYTES, view_of_answer, view_of_raw
from harness.report.run_record import Content, FlashMap, FlashStep, OtadataView, Source

_BLANK = b"\xff" * SECTOR_BYTES


class FlashWatch:
    """What is known of the flash of `board`, from when it is opened. A board or link that is gone stops nothing."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._logs = "flash-log" in board.link.capabilities
        # A twin writes through to its file at every operation; what an emulator has in its file is behind.
        self._file: Path | None = board.link.state / FLASH_FILE if isinstance(board.link, TwinLink) else None
        self._next = self._end_of_log()
        self._known = KnownFlash(self._size())
        self._filled = False
        self._see_blank_sectors()

    @property
    def layout(self) -> Layout | None:
        """None before the board was planned for."""
        board = self._board
        if board.table is None or board.app is None:
            return None
        plan = board.plans[-1] if board.plans else None
        return Layout(
            board.chip,
            board.table,
            board.app.table_offset,
            encrypts=plan.profile.encrypts if plan is not None else board.encrypts,
            written=[step for each in board.plans for step in each.writes],
            canaries=frozenset(
                step.address for each in board.plans for step in each.steps if isinstance(step, Canary)
            ),
        )

    def known(self) -> KnownFlash:
        """What is known now, to look at later."""
        return self._known.copy()

    def map(self, known: KnownFlash | None = None) -> FlashMap | None:
        """What is, or was, `known`; None before the partition table is."""
        layout = self.layout
        if layout is None:
            return None
        rows = partition_rows(layout.chip, layout.table, layout.table_offset)
        return (known or self._known).map(rows)

    def catch_up(self) -> None:
        """What has changed since the last step belongs to none."""
        self.since(Story((), ()))

    def since(self, story: Story) -> tuple[FlashStep, ...]:
        """What has changed since the last call; `story` is what was said meanwhile."""
        layout = self.layout
        if layout is None:
            return ()
        if self._logs:
            try:
                operations, self._next = self._board.link.flash_log(self._next)
            except HarnessError:
                # Whoever uses the board next hears that it is gone.
                return ()
            judged = judge(operations, layout, story)
            for each in judged:
                operation, write = each.operation, each.operation.kind != "erase"
                self._note(operation.offset, operation.length, write, each.encrypted, "observed")
            steps = steps_of_log(judged, story)
        else:
            steps = steps_told(layout, story)
            for step in steps:
                for change in step.changes:
                    self._note(
                        change.offset, change.size, change.kind == "write", change.encrypted, step.source
                    )
        self._look_again(steps)
        if self._file is not None and not self._filled:
            self._infer_the_rest(layout)
        return steps

    def otadata(self, story: Story | None = None) -> OtadataView | None:
        """As it is now; where flash cannot be looked at, as the firmware said at the end of `story`."""
        layout = self.layout
        place = layout.table.otadata if layout is not None else None
        if layout is None or place is None:
            return None
        slots = len(layout.table.ota_slots)
        if self._file is None:
            last = last_otadata_answer(story) if story is not None else None
            return view_of_answer(last, slots=slots) if last is not None else None
        try:
            key = None
            if layout.encrypts:
                board = self._board
                if board.mac is None:
                    return None
                key = board.vault.flash_key(board.mac)
            first, second = (self._read(place.offset + at, READ_BYTES) for at in (0, SECTOR_BYTES))
            return view_of_raw(
                first, second, slots=slots, offset=place.offset, cipher=layout.chip.cipher, key=key
            )
        except (HarnessError, OSError):
            # A key that the device made for itself, or a state folder that is gone.
            return None

    @property
    def sees_otadata(self) -> bool:
        """It can be looked at without asking the firmware."""
        return self._file is not None

    def _note(self, offset: int, size: int, write: bool, encrypted: bool | None, source: Source) -> None:
        content: Content = "erased"
        if write:
            content = "unknown" if encrypted is None else "ciphertext" if encrypted else "plaintext"
        self._known.note(offset, size, content, source)

    def _look_again(self, steps: Sequence[FlashStep]) -> None:
        """An operation that failed, or was cut, is in the log and did not do what it says."""
        if self._file is None:
            return
        touched = {
            sector
            for step in steps
            for change in step.changes
            if change.kind == "write"
            for sector in range(
                change.offset // SECTOR_BYTES, -(-(change.offset + change.size) // SECTOR_BYTES)
            )
        }
        for sector in touched:
            if self._read(sector * SECTOR_BYTES, SECTOR_BYTES) == _BLANK:
                self._known.note(sector * SECTOR_BYTES, SECTOR_BYTES, "erased", "observed")

    def _see_blank_sectors(self) -> None:
        if self._file is None:
            return
        try:
            content = self._file.read_bytes()
        except OSError:
            return
        began: int | None = None
        for offset in range(0, len(content) + 1, SECTOR_BYTES):
            blank = content[offset : offset + SECTOR_BYTES] == _BLANK
            if blank and began is None:
                began = offset
            elif not blank and began is not None:
                self._known.note(began, offset - began, "erased", "observed")
                began = None

    def _infer_the_rest(self, layout: Layout) -> None:
        """What was not blank when the board was opened: as this board keeps it."""
        self._filled = True
        source: Source = "inferred"
        for offset in range(0, self._known.size, SECTOR_BYTES):
            if self._known.content_at(offset) == "unknown" and not layout.label_at(offset).startswith("0x"):
                content: Content = "ciphertext" if layout.may_be_encrypted(offset) else "plaintext"
                self._known.fill_unknown(offset, SECTOR_BYTES, content, source)

    def _read(self, offset: int, size: int) -> bytes:
        assert self._file is not None
        try:
            with self._file.open("rb") as file:
                file.seek(offset)
                return file.read(size)
        except OSError:
            return b""

    def _size(self) -> int:
        if self._file is not None:
            try:
                return self._file.stat().st_size
            except OSError:
                pass
        return DEFAULT_FLASH_BYTES

    def _end_of_log(self) -> int:
        if not self._logs:
            return 0
        try:
            return self._board.link.flash_log(END_OF_FLASH_LOG)[1]
        except HarnessError:
            return 0
