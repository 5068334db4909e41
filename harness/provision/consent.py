"""Whether a physical board may be written to, and burned: three things must say so, each by name. Pure."""

from __future__ import annotations

from collections.abc import Collection

from harness.errors import RefusedError, UsageError
from harness.provision.device_record import PROOFS_FOR_DOWNLOAD_OFF, DeviceRecord
from harness.provision.identity import require_identified, require_same
from harness.provision.plan import Plan
from harness.provision.profile import Profile
from harness.vault.key_ref import plain_mac


def check_consent(
    *,
    board_name: str,
    physical: bool,
    mac_declared: str | None,
    mac_found: str | None,
    burn_up_to: str | None,
    burn_names: Collection[str],
    plan: Plan,
    unknown_burns_accepted: Collection[str] = (),
    record: DeviceRecord | None = None,
) -> None:
    """Refuses a plan that writes to a physical board that is not identified, or burns it without consent.

    Args:
        board_name: the board's name in boards.yaml.
        physical: virtual boards need no consent.
        mac_declared: ``mac:`` of its entry.
        mac_found: the MAC that the chip told, by whichever way; None when it told none.
        burn_up_to: ``burn_up_to:`` of its entry: a profile's name, or None for never.
        burn_names: the names given with ``--burn`` on this run.
        plan: what would be done.
        unknown_burns_accepted: the names given with ``--accept-unknown-burns``: firmware without an sdkconfig may
            burn anything, and consent to that must say so.
        record: what is known of this very board: what has passed on it, before UART download is switched off.

    Raises:
        RefusedError: the chip is another than declared, or one of the two is not known; or the plan burns eFuses,
            by itself or through the firmware it flashes, and consent is missing. Lists what is missing and prints the
            plan.
    """
    if not physical:
        return
    declared = plain_mac(mac_declared) if mac_declared is not None else None
    found = plain_mac(mac_found) if mac_found is not None else None
    require_same(board_name, declared, found)
    if found is not None and found != plan.mac:
        raise RefusedError(f"the plan is for {plan.mac}, this chip is {found}", board=board_name)
    if plan.burns_up_to is None:
        require_identified(board_name, declared, found)
        return
    missing = []
    if declared is None:
        missing.append(f"'mac:' in the entry of {board_name} (the chip says {found or 'nothing'})")
    if found is None:
        missing.append("the chip's own MAC, which it has not told")
    allowed = _profile(burn_up_to, board_name)
    if allowed is None or not allowed.covers(plan.burns_up_to):
        given = f"it says {allowed.value}" if allowed else "it is absent, which means never"
        missing.append(f"'burn_up_to: {plan.burns_up_to.value}' in the entry of {board_name} ({given})")
    if board_name not in burn_names:
        missing.append(f"'--burn {board_name}' on this run")
    if plan.unknown_burns and board_name not in unknown_burns_accepted:
        missing.append(
            f"'--accept-unknown-burns {board_name}' on this run: nobody can tell what this firmware burns by itself "
            "(better: give the build with its sdkconfig)"
        )
    if plan.final:
        unproven = record.missing_proofs() if record is not None else tuple(PROOFS_FOR_DOWNLOAD_OFF.values())
        missing += [f"{what} that passed on this very board: its record knows of none" for what in unproven]
    if missing:
        listed = "".join(f"\n  - {each}" for each in missing)
        raise RefusedError(
            f"nothing is burned without consent that names the board.\n{plan.text()}\nMissing:{listed}",
            board=board_name,
            todo="read the plan above; if you want it, add what is missing",
        )


def _profile(name: str | None, board_name: str) -> Profile | None:
    if name is None:
        return None
    try:
        return Profile(name)
    except ValueError as error:
        raise UsageError(
            f"burn_up_to: '{name}' is not a profile",
            board=board_name,
            todo=f"use one of: {', '.join(each.value for each in Profile)}",
        ) from error
