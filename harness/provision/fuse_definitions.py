"""espefuse's eFuse tables, parsed once per process instead of once per connection."""

from __future__ import annotations

import copy
import functools
import importlib
from typing import Any

_TABLE_CLASS = "EfuseDefineFields"


@functools.cache
def parse_once(chip_name: str) -> None:
    """Makes espefuse parse its YAML table of a chip (some 100 KB, 0.1 to 0.3 s) the first time only.

    A provisioning connects four to six times. Every connection still gets a copy of its own. espefuse has no
    setting for this; a version in which the class has another name simply goes on parsing every time.
    """
    module = importlib.import_module(f"espefuse.efuse.{chip_name}.fields")
    define = getattr(module, _TABLE_CLASS, None)
    if define is None:
        return
    parsed = functools.cache(define)

    def defined(extended_table: Any, **which: Any) -> Any:
        # A person's own table is an open file: never shared. `which` names the table of an older silicon
        # (ESP32-H2, ESP32-P4).
        if extended_table is not None:
            return define(extended_table, **which)
        return copy.deepcopy(parsed(None, **which))

    setattr(module, _TABLE_CLASS, defined)
