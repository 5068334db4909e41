"""What a sanitizer found in the firmware of a twin, as the twin says it on the UART.

A build with HARNESS_SANITIZE ends at its first finding; the board then resets as after a panic. A test that waits for a
reset must not take the one for the other.
"""

from __future__ import annotations

from collections.abc import Iterable

from harness.console.log_line import Line

SIGN = "twin: sanitizer"
"""Every line of a report begins so (`harness.twin.app_host`)."""


def sanitizer_report(lines: Iterable[Line]) -> str | None:
    """The lines of all reports among `lines`, None when there is none."""
    told = [line.text for line in lines if not line.is_mark and line.text.startswith(SIGN)]
    return "\n".join(told) or None
