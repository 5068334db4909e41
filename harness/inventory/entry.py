"""What `boards.yaml` may say: one pydantic model per link, since a person wrote the input."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    field_validator,
    model_validator,
)

from harness.chips import CHIPS, TWINS, SigningScheme
from harness.chips.efuses import efuse_geometry
from harness.inventory.network import Network

FORMAT_VERSION = 1
"""Version of boards.yaml that this code writes and reads; newer files are refused."""

MAC_PATTERN = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")


def normalised_mac(text: str) -> str:
    """`aa:bb:cc:dd:ee:ff`, lower case, whatever the separators were."""
    return text.replace("-", ":").lower()


PKCS11 = "pkcs11:"
"""Before the name of a token's file, where a board's signing key is in a token."""


def _key_source(value: str) -> str:
    """Where a signing key comes from: the vault, a PEM file, or a token."""
    if "-----BEGIN" in value:
        raise ValueError("the key itself does not belong here; give the name of its PEM file")
    if not value.strip() or value == PKCS11:
        raise ValueError("give 'vault', the name of a PEM file, or 'pkcs11:' and the name of a token's file")
    scheme, colon, _ = value.partition(":")
    # A single letter before a colon is a drive.
    if colon and len(scheme) > 1 and f"{scheme}:" != PKCS11:
        raise ValueError(f"'{scheme}:' is no place for keys; there are 'vault', PEM files, and 'pkcs11:FILE'")
    return value


class SecureBoot(BaseModel):
    """Which keys a board with secure boot v2 knows, and is signed with."""

    model_config = ConfigDict(extra="forbid")

    keys: Annotated[list[Annotated[str, AfterValidator(_key_source)]], Field(min_length=1)] = ["vault"]
    """By digest slot: `vault`, a PEM file, or `pkcs11:` and a token's file; relative to boards.yaml. A public PEM is
    only known to the board, its private half stays elsewhere."""
    scheme: SigningScheme | None = None
    """How it signs; default: the chip's first."""

    @field_validator("keys")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        files = [name for name in value if name != "vault"]
        if len(set(files)) != len(files):
            raise ValueError("the same key is named for two digest slots")
        return value


class FlashKeyEntry(BaseModel):
    """Where a new flash key of this board comes from, when it is not to be made here. Asked once: the vault keeps it."""

    model_config = ConfigDict(extra="forbid")

    file: Annotated[str, Field(min_length=1)] | None = None
    """Key file; `{mac}`, `{mac_hex}` and `{chip}` are filled in; relative to boards.yaml."""
    command: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)] | None = None
    """Command that prints the key, raw or as hexadecimal digits; the same words are filled in."""
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 30.0
    """For the command."""
    variables: list[str] = []
    """Environment variables that the command may see, by name."""

    @model_validator(mode="after")
    def _one_way(self) -> FlashKeyEntry:
        if (self.file is None) == (self.command is None):
            raise ValueError("say where the key comes from in one way: 'file' or 'command'")
        return self


ProfileName = Literal[
    "open",
    "development",
    "ciphertext-only",
    "release",
    "open+sbv2",
    "development+sbv2",
    "ciphertext-only+sbv2",
    "release+sbv2",
]
"""`harness.provision.profile.Profile`'s words."""


class Entry(BaseModel):
    """What every board's entry may say, whatever its link."""

    model_config = ConfigDict(extra="forbid")

    chip: str
    description: str = ""
    tags: list[str] = []
    network: Network = Network()
    secure_boot: SecureBoot = SecureBoot()
    """For profiles with secure boot."""
    flash_key: FlashKeyEntry | None = None
    profile: ProfileName | None = None
    """The one profile that this board is for: a run that chooses boards by itself never moves it to another."""

    @field_validator("chip")
    @classmethod
    def _known_chip(cls, value: str) -> str:
        name = value.lower().replace("-", "")
        if name not in CHIPS:
            raise ValueError(f"chip '{value}' is not supported; use one of: {', '.join(CHIPS)}")
        return name

    @model_validator(mode="after")
    def _keys_of_the_chip(self) -> Entry:
        boot = CHIPS[self.chip].secure_boot
        title = CHIPS[self.chip].title
        if len(self.secure_boot.keys) > boot.digest_slots:
            raise ValueError(
                f"secure_boot: {title} has room for {boot.digest_slots} key(s), {len(self.secure_boot.keys)} are named"
            )
        if self.secure_boot.scheme is not None and self.secure_boot.scheme not in boot.schemes:
            known = ", ".join(scheme.value for scheme in boot.schemes)
            raise ValueError(
                f"secure_boot: {title} does not verify {self.secure_boot.scheme.value}; use one of: {known}"
            )
        return self

    @property
    def signing_scheme(self) -> SigningScheme:
        """How images for this board are signed for secure boot."""
        return self.secure_boot.scheme or CHIPS[self.chip].secure_boot.schemes[0]

    @property
    def firmware_fragments(self) -> tuple[str, ...]:
        """sdkconfig fragments that a companion firmware for the chip needs on this board: network and console.

        Without a Wi-Fi network in the entry it gets none, and takes its updates over the UART.
        """
        return ("net.wifi",) if self.network.ssid is not None else ("net.none",)


class TwinEntry(Entry):
    """A virtual board; its state folder persists from run to run."""

    link: Literal["twin"] = "twin"
    state: str | None = None
    """Folder of flash.bin and efuse.bin; default: `twins/NAME` in the state folder. `~` is expanded."""
    mac: str | None = None

    @property
    def firmware_fragments(self) -> tuple[str, ...]:
        # A build for the chip is only loaded here; what runs it is QEMU, on the same state folder.
        return ("net.openeth",)

    _mac = field_validator("mac")(lambda value: _checked_mac(value))

    @field_validator("chip")
    @classmethod
    def _has_a_twin(cls, name: str) -> str:
        if name not in TWINS:
            raise ValueError(f"chip '{name}' has no twin; there are twins of: {', '.join(TWINS)}")
        return name


def _hub(value: str) -> str:
    if not re.fullmatch(r"\d+(-\d+(\.\d+)*)?", value):
        raise ValueError(
            f"'{value}' is no location of a USB hub; write it as uhubctl shows it, such as '1-1.4'"
        )
    return value


class UhubctlEntry(BaseModel):
    """A port of a USB hub with per-port power switching."""

    model_config = ConfigDict(extra="forbid")

    by: Literal["uhubctl"]
    hub: Annotated[str, AfterValidator(_hub)] | None = None
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

POWER_WAYS = ("uhubctl", "command")


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

    @property
    def firmware_fragments(self) -> tuple[str, ...]:
        return ("net.openeth",)


class EspEmuEntry(EmulatedEntry):
    """A board in esp-emu."""

    link: Literal["espemu"]
    espemu: str | None = None
    """Path of the program; default: HARNESS_ESPEMU, else PATH."""
    baud: Annotated[int, Field(ge=9600, le=4_000_000)] = 921_600


class Budget(BaseModel):
    """How much scenarios may use up of a board in its whole life; see `harness.provision.consumables.Resource`."""

    model_config = ConfigDict(extra="forbid")

    secure_version: Annotated[int, Field(ge=0)] = 0
    """Bits of the anti-rollback counter; ESP32 has 32 of them, most others 16, ESP32-C5 9, ESP32-C2 4."""
    digest_slots: Annotated[int, Field(ge=0, le=3)] = 0
    revocations: Annotated[int, Field(ge=0, le=2)] = 0
    device_keys: Annotated[int, Field(ge=0, le=1)] = 0


class PhysicalEntry(Entry):
    """What every physical board's entry may say."""

    baud: Annotated[int, Field(ge=9600, le=4_000_000)] = 460_800
    console_baud: Annotated[int, Field(ge=9600, le=4_000_000)] = 115_200
    mac: str | None = None
    """Base MAC; must match the chip before anything is written."""
    burn_up_to: ProfileName | None = None
    """Consent in writing: the furthest profile whose fuses may be burned. Absent: never."""
    budget: Budget = Budget()
    """What scenarios may use up for good, with ``--consume NAME``. Absent: nothing."""
    power: PowerEntry | None = None
    sacrificial: StrictBool = False
    """The board may be lost: cuts may be placed inside a fuse burn, a first-boot encryption, or a write of bootloader or
    partition table, where they can destroy a device. Absent: never."""

    _mac = field_validator("mac")(lambda value: _checked_mac(value))

    @model_validator(mode="after")
    def _budget_of_the_chip(self) -> PhysicalEntry:
        bits = efuse_geometry(self.chip).field("SECURE_VERSION").bits
        if self.budget.secure_version > bits:
            raise ValueError(
                f"budget: secure_version: {CHIPS[self.chip].title} has {bits} bits of it, "
                f"{self.budget.secure_version} are given"
            )
        return self


class SerialEntry(PhysicalEntry):
    """A physical board on a UART, by path, USB serial number, USB location, or the MAC of its chip."""

    link: Literal["serial"]
    console: Literal["uart0", "usb-serial-jtag"] = "uart0"
    """Where the firmware's console is, and so which wire this is: UART0 behind a bridge, or the chip's own USB."""
    port: str | None = None
    usb_serial: str | None = None
    usb_location: str | None = None

    @property
    def firmware_fragments(self) -> tuple[str, ...]:
        return (*super().firmware_fragments, f"console.{self.console}")

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


def _rfc2217(value: str) -> str:
    if not re.match(r"rfc2217://[^/:]+:\d+", value):
        raise ValueError(
            f"'{value}' names no RFC 2217 server; write rfc2217://HOST:PORT, such as rfc2217://pi4:4000"
        )
    return value


class Rfc2217Entry(PhysicalEntry):
    """A physical board behind an RFC 2217 server."""

    link: Literal["rfc2217"]
    url: Annotated[str, AfterValidator(_rfc2217)]


COORDINATOR_PATTERN = re.compile(r"(\[[0-9a-fA-F:]+\]|[^\s:/@]+)(:\d{1,5})?")


def _coordinator(value: str) -> str:
    if not COORDINATOR_PATTERN.fullmatch(value):
        raise ValueError(
            f"'{value}' is no labgrid coordinator; write HOST or HOST:PORT (labgrid's port is 20408)"
        )
    return value


class LabgridEntry(PhysicalEntry):
    """A physical board that a labgrid coordinator lends: the place of that name, or any whose tags fit."""

    link: Literal["labgrid"]
    coordinator: Annotated[str, AfterValidator(_coordinator)] | None = None
    """``HOST:PORT``; default: the environment's LG_COORDINATOR, else labgrid's own default."""
    place: Annotated[str, Field(min_length=1)] | None = None
    """Name of the place at the coordinator."""
    filter: Annotated[dict[str, str], Field(min_length=1)] | None = None
    """Tags that the place must have; the coordinator chooses among those that are free."""
    reserve_timeout_s: Annotated[float, Field(ge=0, le=86_400)] = 0.0
    """How long to wait, in the coordinator's queue, for a place that somebody else holds; 0: refused at once."""
    grace_s: Annotated[float, Field(ge=1, le=86_400)] = 300.0
    """How long the lease survives without its coordinator."""
    client: Annotated[str, Field(min_length=1)] | None = None
    """labgrid's environment, or its program labgrid-client; default: HARNESS_LABGRID, else PATH."""
    serial_port: str | None = None
    """Name of the place's serial port, where it has several."""
    power_port: str | None = None
    """Name of the place's power port, where it has several."""

    @field_validator("filter", mode="before")
    @classmethod
    def _tags(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        # YAML takes a revision for a number; for labgrid a tag is text.
        return {key: str(tag) if type(tag) in (int, float) else tag for key, tag in value.items()}

    @model_validator(mode="after")
    def _one_wish(self) -> LabgridEntry:
        if (self.place is None) == (self.filter is None):
            raise ValueError("name the board in one way: 'place', or 'filter' with tags")
        return self


def _checked_mac(value: str | None) -> str | None:
    if value is None:
        return None
    if not MAC_PATTERN.fullmatch(value):
        raise ValueError(f"'{value}' is not a MAC address; write it as aa:bb:cc:dd:ee:ff, in quotes")
    return normalised_mac(value)


AnyEntry = Annotated[
    TwinEntry | QemuEntry | EspEmuEntry | SerialEntry | Rfc2217Entry | LabgridEntry,
    Field(discriminator="link"),
]

VirtualEntry = TwinEntry | QemuEntry | EspEmuEntry
"""Boards that a state folder holds: twins and emulators."""

LINKS = ("twin", "serial", "rfc2217", "labgrid", "qemu", "espemu")


class InventoryFile(BaseModel):
    """The whole file."""

    # What was written may be a password in the wrong place; pydantic's own error, which ours comes from, quotes it.
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    version: Literal[1]
    esp_idf: str | None = None
    """ESP-IDF's folder, to build the companion firmware for chips; default: the environment's IDF_PATH."""
    boards: dict[str, AnyEntry]
