"""The supply of boards that are processes: emulators, and the built-in twin."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from harness.power.power import Power


class EmulatedBoard(Protocol):
    """A link that ends its emulator and starts it again (`harness.links.emulator.EmulatorLink`)."""

    @property
    def description(self) -> str: ...
    def power_off(self) -> None: ...
    def power_on(self) -> None: ...


class TwinBoard(Protocol):
    """A link with the twin's control channel (`harness.links.twin.TwinLink`)."""

    @property
    def description(self) -> str: ...
    def control(self, op: str, **arguments: Any) -> dict[str, Any]: ...


class EmulatorPower(Power):
    """Without power there is no process; with power the board boots from flash."""

    kind: ClassVar[str] = "emulator"

    def __init__(self, link: EmulatedBoard) -> None:
        self._link = link

    @property
    def description(self) -> str:
        return self._link.description

    def off(self) -> None:
        self._link.power_off()

    def on(self) -> None:
        self._link.power_on()


class TwinPower(Power):
    """The twin models its supply itself, also in the middle of a flash operation."""

    kind: ClassVar[str] = "twin"

    def __init__(self, link: TwinBoard) -> None:
        self._link = link

    @property
    def description(self) -> str:
        return self._link.description

    def off(self) -> None:
        self._link.control("power", on=False)

    def on(self) -> None:
        self._link.control("power", on=True)
