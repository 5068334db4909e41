"""Brings a board into a profile: plans it, asks nobody, burns it, proves it."""

from harness.late_names import late_names

__getattr__ = late_names(
    __name__,
    {
        "chip_state": ("ChipState", "Download", "KeyBlock", "SecurityInfo", "unreachable_state"),
        "consent": ("check_consent",),
        "device_record": ("DeviceRecord", "DeviceRecords"),
        "execute": ("Outcome", "StepEvent", "carry_out"),
        "plan": ("Plan",),
        "planner": ("plan_for",),
        "profile": ("Lock", "Profile", "default_lock"),
        "recognition": ("Recognition", "profile_of"),
        "region": ("FlashRegion",),
        "session": ("Session", "SessionFactory"),
    },
)
