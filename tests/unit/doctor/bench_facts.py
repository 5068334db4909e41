"""Facts for the doctor's tests: a machine, ports and chips as they might be found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from harness.chips import chip_named
from harness.doctor.host import HostFacts, Tool
from harness.inventory.discover import Attached
from harness.links.find_port import SerialPort
from harness.provision.chip_state import ChipState, Download, KeyBlock
from harness.provision.device_record import DeviceRecord
from harness.provision.profile import Lock, Profile

MAC = "7c:df:a1:00:00:01"

BRIDGE = SerialPort("/dev/ttyUSB0", "0001", "1-1.4", 0x10C4, "CP2102N USB to UART Bridge")
OWN_USB = SerialPort("/dev/ttyACM0", MAC.upper(), "1-1.2", 0x303A, "USB JTAG/serial debug unit")
MODEM = SerialPort("/dev/ttyACM1", "123", "1-2", 0x1199, "EM7455")
BUILT_IN = SerialPort("/dev/ttyS0")

HOST = HostFacts(
    python=(3, 11, 7),
    system="Linux x86_64",
    esptool="5.6.0",
    compiler=Tool("/usr/bin/cc (cc 12.2.0)"),
    idf=Tool("v5.5.5 in /opt/esp-idf"),
    qemu={
        "qemu-system-xtensa": Tool("/opt/q/qemu-system-xtensa"),
        "qemu-system-riscv32": Tool(None, "missing", "x"),
    },
    espemu=Tool("/opt/e/esp-emu"),
    uhubctl=Tool("/usr/sbin/uhubctl"),
    free_bytes={"/home/lab": 8 << 30},
)


def attached(port: SerialPort = BRIDGE, **changes: Any) -> Attached:
    """One port as `look_around` gives it."""
    mac = MAC if port is OWN_USB else None
    return replace(Attached(port, port.device, mac=mac), **changes)


def chip_state(chip: str = "esp32c3", **changes: Any) -> ChipState:
    """A chip as it was bought."""
    row = chip_named(chip)
    block = KeyBlock(
        name=row.fuses.key_storage_block,
        purpose="USER" if row.fuses.key_purpose else None,
        empty=True,
        readable=True,
        writeable=True,
        purpose_writeable=True,
        key_id=None,
        coding_errors=0,
    )
    state = ChipState(chip, MAC, 4, {}, frozenset(), frozenset(), (block,), Download.OPEN)
    return replace(state, **{"revision": 301 if chip == "esp32" else 4, **changes})


def device_record(profile: Profile = Profile.OPEN, lock: Lock = Lock.NONE, **changes: Any) -> DeviceRecord:
    """What the harness might have written of that chip."""
    record = DeviceRecord(
        MAC, "esp32c3", profile, lock, None, None, None, {}, {}, "0123456789abcdef", "2026-01-01T00:00:00Z"
    )
    return replace(record, **changes)
