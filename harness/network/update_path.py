"""The way on which one board gets its updates: its network, the server's address in it, and the proof that it works.

The proof is a GET that the device makes and the server sees. It comes before an update, so that a firewall, a wrong
address or a wrong network costs an error and not the content of a slot.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from harness.console.device import Answer
from harness.console.redaction import Hidden
from harness.errors import BoardError, LabError, UsageError
from harness.inventory.network import Ports
from harness.network.credentials import WifiNetwork
from harness.network.interface import interface_of, is_elsewhere
from harness.ota.listening import address_towards, is_loopback, is_wildcard
from harness.ota.server import OtaServer

PROOF_NAME = "reachable"
"""What the device gets to prove that it reaches the server; in the journal under this name."""

WIFI, NO_NETWORK = "wifi", "none"
"""Kinds of network that the firmware names in ``net`` (``firmware/README.md``)."""

JOIN_ATTEMPTS = 2
"""The firmware tries ten times within one command; the second command is for an access point that was busy."""

JOIN_TIMEOUT_S = 45.0
"""The firmware waits for an address, 10 s unless it was built otherwise (CONFIG_COMPANION_NET_WAIT_MS)."""

ADDRESS_TIMEOUT_S = 15.0
"""For DHCP on a network that needs no credentials."""

GET_TIMEOUT_S = 30.0
"""The firmware gives up after 5 s for the connection and 5 s for the answer (CONFIG_RAW_OTA_HTTP_TIMEOUT_MS)."""

SEEN_TIMEOUT_S = 2.0
"""From the device's answer to the server's journal; both have the request by then."""

_POLL_S = 0.5
_ESP_ERR_TIMEOUT = 0x107

ENTRY_HINT = "network: {ssid: NAME, password_file: FILE}"


class Device(Protocol):
    """What carries out commands of the UART protocol; see `DeviceClient.send`."""

    def send(self, command: str, arguments: Mapping[str, object], *, timeout_s: float = ...) -> Answer:
        """Sends one command and waits for its end."""


@dataclass(frozen=True, slots=True)
class DeviceNetwork:
    """What the firmware says of its network."""

    kind: str
    """``wifi``, ``openeth``, ``host`` or ``none``."""
    up: bool
    ip: str | None

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> DeviceNetwork:
        """From ``net``, ``up`` and ``ip`` of an event."""
        ip = fields.get("ip")
        return cls(str(fields.get("net", NO_NETWORK)), bool(fields.get("up")), str(ip) if ip else None)


@dataclass(frozen=True, slots=True)
class Proof:
    """A GET that the device made and the server saw."""

    host: str
    """Address of the server as the device reaches it."""
    port: int
    device: str
    """The device's own address."""
    interface: str | None
    """Interface of this machine that has `host`, where that is known."""

    def text(self) -> str:
        """One line for a person."""
        by = f" on {self.interface}" if self.interface else ""
        return f"the device at {self.device} reaches the OTA server at {self.host} port {self.port}{by}"


@dataclass(slots=True)
class UpdatePath:
    """How one board reaches its OTA server. Remembers what was proven, until the device restarts."""

    board: str
    bind: str
    ports: Ports = field(default_factory=Ports)
    address: str | None = None
    """Under which the device reaches this machine; None: found out when the device has an address of its own."""
    wifi: WifiNetwork | None = None
    _proven: tuple[object, Proof] | None = None

    def serve(self, journal: Path) -> OtaServer:
        """Starts the board's OTA server.

        Raises:
            LabError: address or ports cannot be had.
        """
        try:
            return OtaServer(journal_path=journal).start(self.bind, self.ports.numbers)
        except LabError as error:
            error.board = self.board
            raise

    def require_credentials(self) -> None:
        """Before work of minutes: that the Wi-Fi password, if one is named, is where it was said to be.

        Raises:
            UsageError: it is not.
        """
        if self.wifi is not None:
            self.wifi.password(board=self.board)

    def prove(self, device: Device, server: OtaServer, mac: str, *, boot: int) -> Proof:
        """Has the device join its network if need be, and fetch a small file, once per boot and server.

        Args:
            boot: number of the device's boot: its credentials and its address last no longer.

        Raises:
            UsageError: boards.yaml does not say what is needed, or what it says cannot work.
            LabError: the network cannot be joined, or the server is not reached; names address, port, interface.
            BoardError: the firmware has no network.
        """
        there = self._joined(device)
        ip = there.ip or "unknown"
        port = server.address[1]
        host = self._host(server, ip)
        at = (boot, host, port, ip)
        if self._proven is not None and self._proven[0] == at:
            return self._proven[1]
        self._get(device, server, mac, Proof(host, port, ip, interface_of(host)))
        self._proven = at, Proof(host, port, ip, interface_of(host))
        return self._proven[1]

    # --- joining ------------------------------------------------------------------------------------------------

    def _joined(self, device: Device) -> DeviceNetwork:
        there = self._state(device)
        if there.up:
            return there
        if there.kind == NO_NETWORK:
            raise BoardError(
                "its firmware has no network, so it cannot fetch updates",
                board=self.board,
                todo="build the firmware with a network: firmware/README.md lists the fragments",
            )
        return self._join(device) if there.kind == WIFI else self._await_address(device, there.kind)

    def _state(self, device: Device) -> DeviceNetwork:
        answer = device.send("net", {})
        if not answer.ok:
            raise BoardError(f"does not tell its network: {answer}", board=self.board)
        return DeviceNetwork.from_fields(answer.fields)

    def _await_address(self, device: Device, kind: str) -> DeviceNetwork:
        deadline_s = time.monotonic() + ADDRESS_TIMEOUT_S
        while time.monotonic() < deadline_s:
            time.sleep(_POLL_S)
            there = self._state(device)
            if there.up:
                return there
        raise LabError(
            f"has no network address {ADDRESS_TIMEOUT_S:g} s after it was asked for one ({kind})",
            board=self.board,
            todo="check the cable, and that something on that network hands out addresses (DHCP)",
        )

    def _join(self, device: Device) -> DeviceNetwork:
        wifi = self.wifi
        if wifi is None:
            raise UsageError(
                "its firmware fetches updates over Wi-Fi, and its entry does not say which network to join",
                board=self.board,
                todo=f"add to its entry in boards.yaml: {ENTRY_HINT}",
            )
        arguments: dict[str, str | Hidden] = {"ssid": wifi.ssid}
        password = wifi.password(board=self.board)
        if password is not None:
            arguments["password"] = password
        for _ in range(JOIN_ATTEMPTS):
            answer = device.send("wifi", arguments, timeout_s=JOIN_TIMEOUT_S)
            there = DeviceNetwork.from_fields(answer.fields)
            if answer.ok and there.up:
                return there
            if answer.code != _ESP_ERR_TIMEOUT:
                raise LabError(f"cannot join Wi-Fi network '{wifi.ssid}': {answer}", board=self.board)
        raise LabError(
            f"does not get into Wi-Fi network '{wifi.ssid}': no address after {JOIN_ATTEMPTS} attempts",
            board=self.board,
            todo=f"check that the network is within reach on 2.4 GHz, its password ({wifi.password_source}), and that "
            "it hands out addresses (DHCP)",
        )

    # --- reaching -----------------------------------------------------------------------------------------------

    def _host(self, server: OtaServer, ip: str) -> str:
        bound = server.address[0]
        if self.address is not None:
            return self.address
        if is_loopback(bound) and not is_loopback(ip):
            raise UsageError(
                f"the OTA server listens on {bound}, which the device at {ip} cannot reach",
                board=self.board,
                todo="take 'bind' out of its network entry, or give 'address' too",
            )
        if not is_wildcard(bound):
            return bound
        try:
            return address_towards(ip)
        except LabError as error:
            error.board = self.board
            raise

    def _get(self, device: Device, server: OtaServer, mac: str, path: Proof) -> None:
        server.publish(mac, PROOF_NAME, b"reachable\n", faultless=True)
        try:
            seen_before = len(server.journal)
            url = server.url_for(mac, PROOF_NAME, host=path.host)
            answer = device.send("probe", {"url": url}, timeout_s=GET_TIMEOUT_S)
            if answer.error in ("unknown-command", "busy"):
                raise BoardError(f"cannot prove that it reaches its updates: {answer}", board=self.board)
            if not answer.ok:
                raise self._unreachable(path, f"got no answer ({answer.error})")
            status = answer.fields.get("http_status")
            if status != 200:
                raise self._unreachable(path, f"got status {status}, from something else than our server")
            try:
                server.wait_for_request(
                    lambda request: request.name == PROOF_NAME, SEEN_TIMEOUT_S, since=seen_before
                )
            except BoardError as error:
                raise self._unreachable(path, "got an answer, but our server saw no request") from error
        finally:
            server.withdraw(mac, PROOF_NAME)

    def _unreachable(self, path: Proof, what: str) -> LabError:
        if path.interface is not None:
            where = f"interface {path.interface} of this machine"
        elif is_elsewhere(path.host):
            where = "no address of this machine"
        else:
            where = "on an interface of this machine"
        network = f" in Wi-Fi network '{self.wifi.ssid}'" if self.wifi is not None else ""
        fixed = (
            ""
            if self.ports.first
            else ", after giving it a fixed one with 'port' in the board's network entry"
        )
        return LabError(
            f"does not reach its updates: the device at {path.device}{network} asked {path.host} port {path.port} "
            f"({where}) and {what}; no update was begun",
            board=self.board,
            todo=f"let this machine's firewall accept TCP port {path.port}{fixed}; see that both are in the same "
            "network (guest networks keep their clients apart); or set 'address' in its network entry",
        )
