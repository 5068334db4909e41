"""What `boards.yaml` may say: one pydantic model per link, since a person wrote the input."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from harness.chips import CHIPS
from harness.errors import HarnessError

FORMAT_VERSION = 1
"""Version of boards.yaml that this code writes and reads; newer files are refused."""

MAC_PATTERN = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")


def normalised_mac(text: str) -> str:
    """`aa:bb:cc:dd:ee:ff`, lower case, whatever the separators were."""
    return text.replace("-", ":").lower()


class Network(BaseModel):
    """Where the OTA server listens and under which address the board reaches it."""

    model_config = ConfigDict(extra="forbid")

    bind: str = "127.0.0.1"
    address: str | None = None
    """Address that the device uses; default: the one the server is bound to."""
    port: Annotated[int, Field(ge=0, le=65535)] = 0


class Entry(BaseModel):
    """What every board's entry may say, whatever its link."""

    model_config = ConfigDict(extra="forbid")

    chip: str
    description: str = ""
    tags: list[str] = []
    network: Network = Network()

    @field_validator("chip")
    @classmethod
    def _known_chip(cls, value: str) -> str:
        name = value.lower().replace("-", "")
        if name not in CHIPS:
            raise ValueError(f"chip '{value}' is not supported; use one of: {', '.join(CHIPS)}")
        return name


class TwinEntry(Entry):
    """A virtual board; its state folder persists from run to run."""

    link: Literal["twin"] = "twin"
    state: str | None = None
    """Folder of flash.bin and efuse.bin; default: `twins/NAME` in the state folder. `~` is expanded."""
    mac: str | None = None

    _mac = field_validator("mac")(lambda value: _checked_mac(value))


class SerialEntry(Entry):
    """A physical board on a UART: a device path, COM port, or pyserial URL."""

    link: Literal["serial"]
    port: str
    baud: Annotated[int, Field(ge=9600, le=4_000_000)] = 460_800
    console_baud: Annotated[int, Field(ge=9600, le=4_000_000)] = 115_200
    mac: str | None = None
    """Base MAC; must match the chip before anything is written."""
    burn_up_to: Literal["development", "release"] | None = None
    """Consent in writing: the furthest profile whose fuses may be burned. Absent: never."""

    _mac = field_validator("mac")(lambda value: _checked_mac(value))

    @field_validator("port")
    @classmethod
    def _named_port(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("port is empty; give a device path such as /dev/ttyUSB0 or COM5")
        return value


def _checked_mac(value: str | None) -> str | None:
    if value is None:
        return None
    if not MAC_PATTERN.fullmatch(value):
        raise ValueError(f"'{value}' is not a MAC address; write it as aa:bb:cc:dd:ee:ff, in quotes")
    return normalised_mac(value)


AnyEntry = Annotated[TwinEntry | SerialEntry, Field(discriminator="link")]

LINKS = ("twin", "serial")


class InventoryFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid")

    version: Literal[1]
    boards: dict[str, AnyEntry]


__all__ = [
    "FORMAT_VERSION",
    "LINKS",
    "AnyEntry",
    "Entry",
    "HarnessError",
    "InventoryFile",
    "Network",
    "SerialEntry",
    "TwinEntry",
    "normalised_mac",
]
