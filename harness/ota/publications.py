"""What a server offers to whom: names and bytes per device, behind a path that nobody can guess."""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
from dataclasses import dataclass, field

from harness.errors import UsageError
from harness.ota.mac_address import normal_mac

_TOKEN_BYTES = 24
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_PATH = re.compile(r"/d/([A-Za-z0-9_-]+)/([A-Za-z0-9._-]+)")
_OPEN_PATH = re.compile(r"(/[A-Za-z0-9._~-]{1,100}){1,8}")
_SECRET_PART = re.compile(r"(?<=/d/)[^/]+")


@dataclass(frozen=True, slots=True)
class File:
    """Bytes that are served, and the entity tag that stands for exactly these bytes."""

    data: bytes = field(repr=False)
    etag: str
    faultless: bool = False
    """The server's faults do not strike it: they are meant for updates, and most strike once."""

    @classmethod
    def of(cls, data: bytes, *, faultless: bool = False) -> File:
        """The file that holds `data`."""
        return cls(bytes(data), f'"{hashlib.sha256(data).hexdigest()[:32]}"', faultless)


@dataclass(frozen=True, slots=True)
class Offer:
    """What is published under one path."""

    mac: str
    name: str
    file: File


@dataclass(frozen=True, slots=True)
class _Device:
    mac: str
    token: str = field(repr=False)
    files: dict[str, File] = field(repr=False)


class Publications:
    """Names and bytes per device. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._devices: dict[str, _Device] = {}
        # Looked up by the token's hash, so that the time a look-up takes says nothing about the token.
        self._by_digest: dict[bytes, _Device] = {}
        self._open: dict[str, tuple[str, str]] = {}

    def publish(self, device_mac: str, name: str, data: bytes, *, faultless: bool = False) -> str:
        """Offer `data` under `name` to the device; the same name again replaces it. Returns the path.

        ``faultless`` keeps the server's faults away from it.

        Raises:
            UsageError: the MAC is none, or the name is not 1 to 100 letters, digits, ``.``, ``_``, ``-``.
        """
        mac = normal_mac(device_mac)
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"'{name}' cannot be published", todo="use up to 100 letters, digits, '.', '_' and '-'"
            )
        file = File.of(data, faultless=faultless)
        with self._lock:
            device = self._devices.get(mac)
            if device is None:
                device = _Device(mac, secrets.token_urlsafe(_TOKEN_BYTES), {})
                self._devices[mac] = device
                self._by_digest[_digest(device.token)] = device
            device.files[name] = file
            return _path(device, name)

    def open_path(self, path: str, device_mac: str, name: str) -> None:
        """From now on what is published as `name` for the device is there under `path`, too, which is no secret.

        For firmware whose URL is compiled in.

        Raises:
            UsageError: the MAC is none, or the path is not one like ``/firmware/app.bin``.
        """
        if not _OPEN_PATH.fullmatch(path) or _PATH.fullmatch(path):
            raise UsageError(f"'{path}' cannot be served", todo="give a path such as /firmware/app.bin")
        with self._lock:
            self._open[path] = (normal_mac(device_mac), name)

    def withdraw(self, device_mac: str, name: str | None = None) -> None:
        """Offer `name`, or everything, no longer; the device's secret path stays its own."""
        mac = normal_mac(device_mac)
        with self._lock:
            device = self._devices.get(mac)
            if device is not None and name is not None:
                device.files.pop(name, None)
            elif device is not None:
                device.files.clear()

    def path_of(self, device_mac: str, name: str) -> str:
        """The path of `name` for the device.

        Raises:
            UsageError: nothing of that name is published for it.
        """
        mac = normal_mac(device_mac)
        with self._lock:
            device = self._devices.get(mac)
            if device is not None and name in device.files:
                return _path(device, name)
            published = ", ".join(sorted(device.files)) if device is not None else ""
        raise UsageError(
            f"nothing called '{name}' is published for {mac}",
            todo=f"publish it first; published are: {published or 'none'}",
        )

    def find(self, raw_path: str) -> Offer | None:
        """What a request's path names: exact matches only, no decoding, no normalising, no file system."""
        path = raw_path.partition("?")[0]
        match = _PATH.fullmatch(path)
        if match is None:
            return self._find_open(path)
        token, name = match.groups()
        with self._lock:
            device = self._by_digest.get(_digest(token))
            file = device.files.get(name) if device is not None else None
            return Offer(device.mac, name, file) if device is not None and file is not None else None

    def _find_open(self, path: str) -> Offer | None:
        with self._lock:
            mac, name = self._open.get(path, ("", ""))
            device = self._devices.get(mac)
            file = device.files.get(name) if device is not None else None
            return Offer(mac, name, file) if file is not None else None

    def redacted(self, raw_path: str) -> str:
        """The path without its query and without anything that is, or may once have been, a secret."""
        return self.without_tokens(_SECRET_PART.sub("****", raw_path.partition("?")[0]))

    def without_tokens(self, text: str) -> str:
        """`text`, of whatever a client sent, without the secret part of any device's path."""
        with self._lock:
            tokens = [device.token for device in self._devices.values()]
        for token in tokens:
            text = text.replace(token, "****")
        return text


def sibling_path(raw_path: str, name: str) -> str:
    """The path under which the device that asked for `raw_path` would get `name`."""
    return raw_path.partition("?")[0].rpartition("/")[0] + "/" + name


def _path(device: _Device, name: str) -> str:
    return f"/d/{device.token}/{name}"


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("ascii")).digest()
