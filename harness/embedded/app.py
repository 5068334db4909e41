"""``dut.app``: what a test of pytest-embedded's kind asks of the build that is flashed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytest_embedded import App

from harness.build.app_dir import AppDirectory

XTENSA = ("esp32", "esp32s2", "esp32s3")


class HarnessApp(App):  # type: ignore[misc]
    """The build on the board, with the names that pytest-embedded's ``IdfApp`` has for it."""

    def __init__(self, app: AppDirectory | None, chip: str) -> None:
        folder = str(app.dir) if app is not None else None
        super().__init__(app_path=folder, build_dir=folder)
        self.target = chip
        self.sdkconfig = sdkconfig_values((app.sdkconfig if app is not None else None) or {})
        """As ESP-IDF's sdkconfig.json has it: names without ``CONFIG_``, values with their types."""
        self.project = app.project if app is not None else None
        self.version = app.version if app is not None else None
        self.elf_file = _only(app.dir, "*.elf") if app is not None else None
        self.bin_file = _only(app.dir, f"{app.project}.bin") if app is not None else None

    @property
    def is_xtensa(self) -> bool:
        return self.target in XTENSA

    @property
    def is_riscv32(self) -> bool:
        return not self.is_xtensa


def sdkconfig_values(options: Any) -> dict[str, Any]:
    """``CONFIG_NAME`` and text become ``NAME`` and bool, int or text."""
    return {name.removeprefix("CONFIG_"): _value(text) for name, text in options.items()}


def _value(text: str) -> Any:
    if text in ("y", "n", ""):
        return text == "y"
    try:
        return int(text, 0)
    except ValueError:
        return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def _only(folder: Path, pattern: str) -> str | None:
    found = sorted(folder.glob(pattern))
    return str(found[0]) if len(found) == 1 else None
