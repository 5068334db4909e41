"""espefuse with its tables parsed once: every chip, also those with more than one table."""

from __future__ import annotations

import importlib

import pytest
from espefuse import init_commands

from harness.chips import CHIPS
from harness.provision.fuse_definitions import parse_once


@pytest.mark.parametrize("chip", list(CHIPS))
def test_every_connection_gets_a_table_of_its_own(chip, monkeypatch):
    module = importlib.import_module(f"espefuse.efuse.{chip}.fields")
    monkeypatch.setattr(module, "EfuseDefineFields", module.EfuseDefineFields)
    parse_once.cache_clear()
    parse_once(chip)
    counter = CHIPS[chip].fuses.counter
    for _ in range(2):
        with init_commands(chip=chip, virt=True, do_not_confirm=True) as commands:
            assert commands.efuses[counter].get_raw() == 0
            commands.burn_efuse({counter: 1})
            assert commands.efuses[counter].get_raw() == 1
    parse_once.cache_clear()
