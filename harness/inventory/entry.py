"""What `boards.yaml` may say: one pydantic model per link, since a person wrote the input."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from harness.chips import CHIPS

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


class UhubctlEntry(BaseModel):
    """A port of a USB hub with per-port power switching."""

    model_config = ConfigDict(extra="forbid")

    by: Literal["uhubctl"]
    hub: Annotated[str, Field(pattern=r"^\d+(-\d+(\.\d+)*)?$")] | None = None
    """Location as uhubctl shows it, e.g. `1-1`; with `port` absent too: where the board's serial port is plugged in."""
    port: Annotated[int, Field(ge=1, le=16)] | None = None
    program: list[str] | None = None
    """Command that runs uhubctl, e.g. `[sudo, -n, uhubctl]`."""

    @model_validator(mode="after")
    def _both_or_none(self) -> UhubctlEntry:
        if (self.hub is None) != (self.port is None):
            raise ValueError(
                "give both 'hub' and 'port', or neither: then they are those of the board's serial port"
            )
        return self


class CommandEntry(BaseModel):
    """Any two commands, as argument lists."""

    model_config = ConfigDict(extra="forbid")

    by: Literal["command"]
    off: Annotated[list[str], Field(min_length=1)]
    on: Annotated[list[str], Field(min_length=1)]
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 30.0
    variables: list[str] = []
    """Environment variables that the commands may see, by name."""


PowerEntry = Annotated[UhubctlEntry | CommandEntry, Field(discriminator="by")]


class EmulatedEntry(Entry):
    """A board that an emulator executes; its state folder persists, and may be a twin's."""

    state: str | None = None
    mac: str | None = None
    flash_size: Literal["2MB", "4MB", "8MB", "16MB"] = "4MB"
    """Of a new flash."""
    arguments: list[str] = []
    """More arguments for the emulator."""

    _mac = field_validator("mac")(lambda value: _checked_mac(value))

    @property
    def flash_bytes(self) -> int:
        return int(self.flash_size.removesuffix("MB")) << 20


class QemuEntry(EmulatedEntry):
    """A board in Espressif's QEMU."""

    link: Literal["qemu"]
    qemu: str | None = None
    """Path of the program; default: HARNESS_QEMU_XTENSA or HARNESS_QEMU_RISCV32, else PATH."""
    baud: Annotated[int, Field(ge=9600, le=4_000_000)] = 2_000_000
    watchdog: bool = False


class EspEmuEntry(EmulatedEntry):
    """A board in esp-emu."""

    link: Literal["espemu"]
    espemu: str | None = None
    """Path of the program; default: HARNESS_ESPEMU, else PATH."""
    baud: Annotated[int, Field(ge=9600, le=4_000_000)] = 921_600


class PhysicalEntry(Entry):
    """What every physical board's entry may say."""

    baud: Annotated[int, Field(ge=9600, le=4_000_000)] = 460_800
    console_baud: Annotated[int, Field(ge=9600, le=4_000_000)] = 115_200
    mac: str | None = None
    """Base MAC; must match the chip before anything is written."""
    burn_up_to: Literal["development", "release"] | None = None
    """Consent in writing: the furthest profile whose fuses may be burned. Absent: never."""
    power: PowerEntry | None = None

    _mac = field_validator("mac")(lambda value: _checked_mac(value))


class SerialEntry(PhysicalEntry):
    """A physical board on a UART, by path, USB serial number, USB location, or the MAC of its chip."""

    link: Literal["serial"]
    console: Literal["uart0", "usb-serial-jtag"] = "uart0"
    """Where the firmware's console is, and so which wire this is: UART0 behind a bridge, or the chip's own USB."""
    port: str | None = None
    usb_serial: str | None = None
    usb_location: str | None = None

    @model_validator(mode="after")
    def _has_that_console(self) -> SerialEntry:
        if self.console == "usb-serial-jtag" and not CHIPS[self.chip].usb_serial_jtag:
            raise ValueError(f"console: {CHIPS[self.chip].title} has no USB-Serial-JTAG; use uart0")
        return self

    @model_validator(mode="after")
    def _one_way(self) -> SerialEntry:
        ways = [way for way in (self.port, self.usb_serial, self.usb_location) if way is not None]
        if any(not way.strip() for way in ways):
            raise ValueError("port is empty; give a device path such as /dev/ttyUSB0 or COM5")
        if len(ways) > 1 or (not ways and self.mac is None):
            raise ValueError(
                "name the port in one way: 'port', 'usb_serial' or 'usb_location', or by 'mac' alone"
            )
        return self


class Rfc2217Entry(PhysicalEntry):
    """A physical board behind an RFC 2217 server."""

    link: Literal["rfc2217"]
    url: Annotated[str, Field(pattern=r"^rfc2217://[^/:]+:\d+")]


def _checked_mac(value: str | None) -> str | None:
    if value is None:
        return None
    if not MAC_PATTERN.fullmatch(value):
        raise ValueError(f"'{value}' is not a MAC address; write it as aa:bb:cc:dd:ee:ff, in quotes")
    return normalised_mac(value)


AnyEntry = Annotated[
    TwinEntry | QemuEntry | EspEmuEntry | SerialEntry | Rfc2217Entry, Field(discriminator="link")
]

VirtualEntry = TwinEntry | QemuEntry | EspEmuEntry
"""Boards that a state folder holds: twins and emulators."""

LINKS = ("twin", "serial", "rfc2217", "qemu", "espemu")


class InventoryFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid")

    version: Literal[1]
    boards: dict[str, AnyEntry]
