"""Asks emulators and uhubctl what they are: which QEMU it is, and which hubs switch single ports."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from harness.doctor.finding import Finding, good, note, wrong
from harness.links.environment import child_environment
from harness.links.qemu import MACHINES
from harness.power.uhubctl import HubStatus, parse_status

TIMEOUT_S = 10.0

ESPRESSIFS = re.compile(r"\besp[_-]develop[\w.-]*")
"""In the version of Espressif's own builds: ``esp_develop_9.2.2_20250817``."""

KNOWN_FAULTS = {
    "esp32": "it ignores write protection of BLOCK0 and DISABLE_DL_*, and --no-stub reads give zeros",
    "esp32c3": "images enciphered on a host do not boot (the XTS key is not reversed), and stub writes hang",
}
"""Of the public fork that is not Espressif's own build, by chip; as found with QEMU 8.1.3."""

Run = Callable[[Sequence[str]], str | None]
"""Runs a program that only tells something; its output, None: it does not run."""


@dataclass(frozen=True, slots=True)
class QemuFacts:
    """One QEMU as it describes itself."""

    program: str
    path: str
    version: str | None
    """None: it does not run."""
    machines: frozenset[str]


def run_program(command: Sequence[str]) -> str | None:
    """Output of a program that only tells something; None: it does not run, or not in time."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
            env=child_environment(),
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout + done.stderr


def probe_qemu(found: Mapping[str, str], run: Run = run_program) -> list[QemuFacts]:
    """Asks each QEMU of `found` (program: path) for version and machines."""
    facts = []
    for program, path in found.items():
        told = run([path, "--version"]) or ""
        match = re.search(r"version (\S+(?: \([^)]*\))?)", told)
        machines = re.findall(r"^(\S+)", run([path, "-machine", "help"]) or "", re.MULTILINE) if match else []
        facts.append(QemuFacts(program, path, match[1] if match else None, frozenset(machines)))
    return facts


def check_qemu(facts: QemuFacts, chips: frozenset[str]) -> list[Finding]:
    """Judges a QEMU for the `chips` that boards.yaml has in QEMU; what no board needs is a note."""
    mine = sorted(chip for chip, machine in MACHINES.items() if machine.program == facts.program)
    wanted = sorted(chips & set(mine))
    judge = wrong if wanted else note
    if facts.version is None:
        return [
            judge(
                "tools",
                f"{facts.program}: {facts.path} does not run",
                "install it again: its libraries may be missing",
            )
        ]
    todo = "install Espressif's build: python $IDF_PATH/tools/idf_tools.py install qemu-xtensa qemu-riscv32"
    missing = [chip for chip in wanted or mine if chip not in facts.machines]
    if missing:
        text = f"{facts.program} {facts.version} has no machine {', '.join(missing)}: it is not Espressif's"
        return [judge("tools", text, todo)]
    if ESPRESSIFS.search(facts.version):
        return [good("tools", f"{facts.program} {facts.version}")]
    faults = "; ".join(f"{chip}: {KNOWN_FAULTS[chip]}" for chip in wanted or mine if chip in KNOWN_FAULTS)
    text = f"{facts.program} {facts.version} does not say that it is Espressif's build. Known of the other one: {faults}"
    return [note("tools", text, todo)]


def probe_hubs(uhubctl: str, run: Run = run_program) -> tuple[HubStatus, ...] | None:
    """The hubs that uhubctl lists; None: it does not run. Changes nothing."""
    told = run([uhubctl])
    return None if told is None else parse_status(told)


def check_hubs(hubs: Sequence[HubStatus] | None, *, needed: bool) -> list[Finding]:
    """Judges the hubs. `needed`: a board's power is switched by one."""
    judge = wrong if needed else note
    if hubs is None:
        return [judge("tools", "uhubctl does not run", "run 'uhubctl' by hand and see what it says")]
    able = [hub for hub in hubs if hub.switches_single_ports]
    if not able:
        text = "no USB hub here switches single ports, as far as this user may see"
        todo = "install uhubctl's udev rule (its README), or use a hub from its list of those that can"
        return [judge("tools", text, todo)]
    listed = ", ".join(f"{hub.location} ({len(hub.powered)} ports)" for hub in able)
    return [good("tools", f"hubs that switch single ports: {listed}")]
