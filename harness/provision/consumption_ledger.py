"""What scenarios have used up of a board for good, noted on disk before they begin. Beside the device record, by MAC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.provision.consumables import Resource, Uses, added
from harness.vault.errors import DamagedError
from harness.vault.key_ref import plain_mac
from harness.vault.record_file import make_private_folder, now_utc, read_record, write_record

FORMAT = 1
SUFFIX = ".used"


@dataclass(frozen=True, slots=True)
class Use:
    """One scenario's."""

    scenario: str
    uses: Uses
    at: str
    """UTC, ISO 8601: when it was noted."""


class ConsumptionLedger:
    """The ledgers in one folder. A scenario that was noted may have been killed before it burned anything: what may
    be gone counts as gone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, mac: str) -> tuple[Use, ...]:
        """Everything noted for `mac`, oldest first.

        Raises:
            NewerFormatError: a newer harness wrote it. DamagedError: it cannot be understood.
        """
        file = self._file(mac)
        if not file.exists():
            return ()
        fields = read_record(file, newest=FORMAT, what="the ledger of what was used up", private=False)
        try:
            return tuple(
                Use(
                    str(each["scenario"]),
                    {Resource(word): int(amount) for word, amount in each["uses"].items()},
                    str(each["at"]),
                )
                for each in fields["used"]
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DamagedError(
                f"the ledger {file} is damaged: {type(error).__name__} {error}",
                todo="restore it from a copy; without it nobody knows what the budget still allows",
            ) from error

    def spent(self, mac: str) -> dict[Resource, int]:
        """All that was noted for `mac`, added up. Errors as `read`."""
        return added(use.uses for use in self.read(mac))

    def note(self, mac: str, scenario: str, uses: Uses) -> None:
        """Adds a line, synced, before `scenario` may burn anything.

        Raises:
            LabError: it cannot be written; then the scenario must not run. Else as `read`.
        """
        known = self.read(mac)
        make_private_folder(self.folder)
        lines = [*known, Use(scenario, uses, now_utc())]
        write_record(
            self._file(mac),
            {"format": FORMAT, "mac": plain_mac(mac), "used": [_fields(line) for line in lines]},
        )

    def _file(self, mac: str) -> Path:
        # Not .json: the folder's JSON files are the device records.
        return self.folder / f"{plain_mac(mac).replace(':', '-')}{SUFFIX}"


def _fields(use: Use) -> Mapping[str, object]:
    amounts = {resource.value: amount for resource, amount in use.uses.items()}
    return {"scenario": use.scenario, "uses": amounts, "at": use.at}
