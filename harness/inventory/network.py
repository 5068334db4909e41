"""What `boards.yaml` may say of a board's network: where it finds its OTA server, and the Wi-Fi that it joins for it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)


@dataclass(frozen=True, slots=True)
class Ports:
    """TCP ports from `first` to `last`; 0: the system chooses a free one."""

    first: int = 0
    last: int = 0

    @property
    def numbers(self) -> range:
        """In the order in which they are tried."""
        return range(self.first, self.last + 1)

    def __str__(self) -> str:
        if self.last > self.first:
            return f"{self.first}-{self.last}"
        return str(self.first) if self.first else "any free one"


def _ports(value: object) -> Ports:
    if isinstance(value, Ports):
        return value
    match = re.fullmatch(r"\s*(\d{1,5})(?:\s*-\s*(\d{1,5}))?\s*", str(value))
    if match is None:
        raise ValueError(f"'{value}' is neither a port nor a range of ports; write 8070 or 8070-8079")
    first = int(match[1])
    last = int(match[2] or first)
    if last > 65535:
        raise ValueError(f"there is no port {last}; ports are 1 to 65535, and 0 for any free one")
    if last < first or (first == 0 and last > 0):
        raise ValueError(f"'{value}' is no range of ports; write the lower one first, and not 0")
    return Ports(first, last)


PortRange = Annotated[Ports, BeforeValidator(_ports)]
"""``8070`` or ``8070-8079``."""

HOST_PATTERN = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\.?")
"""A host name: with a letter, since what has none was meant for an IP address."""


def _host(value: str) -> str:
    """An IP address or a host name, and nothing else."""
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        if not HOST_PATTERN.fullmatch(value):
            raise ValueError(
                f"'{value}' is neither an IP address nor a host name; write it without http:// and without a port"
            ) from None
    return value


Host = Annotated[str, AfterValidator(_host)]

PASSWORD_WORDS = ("password", "passphrase", "passwd", "psk", "key")
"""What a person might write before a password; it must not be in the file."""


class Network(BaseModel):
    """How a board gets at its updates: the Wi-Fi network it joins, and where the OTA server listens for it."""

    model_config = ConfigDict(extra="forbid")

    ssid: str | None = None
    """Wi-Fi network, for boards whose firmware has Wi-Fi."""
    password_file: Annotated[str, Field(min_length=1)] | None = None
    """File whose only line is the network's password; relative to boards.yaml, `~` is expanded."""
    password_env: str | None = None
    """Name of the environment variable that holds the password. Neither: an open network."""
    bind: Host | None = None
    """Address of this machine that the server listens on; default: loopback for virtual boards, all for physical."""
    address: Host | None = None
    """Address under which the device reaches this machine; default: that of the interface which routes to it."""
    port: PortRange = Ports()
    """Port, or range of which the first free one is taken."""

    @model_validator(mode="before")
    @classmethod
    def _no_password(cls, value: Any) -> Any:
        if isinstance(value, dict) and any(word in value for word in PASSWORD_WORDS):
            raise ValueError(
                "the password itself does not belong here; put it into a file and name that with 'password_file'"
            )
        return value

    @field_validator("ssid", mode="before")
    @classmethod
    def _usable_ssid(cls, value: object) -> object:
        if value is not None and not isinstance(value, str):
            raise ValueError("put the SSID in quotes, or YAML takes it for something else than text")
        # IEEE 802.11: 0 to 32 bytes; the firmware takes no NUL in a command.
        if value is not None and ("\0" in value or not 1 <= len(value.encode()) <= 32):
            raise ValueError("an SSID has 1 to 32 bytes")
        return value

    @field_validator("password_env")
    @classmethod
    def _a_name(cls, value: str | None) -> str | None:
        # Whoever writes the password itself is not to read it in a log: so it is not repeated, and most are refused.
        if value is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", value):
            raise ValueError("give the NAME of an environment variable, in capitals, not the password")
        return value

    @field_validator("address")
    @classmethod
    def _reachable(cls, value: str | None) -> str | None:
        if value in ("0.0.0.0", "::"):  # noqa: S104 - refused, not bound to
            raise ValueError(
                f"no board can reach '{value}'; leave it out, or give this machine's address in the board's network"
            )
        return value

    @model_validator(mode="after")
    def _password_of_a_network(self) -> Network:
        if self.password_file is not None and self.password_env is not None:
            raise ValueError("name the password in one way: 'password_file' or 'password_env'")
        if self.ssid is None and (self.password_file or self.password_env):
            raise ValueError("there is a password, but no 'ssid' that it is for")
        return self
