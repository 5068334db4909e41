"""The vendor tools' talk: to a callback instead of the terminal, and never with a key in it.

esptool keeps one logger per process. Ours is installed while a session is open and hands each line to the
session of the thread that printed it; other threads' lines go where they went before.
"""

from __future__ import annotations

import functools
import importlib
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from esptool.logger import EsptoolLogger, TemplateLogger, log

Sink = Callable[[str], None]
ProgressSink = Callable[[int, int], None]

_LONG_HEX = re.compile(r"(?:0x)?[0-9a-fA-F]{24,}|(?:\b[0-9a-fA-F]{2}[ :]){8,}[0-9a-fA-F]{2}\b")
_MARKUP = re.compile(r"(?<!\\)\[/?[a-z][a-z _]*\]")


class _Listening(threading.local):
    """The sinks of the current thread; None outside a session."""

    lines: Sink | None = None
    progress: ProgressSink | None = None


_listening = _Listening()
_installed = 0
_installing = threading.Lock()
_before: Any = None


def redact(text: str) -> str:
    """`text` with every long run of hexadecimal digits or bytes taken out: espefuse prints blocks it refuses."""
    return _LONG_HEX.sub("[...]", text)


class _QuietLogger(TemplateLogger):  # type: ignore[misc]
    """All seven methods of esptool's documented logger interface. It keeps no state of its own."""

    def print(self, *args: Any, **kwargs: Any) -> None:
        text = str(kwargs.get("sep", " ")).join(str(arg) for arg in args)
        if _listening.lines is None:
            _pass_on("print", *args, **kwargs)
            return
        for line in _MARKUP.sub("", text).replace("\\[", "[").splitlines():
            if line.strip(" ."):
                _listening.lines(redact(line.rstrip()))

    def note(self, message: str) -> None:
        self.print(f"Note: {message}")

    def warning(self, message: str) -> None:
        self.print(f"Warning: {message}")

    def error(self, message: str) -> None:
        self.print(f"Error: {message}")

    def stage(self, finish: bool = False) -> None:
        """Collapsing of lines on a terminal: not for a log."""

    def progress_bar(
        self,
        cur_iter: int,
        total_iters: int,
        prefix: str = "",  # noqa: ARG002 -- esptool's signature
        suffix: str = "",  # noqa: ARG002
        bar_length: int = 30,  # noqa: ARG002
    ) -> None:
        if _listening.progress is not None:
            _listening.progress(int(cur_iter), int(total_iters))

    def set_verbosity(self, verbosity: str) -> None:
        """There is one verbosity: everything, to the callback."""


@contextmanager
def vendor_log_installed() -> Iterator[None]:
    """Puts our logger in the place of esptool's for as long as any session is open."""
    global _installed, _before
    with _installing:
        _installed += 1
        if _installed == 1:
            _before = _current()
            log.set_logger(_QuietLogger())
    try:
        yield
    finally:
        with _installing:
            _installed -= 1
            if _installed == 0:
                _put_back(_before)
                _before = None


@contextmanager
def listening(lines: Sink, progress: ProgressSink | None) -> Iterator[None]:
    """While it lasts, what the tools print in this thread goes to `lines` and their progress to `progress`."""
    earlier = (_listening.lines, _listening.progress)
    _listening.lines, _listening.progress = lines, progress
    try:
        yield
    finally:
        _listening.lines, _listening.progress = earlier


@functools.cache
def catch_prints(chip_name: str) -> None:
    """Has what espefuse's module of a chip prints past its own logger go there, too.

    espefuse 5.6 does so while it burns a key of ESP32-P4: into the middle of what we print for machines.
    """
    module = importlib.import_module(f"espefuse.efuse.{chip_name}.fields")
    vars(module)["print"] = lambda *args, **kwargs: log.print(*args, **kwargs)


def _current() -> Any:
    """The logger that is installed: an instance from esptool 5.4 on, before that the singleton's class."""
    try:
        from esp_pylib.logger import EspLog
    except ImportError:
        return type(log)
    return EspLog.instance


def _put_back(before: Any) -> None:
    try:
        from esp_pylib.logger import EspLog
    except ImportError:
        log.__class__ = before
        return
    EspLog.instance = before if before is not None else EsptoolLogger()


def _pass_on(method: str, *args: Any, **kwargs: Any) -> None:
    """A line from a thread that has no session: as if our logger were not there."""
    if isinstance(_before, type) or _before is None:
        sys.stdout.write(" ".join(str(arg) for arg in args) + str(kwargs.get("end", "\n")))
    else:
        getattr(_before, method)(*args, **kwargs)
