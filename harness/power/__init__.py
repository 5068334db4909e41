"""Cutting and giving a board's supply: one file per way of doing it.

A reset is not a cut: EN low leaves the flash supplied, and an erase that is under way completes. What can only
reset is no `Power`.
"""

from harness.power.power import Power

__all__ = ["Power"]
