"""What a child process may see of our environment: only what any program needs to start.

Secrets of the harness's own environment, or of the CI job around it, do not travel.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

_KEPT = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "TEMP",
    "TMP",
    "SYSTEMROOT",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
)


def child_environment(also: Iterable[str] = ()) -> dict[str, str]:
    """The variables in `_KEPT` and those named in `also`, as far as they are set."""
    return {name: os.environ[name] for name in (*_KEPT, *also) if name in os.environ}
