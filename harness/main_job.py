"""The main job: from a blank board to a proven switch there and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
from harness.board import Board, Running
from harness.console.boot_record import BootRecord, Outcome
from harness.home import Home
from harness.ota.bundle import make_bundle, write_bundle
from harness.ota.release import Release, signer
from harness.preparation import Consent, Demand, Planned, Prepared, carry_out_plan, make_plan, settle_after
from harness.provision.device_record import RAW_UPDATE_BACK, RAW_UPDATE_THERE
from harness.provision.profile import Profile
from harness.provision.secure_boot_steps import also_trusted
from harness.report.step_recording import StepRecording
from harness.report.verdict import Claim, Standing, Verdict
from harness.say import Say
from harness.vault.key_life import due_notes
from harness.vault.key_ref import KEYLESS, KeyState

UPDATES = ("1.1.0", "1.2.0")
"""There and back: after both, the slot that ran first runs again."""


def run_main_job(
    board: Board,
    demand: Demand,
    consent: Consent,
    home: Home,
    *,
    say: Say,
    steps: StepRecording | None = None,
    on_ready: Callable[[], object] = lambda: None,
) -> Verdict:
    """Provisions if need be, updates twice, and says what the log proves.

    Args:
        on_ready: called when the board is prepared and its firmware is up: from then on its firmware is judged.

    Raises:
        RefusedError: consent is missing or the board cannot reach the profile.
        BoardError, LabError: the board or the lab failed; what was done so far is kept.
    """
    say.step(f"{board.name}: {board.chip.title} on {board.link.description}")
    steps = steps or StepRecording()
    with steps.step(f"provision as {demand.profile.value}"):
        planned = make_plan(board, demand, home, say=say, to_carry_out=True)
        for line in planned.plan.text().splitlines():
            say.detail(line)
        if not planned.plan.empty:
            say.step(f"provisioning as {demand.profile.value}")
        carry_out_plan(board, planned, consent, home, say=say)
    say.step("first boot")
    with steps.step("first boot") as step:
        prepared = settle_after(board, planned, demand, say=say)
        on_ready()
        say.detail(board.boots[-1].summary())
        step.claims += _provisioned(board, demand)
        if prepared.running is None:
            step.claims += _as_flashed(board, planned)
            why = "takes no commands" if board.runs_app else "was built for the chip: a twin only loads it"
            say.detail(f"{planned.app.project} {why}; no update is tried")
        else:
            step.claims += _confessed(board, prepared.running, demand)
            if prepared.plan.key_state is not None:
                why = f"no key: it is {KEYLESS[KeyState(prepared.plan.key_state)]}, and no update can be enciphered here"
                step.claims.append(Claim("raw updates there and back", Standing.NOT_APPLICABLE, why))
    claims = step.claims
    if prepared.running is not None and prepared.plan.key_state is None:
        claims += _there_and_back(board, prepared.running, steps, say=say)
    subject = f"{board.name} ({board.chip.name} {board.mac}), profile {demand.profile.value}"
    return Verdict(subject, claims, _facts(board, prepared, demand, say), _marks(board, planned))


def _versions(board: Board, running: str) -> tuple[str, str]:
    """The two versions to update to; not the one that runs, as far as there are others, so that the log shows each
    switch by its version, too."""
    firmware = board.firmware
    assert firmware is not None
    if firmware.any_version:
        return UPDATES if running != UPDATES[0] else UPDATES[::-1]
    others = [version for version in firmware.versions if version != running]
    there = others[0] if others else running
    back = next((version for version in firmware.versions if version != there), there)
    return there, back


def _provisioned(board: Board, demand: Demand) -> list[Claim]:
    boot = board.boots[-1]
    wanted = demand.profile.told_as(board.chip).value if board.encrypts else "off"
    return [
        Claim.of("the board boots", boot.app_started, boot.summary())
        if board.runs_app
        else Claim.of("the bootloader loads the app", boot.outcome is Outcome.LOADED, boot.summary()),
        Claim.of(
            "the log says the encryption that build and profile have",
            boot.encryption in _spoken(board, wanted),
            f"log: {boot.encryption}, build: {_built_for(board)}, profile: {wanted}",
        ),
    ]


def _built_for(board: Board) -> str:
    return (board.app.encryption if board.app is not None else None) or "unknown"


def _spoken(board: Board, encryption: str) -> tuple[str, ...]:
    """What a log may say of a board with that encryption."""
    if encryption != "off" and board.app is not None and board.app.encryption == "off":
        # A build without flash encryption of its own runs on an encrypted chip, and says nothing of it.
        return ("off",)
    # The mode is said by the app, not by the bootloader.
    return (encryption,) if board.runs_app or encryption == "off" else ("enabled",)


def _as_flashed(board: Board, planned: Planned) -> list[Claim]:
    """What the log alone shows of an app that says nothing of itself."""
    boot, app = board.boots[-1], planned.app
    claims = [
        Claim.of(
            "it was booted from an OTA slot or the factory partition", boot.offset is not None, boot.summary()
        )
    ]
    if planned.plan.writes:
        claims.append(
            Claim.of(
                "what boots is what was flashed",
                boot.offset == app.app_partition.offset and boot.version in (app.version, *_silent(board)),
                f"{app.project} {app.version} in {app.app_partition.label} at {app.app_partition.offset:#x}",
            )
        )
    return claims


def _silent(board: Board) -> tuple[None, ...]:
    """An app that is only loaded does not say its version."""
    return () if board.runs_app else (None,)


def _there_and_back(board: Board, first: Running, steps: StepRecording, *, say: Say) -> list[Claim]:
    claims: list[Claim] = []
    running, way = first, [first.slot]
    for version, proof in zip(
        _versions(board, first.version), (RAW_UPDATE_THERE, RAW_UPDATE_BACK), strict=True
    ):
        expected = running.next_slot
        with steps.step(f"update to {version}") as step:
            release = board.release(version)
            step.properties |= _properties(board, release, running)
            step.claims += _update(board, release, running, say=say)
            running = board.status()
            came_back = proof is RAW_UPDATE_THERE or running.slot == first.slot
            if came_back and all(claim.standing is Standing.PROVEN for claim in step.claims):
                board.note_proof(proof, version=version)
            way.append(running.slot)
            if proof is RAW_UPDATE_BACK:
                # With a factory app or a third slot the second update goes on, not back.
                where = "back to the first slot" if expected == first.slot else "to the slot after"
                claim = Claim.of(f"the second update went {where}", running.slot == expected, " → ".join(way))
                step.claims.append(claim)
        claims += step.claims
    return claims


def _properties(board: Board, release: Release, before: Running) -> dict[str, str]:
    """What is sent to the board, by which a person finds it again."""
    slot = board.slot(before.next_slot)
    key = board.vault.key_record(board.mac) if board.encrypts and board.mac is not None else None
    told = {"image": f"{release.version}, {len(release.image)} bytes, SHA-256 {release.sha256.hex()}"}
    if key is not None:
        told["enciphered"] = f"on the host with key {key.key_id}, for {slot.label} at {slot.offset:#x}"
    return told


NOT_COVERED = (
    "not covered: updates that must be refused, faults of the server, lost power, damaged otadata. "
    "That is tested by pytest tests/ota and harness explore"
)


def _confessed(board: Board, running: Running, demand: Demand) -> list[Claim]:
    boot = board.boots[-1]
    claims = [
        Claim.of(
            "bootloader and firmware agree on the encryption",
            boot.encryption
            == running.encryption
            == (demand.profile.told_as(board.chip).value if board.encrypts else "off"),
            f"log: {boot.encryption}, firmware: {running.encryption}",
        ),
    ]
    if demand.profile.encryption is Profile.RELEASE:
        claims.append(
            Claim.of(
                "ESP-IDF's own release check passes",
                running.release_ok,
                f"esp_flash_encryption_cfg_verify_release_mode() = {str(running.release_ok).lower()}",
            )
        )
    return claims + _secure_boot(board, running, demand)


def _secure_boot(board: Board, running: Running, demand: Demand) -> list[Claim]:
    """What the ROM, the bootloader and the firmware say of secure boot, in a profile that has it."""
    if not demand.profile.secure_boot:
        return []
    boot = board.boots[-1]
    told = "on" if running.fields.get("sb") is True else "off"
    claims = [
        Claim.of(
            "the ROM verified the bootloader's signature",
            boot.rom_verified,
            "secure boot verification succeeded" if boot.rom_verified else boot.summary(),
        ),
        Claim.of("the firmware finds secure boot on", told == "on", f"esp_secure_boot_enabled(): {told}"),
    ]
    if board.app is not None and board.app.secure_boot:
        claims.append(
            Claim.of(
                "the bootloader verified the app's signature",
                boot.app_signature_verified is True,
                "Signature verified successfully" if boot.app_signature_verified else boot.summary(),
            )
        )
    return claims


def _update(board: Board, release: Release, before: Running, *, say: Say) -> list[Claim]:
    slot = board.slot(before.next_slot)
    say.step(f"update to {release.version} for {slot.label} at 0x{slot.offset:x}")
    board.run_note.doing(f"in the update of {slot.label} to {release.version}")
    with say.phase(f"update {release.version}", lambda: board.uart_bytes):
        _keep_bundle(board, release)
        body = board.body(release, slot)
        if board.encrypts:
            say.detail(f"enciphered on the host for this slot: {len(body)} bytes")
        answer = board.update(release)
    if not answer.ok:
        return [Claim.of(f"the update to {release.version} is taken", False, str(answer))]
    with say.phase(f"restart {release.version}", lambda: board.uart_bytes):
        boot = board.reboot()
        pending = board.status()
        confirmed = board.confirm()
        after = board.status()
    say.detail(boot.summary())
    written = board.slot_digest(slot.label, size_bytes=len(body)) == str(answer.fields["sha256"])
    return [
        Claim.of(
            f"{release.version} is in flash as the {'ciphertext' if board.encrypts else 'plaintext'} that was served",
            written and (release.image[:64] not in body) is board.encrypts,
            f"SHA-256 {str(answer.fields['sha256'])[:16]}… over {len(body)} bytes of {slot.label}",
        ),
        Claim.of(
            f"the log proves the switch to {release.version}",
            _switched(boot, release, slot.label, slot.offset),
            boot.summary(),
        ),
        Claim.of(
            f"{release.version} waits for confirmation, then keeps it",
            pending.state == "pending" and confirmed.ok and after.state == "valid",
            f"{pending.state} → {after.state}",
        ),
    ]


def _switched(boot: BootRecord, release: Release, slot: str, offset: int) -> bool:
    return (boot.slot, boot.offset, boot.version) == (slot, offset, release.version)


def _keep_bundle(board: Board, release: Release) -> None:
    """The files of this update, as they would leave a release server."""
    assert board.table is not None
    assert board.mac is not None
    bundle = make_bundle(
        release,
        chip=board.chip,
        mac=board.mac,
        key=board.vault.flash_key(board.mac) if board.encrypts else None,
        table=board.table,
        sign=signer(board.vault.signing_key()),
    )
    write_bundle(bundle, board.folder / "bundles" / release.version)


def _marks(board: Board, planned: Planned) -> tuple[str, ...]:
    """What the state of the device's key, and keys that it trusts besides, mean for whoever holds the device."""
    key = board.vault.key_record(board.mac) if board.encrypts and board.mac is not None else None
    plan = planned.plan
    others = also_trusted(planned.state, [digest for _, digest, _ in plan.digests])
    return (
        *(due_notes(key) if key is not None else ()),
        *(others if plan.profile.secure_boot else ()),
    )


def _facts(board: Board, prepared: Prepared, demand: Demand, say: Say) -> dict[str, Any]:
    return {
        "harness": harness.__version__,
        "board": board.name,
        "link": board.link.kind,
        "chip": board.chip.name,
        "mac": board.mac,
        "profile": demand.profile.value,
        "plan": prepared.plan.id,
        "burned": len(prepared.plan.burns),
        "boots": [record.summary() for record in board.boots],
        "findings": [str(finding) for finding in board.findings],
        "phases": [
            {"name": p.name, "seconds": round(p.seconds, 3), "uart_bytes": p.uart_bytes} for p in say.phases
        ],
    }


def write_verdict(verdict: Verdict, folder: Path) -> None:
    """``verdict.txt`` and ``verdict.json`` in the artefact folder."""
    (folder / "verdict.txt").write_text("\n".join(verdict.lines()) + "\n", encoding="utf-8")
    (folder / "verdict.json").write_text(json.dumps(verdict.to_json(), indent=1) + "\n", encoding="utf-8")
