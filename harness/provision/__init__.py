"""Brings a board into a profile: plans it, asks nobody, burns it, proves it."""

from harness.provision.chip_state import ChipState, Download, KeyBlock, SecurityInfo, unreachable_state
from harness.provision.consent import check_consent
from harness.provision.device_record import DeviceRecord, DeviceRecords
from harness.provision.execute import Outcome, StepEvent, carry_out
from harness.provision.plan import Plan
from harness.provision.planner import plan_for
from harness.provision.profile import Lock, Profile, default_lock
from harness.provision.recognition import Recognition, profile_of
from harness.provision.region import FlashRegion
from harness.provision.session import Session, SessionFactory

__all__ = [
    "ChipState",
    "DeviceRecord",
    "DeviceRecords",
    "Download",
    "FlashRegion",
    "KeyBlock",
    "Lock",
    "Outcome",
    "Plan",
    "Profile",
    "Recognition",
    "SecurityInfo",
    "Session",
    "SessionFactory",
    "StepEvent",
    "carry_out",
    "check_consent",
    "default_lock",
    "plan_for",
    "profile_of",
    "unreachable_state",
]
