"""What a place that has been acquired offers: its serial port, and what switches its supply."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from labgrid import Target, target_factory
from labgrid.util.proxy import proxymanager

from .coordinator import Session
from .task import RefusedError, Task

POWER_S = 60.0
"""One ``labgrid-client power``; some power switches take seconds."""


def resources_of(session: Session, place: str) -> list[tuple[str, Any]]:
    """Name (as the place renames it) and entry of each resource of `place` that an exporter offers now."""
    known = session.places.get(place)
    found = []
    for path in known.acquired_resources if known is not None else ():
        exporter, group, _, name = path
        entry = session.resources.get(exporter, {}).get(group, {}).get(name)
        match = known.getmatch(path)
        if entry is not None and entry.data:
            found.append(((match.rename if match is not None else None) or name, entry))
    return found


async def serial_port(session: Session, place: str, task: Task) -> dict[str, Any] | None:
    """Where the serial port is now; None: nobody offers it at the moment.

    Raises:
        RefusedError: the place has none of that name, or several.
    """
    everything = resources_of(session, place)
    wanted = task.serial_port
    ports = [
        (name, entry)
        for name, entry in everything
        if entry.cls == "NetworkSerialPort" and wanted in (None, name)
    ]
    if len(ports) > 1:
        names = ", ".join(name for name, _ in ports)
        raise RefusedError(
            f"place {place} has several serial ports: {names}", "name one with 'serial_port' in the entry"
        )
    if not ports:
        if not everything:
            return None
        what = ", ".join(f"{entry.cls} {name}" for name, entry in everything)
        called = f" called {wanted}" if wanted else ""
        raise RefusedError(
            f"place {place} has no serial port{called}; it has: {what}",
            "export a NetworkSerialPort, USBSerialPort or RawSerialPort there, and add a match for it",
        )
    [(name, entry)] = ports
    if not entry.avail or not entry.args.get("port"):
        return None
    host, port = await asyncio.get_running_loop().run_in_executor(None, _reachable, entry)
    return {
        "name": name,
        "host": host,
        "port": port,
        "protocol": entry.args.get("protocol", "rfc2217"),
        "speed": entry.args.get("speed", 115200),
    }


def _reachable(entry: Any) -> tuple[str, int]:
    """Host and TCP port, through SSH where labgrid is told to go that way."""
    resource = target_factory.make_resource(Target("port"), entry.cls, None, entry.args)
    resource.extra = entry.extra
    host, port = proxymanager.get_host_and_port(resource)
    return str(host), int(port)


def power_port(session: Session, place: str, task: Task) -> str | None:
    """The resource that switches the supply; None: there is none."""
    for name, entry in resources_of(session, place):
        if ("Power" in entry.cls or entry.cls == "PDUDaemonPort") and task.power_port in (None, name):
            return f"{entry.cls} {name}" if name != entry.cls else str(entry.cls)
    return None


async def switch(task: Task, place: str, action: str) -> None:
    """``labgrid-client power``, which knows every power driver and refuses when the place is not ours.

    Raises:
        OSError: it did not work; says what the client said.
    """
    command = [sys.executable, "-I", "-m", "labgrid.remote.client"]
    command += ["-x", task.coordinator, "-p", place, "power", action]
    command += ["--name", task.power_port] if task.power_port else []
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, said = await asyncio.wait_for(process.communicate(), POWER_S)
    except asyncio.TimeoutError:
        process.kill()
        await process.wait()
        raise OSError(f"labgrid-client power {action} did not end within {POWER_S:g} s") from None
    if process.returncode != 0:
        last = [line for line in said.decode(errors="replace").splitlines() if line.strip()][-1:]
        raise OSError(f"labgrid-client power {action} ended with {process.returncode}: {' '.join(last)}")
