"""Names for what rows of tables hold: short, and the same in every worker."""

from __future__ import annotations

import pytest

from harness.chips import Chip


@pytest.hookimpl(tryfirst=True)
def pytest_make_parametrize_id(val: object) -> str | None:
    """A chip and a function by name, bytes by their number; everything else as pytest does."""
    if isinstance(val, Chip):
        return val.name
    if isinstance(val, bytes) and len(val) > 8:
        return f"{len(val)} bytes"
    name = getattr(val, "__name__", None)
    return name if callable(val) and isinstance(name, str) else None
