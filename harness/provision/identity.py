"""Which chip is at a wire: nothing is written to a physical board before it has said so and its entry agrees.

Two swapped cables would put ciphertext under another chip's key, or end another board's life. So a board is read only
until its entry names its MAC (``mac:``) and the chip itself has told the same one: through its ROM, by its own USB's
serial number, or through its firmware where the ROM no longer tells.
"""

from __future__ import annotations

from collections.abc import Callable

from harness.errors import RefusedError
from harness.vault.key_ref import plain_mac

HOW_TO_NAME = "'harness doctor --probe --board {}' shows its MAC"


class Identity:
    """What is known of one board in this run. Virtual boards are what their state folder holds: nothing is asked."""

    def __init__(
        self,
        board: str,
        *,
        physical: bool,
        declared: str | None,
        claim: Callable[[str], None] | None = None,
    ) -> None:
        self.board = board
        self.physical = physical
        self.declared = plain_mac(declared) if declared is not None else None
        """``mac:`` of its entry."""
        self.found: str | None = None
        """What the chip told last."""
        self._claim = claim

    def told(self, mac: str) -> None:
        """The chip says that it is `mac`.

        Raises:
            LabError: another run has that chip, by another wire.
        """
        self.found = plain_mac(mac)
        if self._claim is not None:
            self._claim(self.found)

    def vouched_for(self, mac: str) -> None:
        """A person has typed the MAC of a chip that cannot tell its own; it counts until the chip tells another."""
        self.declared = self.found = plain_mac(mac)

    def require(self) -> None:
        """Raises:
        RefusedError: nothing may be written to this board; says what is missing.
        """
        if self.physical:
            require_identified(self.board, self.declared, self.found)


def require_identified(board: str, declared: str | None, found: str | None) -> None:
    """That a physical board is the one that its entry means; both MACs in plain form.

    Raises:
        RefusedError: it is another, its entry names none, or the chip has not told.
    """
    require_same(board, declared, found)
    if declared is None:
        line = f'mac: "{found}"' if found is not None else 'mac: "…"'
        hint = "" if found is not None else "; " + HOW_TO_NAME.format(board)
        raise RefusedError(
            "its entry has no 'mac:', and a physical board is only read until its entry says which chip it is. "
            "Nothing was written",
            board=board,
            todo=f"if this is the right board, add to its entry:  {line}{hint}",
        )
    if found is None:
        raise RefusedError(
            f"nothing proves that this is {declared}: neither its ROM, nor its USB serial number, nor its firmware "
            "told a MAC. Nothing was written",
            board=board,
            todo="let its firmware run, so that it can say who it is; without that this board is only read",
        )


def require_same(board: str, declared: str | None, found: str | None) -> None:
    """That nothing known speaks against it.

    Raises:
        RefusedError: the chip told another MAC than its entry names.
    """
    if declared is not None and found is not None and declared != found:
        raise RefusedError(
            f"this is another chip: boards.yaml says {declared}, the chip says {found}. Nothing was written",
            board=board,
            todo="two cables may be swapped: connect the right board, or correct its entry",
        )
