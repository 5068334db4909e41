"""Which interface of this machine has an address."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import sys

_SIOCGIFADDR = 0x8915
"""`netdevice(7)`: the first IPv4 address of the interface whose name is given."""


def interface_of(address: str) -> str | None:
    """Name of the interface whose first IPv4 address is `address`; None: there is none, or this system does not say."""
    return next((name for name, own in _first_addresses() if own == address), None)


def is_elsewhere(host: str) -> bool:
    """Whether `host` is an IP address that this machine does not have. Of a host name that is not said.

    A socket is bound to it for a moment; nothing is sent.
    """
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    except ValueError:
        return False
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        try:
            asking.bind((host, 0))
        except OSError:
            return True
    return False


def _first_addresses() -> list[tuple[str, str]]:
    if sys.platform != "linux":
        return []
    import fcntl

    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            # An interface without an IPv4 address has nothing to tell.
            with contextlib.suppress(OSError):
                request = struct.pack("256s", name.encode()[:15])
                answer = fcntl.ioctl(asking.fileno(), _SIOCGIFADDR, request)
                found.append((name, socket.inet_ntoa(answer[20:24])))
    return found
