"""One device has one name, by whichever path, link, URL or spelling it is reached; two devices have none in common."""

from __future__ import annotations

import os
import socket
import stat
import sys
from pathlib import Path

import pytest

from harness.links.device_names import device_names, mac_name, names_in_sysfs

linux = pytest.mark.skipif(sys.platform != "linux", reason="device numbers and sysfs are Linux's")

SOCKET = "devices/pci0000:00/0000:00:14.0/usb1/1-1/1-1.4"


def usb_port(
    sys_folder: Path,
    number: str,
    node: str,
    *,
    interface: str = "1-1.4:1.0",
    vendor: str = "10c4",
    serial: str = "0001",
    several: str | None = None,
) -> None:
    """One serial port as sysfs shows it; drivers of the USB serial family have a folder of their own per port."""
    device = sys_folder / SOCKET
    port = device / interface / ("" if node.startswith("ttyACM") else node)
    tty = port / "tty" / node
    tty.mkdir(parents=True)
    if several is not None:
        (port / "port_number").write_text(f"{several}\n")
    (device / "serial").write_text(f"{serial}\n")
    (device / "idVendor").write_text(f"{vendor}\n")
    numbers = sys_folder / "dev" / "char"
    numbers.mkdir(parents=True, exist_ok=True)
    (numbers / number).symlink_to(os.path.relpath(tty, numbers))


def test_a_usb_port_is_the_socket_that_it_is_plugged_into(tmp_path: Path) -> None:
    usb_port(tmp_path, "188:0", "ttyUSB0")
    assert names_in_sysfs(188, 0, sys=tmp_path) == ("usb-1-1.4:1.0",)
    assert names_in_sysfs(188, 1, sys=tmp_path) == ()


def test_a_chip_on_its_own_usb_is_also_its_mac(tmp_path: Path) -> None:
    usb_port(tmp_path, "166:0", "ttyACM0", vendor="303a", serial="7C:DF:A1:00:00:01")
    assert names_in_sysfs(166, 0, sys=tmp_path) == (mac_name("7c:df:a1:00:00:01"), "usb-1-1.4:1.0")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"interface": "1-1.4:1.0"}, {"interface": "1-1.4:1.1"}),
        ({"several": "0"}, {"several": "1"}),
    ],
    ids=["two interfaces", "one interface with several ports"],
)
def test_the_ports_of_one_adapter_stay_apart(
    tmp_path: Path, one: dict[str, str], other: dict[str, str]
) -> None:
    usb_port(tmp_path, "188:0", "ttyUSB0", **one)
    usb_port(tmp_path, "188:1", "ttyUSB1", **other)
    first, second = names_in_sysfs(188, 0, sys=tmp_path), names_in_sysfs(188, 1, sys=tmp_path)
    assert first
    assert second
    assert not set(first) & set(second)


def test_adapters_that_all_have_one_serial_number_are_not_one_device(tmp_path: Path) -> None:
    usb_port(tmp_path, "188:0", "ttyUSB0", serial="0001")
    assert not any("0001" in name for name in names_in_sysfs(188, 0, sys=tmp_path))


@linux
def test_every_path_of_a_device_leads_to_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board, device = os.openpty()
    path = os.ttyname(device)
    (tmp_path / "by-id").symlink_to(path)
    (tmp_path / "to-the-link").symlink_to("by-id")
    monkeypatch.chdir(tmp_path)
    number = Path(path).stat().st_rdev
    expected = (f"char-{os.major(number)}-{os.minor(number)}",)
    paths = [
        path,
        str(tmp_path / "by-id"),
        "to-the-link",
        f"//{path}",
        path.replace("/dev/", "/dev/../dev/./"),
    ]
    if os.geteuid() == 0:
        # As in a container, whose device nodes are its own.
        os.mknod(tmp_path / "node", stat.S_IFCHR | 0o600, number)
        paths.append("node")
    assert {name: device_names(name) for name in paths} == dict.fromkeys(paths, expected)
    assert device_names(f"spy://{path}?file=log") == expected
    assert device_names(f"alt://{path}?class=Serial") == expected
    os.close(board)
    os.close(device)


@pytest.mark.skipif(os.name == "nt", reason="paths")
def test_a_port_that_is_not_there_has_its_path_as_name(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    assert device_names(str(tmp_path / "link")) == device_names(str(tmp_path / "gone"))
    assert device_names(str(tmp_path / "link")) != device_names(str(tmp_path / "other"))


ONE_PORT = [
    "rfc2217://127.0.0.1:4000",
    "rfc2217://localhost:4000",
    "rfc2217://LOCALHOST:4000?ign_set_control",
    "socket://127.0.0.1:4000",
    "socket://127.0.0.2:4000/logging=debug",
]


@pytest.mark.parametrize("url", ONE_PORT)
def test_every_spelling_of_a_remote_port_is_one_device(url: str) -> None:
    assert "tcp-localhost-4000" in device_names(url)


def test_remote_ports_and_hosts_stay_apart() -> None:
    names = [
        device_names(f"rfc2217://{host}:{port}")
        for host in ("192.0.2.1", "192.0.2.2")
        for port in (4000, 4001)
    ]
    assert len(set().union(*map(set, names))) == 4


def test_a_host_that_nobody_knows_is_its_name_in_small_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert (
        device_names("rfc2217://Pi4.lab.:4000")
        == ("tcp-pi4.lab-4000",)
        == device_names("socket://pi4.lab:4000")
    )


@pytest.mark.parametrize("url", ["loop://", "rfc2217://nowhere", "socket://[::1", "rfc2217://host:99999"])
def test_a_url_that_names_no_port_is_itself(url: str) -> None:
    assert device_names(url) == (url,)
