"""The TCP socket an OTA server listens on, and the address under which boards on the network reach it."""

from __future__ import annotations

import errno
import ipaddress
import socket
import sys
from collections.abc import Sequence

from harness.errors import LabError, UsageError

_BACKLOG = 64
_SEND_BUFFER_BYTES = 64 * 1024
# Documentation addresses (RFC 5737, RFC 3849): routed like the rest of the world, and nobody lives there.
_FAR_AWAY = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}


def bind_socket(bind: str, port: int) -> socket.socket:
    """A listening socket on address `bind`, port 0 to 65535 (0: one that is free).

    Raises:
        UsageError: `port` is out of range. LabError: the address or the port cannot be had.
    """
    if not 0 <= port <= 65535:
        raise UsageError(
            f"OTA server: port {port} does not exist", todo="use 1 to 65535, or 0 for a free one"
        )
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            bind or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise _cannot_listen(
            bind, f"port {port}", str(error), "give an IP address of this machine"
        ) from error
    sock = socket.socket(family, kind, protocol)
    try:
        # On Windows SO_REUSEADDR would let two servers share the port; elsewhere it only skips TIME_WAIT.
        if sys.platform == "win32":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted connections inherit it: what was sent and what has arrived must not be megabytes apart.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        sock.bind(address)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise _cannot_listen(bind, f"port {port}", error.strerror or str(error), _remedy(error)) from error
    return sock


def bind_first_free(bind: str, ports: Sequence[int]) -> socket.socket:
    """As `bind_socket`, on the first of `ports` that nobody listens on.

    Raises:
        UsageError, LabError: as `bind_socket`; LabError too when all of several are taken.
    """
    for port in ports:
        try:
            return bind_socket(bind, port)
        except LabError as error:
            if len(ports) == 1 or not _is_taken(error.__cause__):
                raise
    raise _cannot_listen(
        bind,
        f"ports {ports[0]} to {ports[-1]}",
        "all of them are taken",
        "stop what listens there, give a longer range, or use port 0 and let the server choose",
    )


def is_wildcard(address: str) -> bool:
    """The address means "every interface" and cannot stand in a URL."""
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_unspecified
    except ValueError:
        return False


def is_loopback(address: str) -> bool:
    """The address is one under which a machine reaches nobody but itself."""
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return address.lower() == "localhost"


def address_towards(device: str) -> str:
    """This machine's address on the interface that routes to the IP address `device`; nothing is sent to find out.

    Raises:
        LabError: nothing routes there.
    """
    family = socket.AF_INET6 if ":" in device else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        try:
            # To connect a datagram socket only looks up the route.
            asking.connect((device, 9))
        except OSError as error:
            raise LabError(
                f"no interface of this machine leads to the device at {device}: {error.strerror or error}",
                todo="connect this machine to the device's network, or set 'address' in the board's network entry",
            ) from error
        return str(asking.getsockname()[0])


def outward_address(family: socket.AddressFamily) -> str:
    """This machine's address on the interface that leads to the network; nothing is sent to find out.

    Raises:
        LabError: there is no such interface.
    """
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((_FAR_AWAY[family], 9))
        except OSError as error:
            raise LabError(
                f"no address of this machine is known under which a board could reach it: {error.strerror}",
                todo="set 'address' in the board's network entry, or bind the OTA server to one address",
            ) from error
        return str(probe.getsockname()[0])


def _is_taken(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and (
        error.errno == errno.EADDRINUSE or getattr(error, "winerror", None) == 10013
    )


def _remedy(error: OSError) -> str:
    if _is_taken(error):
        return "stop the program that listens there, or use port 0 and let the server choose"
    if error.errno == errno.EACCES:
        return "use a port above 1023, or 0"
    if error.errno == errno.EADDRNOTAVAIL:
        return "bind to an address that this machine has, or to 0.0.0.0"
    return "use port 0 and address 127.0.0.1 to see whether the server runs at all"


def _cannot_listen(bind: str, ports: str, why: str, todo: str) -> LabError:
    return LabError(f"OTA server cannot listen on address {bind}, {ports}: {why}", todo=todo)
