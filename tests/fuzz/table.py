"""All fuzz targets, by name."""

from __future__ import annotations

from collections.abc import Mapping

from tests.fuzz.target import Target
from tests.fuzz.targets import console, files, formats, http, runs, twin

TARGETS: Mapping[str, Target] = {
    target.name: target for module in (formats, files, runs, console, twin, http) for target in module.TARGETS
}
