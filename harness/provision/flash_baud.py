"""The baud rate at which a board is flashed: tried from the top, and remembered where it had to be lowered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError
from harness.vault.key_ref import plain_mac
from harness.vault.record_file import make_private_folder, read_record, write_record

FORMAT = 1

STEPS = (921_600, 460_800, 230_400, 115_200)
"""Rates that every common adapter can make; the last one is the ROM's own."""


def lower_than(baud: int) -> int | None:
    """The next rate below `baud`; None below the ROM's own."""
    return next((step for step in STEPS if step < baud), None)


@dataclass(frozen=True, slots=True)
class FlashBauds:
    """What was found out of each board, one small file per MAC."""

    folder: Path

    def start_at(self, mac: str | None, asked: int) -> int:
        """Where to begin with the board `mac` whose entry asks for `asked`: there, or at what worked last time.

        Another rate in the entry, or a removed file, begins anew.
        """
        if mac is None:
            return asked
        try:
            fields = read_record(
                self._file(mac), newest=FORMAT, what="the remembered baud rate", private=False
            )
            return int(fields["works"]) if fields["asked"] == asked else asked
        except (HarnessError, KeyError, TypeError, ValueError):
            # Not there, or of no use: trying costs a second.
            return asked

    def remember(self, mac: str, asked: int, works: int) -> None:
        """The board `mac`, asked to work at `asked`, does so at `works`."""
        make_private_folder(self.folder)
        write_record(self._file(mac), {"format": FORMAT, "asked": asked, "works": works})

    def _file(self, mac: str) -> Path:
        return self.folder / f"{plain_mac(mac).replace(':', '-')}.json"
