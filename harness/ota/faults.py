"""Faults that the OTA server commits on request: what, on which request, at which byte, how often."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass, field, fields
from enum import Enum
from fnmatch import fnmatchcase

from harness.errors import BoardError, UsageError
from harness.ota.mac_address import normal_mac


class FaultKind(str, Enum):
    """What goes wrong. The words are those of `Fault.kind`; each lists the options it takes."""

    STATUS = "status"
    """Another status instead of the file. ``code`` (200 to 599, default 503)."""
    TRUNCATE = "truncate"
    """The declared length stays, the connection is closed before byte ``at_byte``."""
    STALL = "stall"
    """Nothing more is sent before byte ``at_byte`` for ``seconds``; without it until released or stopped."""
    SLOW = "slow"
    """The body, or what of it lies behind ``at_byte``, goes out at ``bytes_per_s``."""
    SLOW_HEADER = "slow-header"
    """Status line and headers go out at ``bytes_per_s``."""
    RESET = "reset"
    """The connection is reset (TCP RST) before byte ``at_byte``."""
    FLIP = "flip"
    """Bit ``bit`` (0 to 7, default 0) of byte ``at_byte`` is inverted."""
    DUPLICATE_BYTE = "duplicate-byte"
    """Byte ``at_byte`` comes twice; the declared length stays, so the last byte falls off."""
    EXTRA_BYTES = "extra-bytes"
    """``count`` bytes (default 1) more than declared follow the body, then the connection is closed."""
    WRONG_LENGTH = "wrong-length"
    """Content-Length is off by ``delta`` bytes; body whole, connection closed after it."""
    BAD_LENGTH = "bad-length"
    """Content-Length is ``text``, number or not; body whole, connection closed after it."""
    MISSING_LENGTH = "missing-length"
    """No Content-Length and no chunks: the body ends where the connection does, ``at_byte`` or at its end."""
    CHUNKED = "chunked"
    """Transfer-Encoding: chunked instead of Content-Length (for HTTP/1.0, which has none: no length). With
    ``at_byte`` the connection is closed before that byte, behind a chunk that is not the last."""
    CHUNK_EXTRAS = "chunk-extras"
    """As chunked, every chunk with an extension, and headers in a trailer."""
    GZIP = "gzip"
    """The body is packed, and Content-Encoding says so."""
    HTTP10 = "http10"
    """An answer of HTTP/1.0, whose connection is closed after it."""
    INTERIM = "interim"
    """``count`` answers (default 1) with status 103 come before the one that counts."""
    LONG_HEADER = "long-header"
    """Among the headers is one of ``count`` bytes (default 8192)."""
    REDIRECT = "redirect"
    """Redirect to ``target``: another name published for the device, or an absolute URL. ``code`` is 302."""
    CHANGED_ON_RESUME = "changed-on-resume"
    """A request that starts behind byte 0 gets other bytes: of ``content``, or all bits inverted."""
    NO_RANGES = "no-ranges"
    """A request that starts behind byte 0 gets the whole file with status 200, as where ranges are not known."""
    WRONG_RANGE = "wrong-range"
    """A request that starts behind byte 0 gets what begins ``delta`` bytes further on; Content-Range says so."""
    CONTENT_RANGE = "content-range"
    """A request that starts behind byte 0 is told ``text`` as Content-Range, or none when that is empty."""
    UNASKED_RANGE = "unasked-range"
    """Status 206 and a Content-Range, whatever was asked for."""


_K = FaultKind
_TAKES: dict[FaultKind, frozenset[str]] = {
    _K.STATUS: frozenset({"code"}),
    _K.TRUNCATE: frozenset({"at_byte"}),
    _K.STALL: frozenset({"at_byte", "seconds"}),
    _K.SLOW: frozenset({"bytes_per_s", "at_byte"}),
    _K.SLOW_HEADER: frozenset({"bytes_per_s"}),
    _K.RESET: frozenset({"at_byte"}),
    _K.FLIP: frozenset({"at_byte", "bit"}),
    _K.DUPLICATE_BYTE: frozenset({"at_byte"}),
    _K.EXTRA_BYTES: frozenset({"count"}),
    _K.WRONG_LENGTH: frozenset({"delta"}),
    _K.BAD_LENGTH: frozenset({"text"}),
    _K.MISSING_LENGTH: frozenset({"at_byte"}),
    _K.CHUNKED: frozenset({"at_byte"}),
    _K.CHUNK_EXTRAS: frozenset(),
    _K.GZIP: frozenset(),
    _K.HTTP10: frozenset(),
    _K.INTERIM: frozenset({"count"}),
    _K.LONG_HEADER: frozenset({"count"}),
    _K.REDIRECT: frozenset({"target", "code"}),
    _K.CHANGED_ON_RESUME: frozenset({"content"}),
    _K.NO_RANGES: frozenset(),
    _K.WRONG_RANGE: frozenset({"delta"}),
    _K.CONTENT_RANGE: frozenset({"text"}),
    _K.UNASKED_RANGE: frozenset(),
}
_NEEDS: dict[FaultKind, str] = {
    _K.TRUNCATE: "at_byte",
    _K.FLIP: "at_byte",
    _K.SLOW: "bytes_per_s",
    _K.SLOW_HEADER: "bytes_per_s",
    _K.DUPLICATE_BYTE: "at_byte",
    _K.BAD_LENGTH: "text",
    _K.WRONG_RANGE: "delta",
    _K.CONTENT_RANGE: "text",
    _K.WRONG_LENGTH: "delta",
    _K.REDIRECT: "target",
}
_OPTIONS: frozenset[str] = frozenset[str]().union(*_TAKES.values())
_ON_RESUME = frozenset({_K.CHANGED_ON_RESUME, _K.NO_RANGES, _K.WRONG_RANGE, _K.CONTENT_RANGE})
_ENDS_AT_BYTE = frozenset({_K.TRUNCATE, _K.RESET, _K.STALL})
# Anything else could not stand in a Location header, or in another one.
_TARGET = re.compile(r"[!-~]+")
_TEXT = re.compile(r"[ -~]*")
_ETAGS = ("none", "weak", "kept")
_MOST_COUNT = 1 << 20


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. Which options belong to which kind is said at `FaultKind`; others are refused.

    ``at_byte`` counts in bytes of the published file, also when a range of it is asked for: a request whose
    range does not hold that byte is answered without fault and does not use it up. So a client that resumes
    gets on after ``times=1``, and meets the same byte again with ``times=None``. Negative counts from the end
    (-1: last byte). For reset and stall, None means before the status line; 0 is behind the header. Truncate,
    reset and stall also take the file's size, which is behind its last byte.

    Raises:
        UsageError: an option is missing, out of range, or does not belong to the kind.
    """

    kind: FaultKind
    match: str = "*"
    """Published name; ``*`` and ``?`` as in a shell."""
    device: str | None = None
    """MAC of the only device concerned; None: every device."""
    times: int | None = 1
    """How many requests it strikes; None: all until removed."""
    etag: str | None = None
    """What becomes of the answer's ETag, with any kind: ``none`` leaves it out, ``weak`` marks it so, ``kept``
    is that of the published file, whatever is sent."""
    at_byte: int | None = None
    code: int | None = None
    seconds: float | None = None
    bytes_per_s: float | None = None
    delta: int | None = None
    bit: int | None = None
    count: int | None = None
    text: str | None = None
    target: str | None = None
    content: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        try:
            kind = FaultKind(self.kind)
        except ValueError:
            known = ", ".join(k.value for k in FaultKind)
            raise UsageError(f"no fault is called '{self.kind}'", todo=f"use one of: {known}") from None
        # A frozen dataclass normalises its fields this way: the word as well as the member is accepted.
        object.__setattr__(self, "kind", kind)
        if self.device is not None:
            object.__setattr__(self, "device", normal_mac(self.device))
        for name in _OPTIONS:
            if getattr(self, name) is not None and name not in _TAKES[kind]:
                takes = ", ".join(sorted(_TAKES[kind])) or "no option"
                raise UsageError(f"fault '{kind.value}' does not take {name}", todo=f"it takes: {takes}")
        needed = _NEEDS.get(kind)
        if needed is not None and getattr(self, needed) is None:
            raise UsageError(f"fault '{kind.value}' needs {needed}")
        self._check_ranges()

    def _check_ranges(self) -> None:
        codes = range(300, 400) if self.kind is FaultKind.REDIRECT else range(200, 600)
        accepted = {
            "times (1 or more, or None)": self.times is None or self.times >= 1,
            f"code ({codes.start} to {codes.stop - 1})": self.code is None or self.code in codes,
            "seconds (0 or more)": self.seconds is None or self.seconds >= 0,
            "bytes_per_s (more than 0)": self.bytes_per_s is None or self.bytes_per_s > 0,
            "delta (not 0)": self.delta != 0,
            "bit (0 to 7)": self.bit is None or 0 <= self.bit <= 7,
            f"count (1 to {_MOST_COUNT})": self.count is None or 1 <= self.count <= _MOST_COUNT,
            "text (ASCII)": self.text is None or bool(_TEXT.fullmatch(self.text)),
            "target (ASCII without spaces)": self.target is None or bool(_TARGET.fullmatch(self.target)),
            f"etag ({', '.join(_ETAGS)})": self.etag is None or self.etag in _ETAGS,
        }
        for what, is_right in accepted.items():
            if not is_right:
                raise UsageError(f"fault '{self.kind.value}': {what} is out of range")

    def __str__(self) -> str:
        """As the journal says it, e.g. ``truncate at byte 4096``; never the content."""
        said = [self.kind.value]
        for option in fields(self):
            value = getattr(self, option.name)
            if option.name in _OPTIONS | {"etag"} and option.name != "content" and value is not None:
                said.append(f"at byte {value}" if option.name == "at_byte" else f"{option.name}={value}")
        return " ".join(said)


class ArmedFault:
    """A fault that a server holds, and what came of it. Safe to use from any thread."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self._changed = threading.Condition()
        self._left = fault.times
        self._struck = 0
        self._released = False

    @property
    def struck(self) -> int:
        """How often it has taken effect: for stall, truncate and reset when its byte was reached, everything
        before it being with the peer's network stack (which may be ahead of what the peer has read)."""
        with self._changed:
            return self._struck

    @property
    def released(self) -> bool:
        """`release` was called: stalls and slowness end, no further request is struck."""
        with self._changed:
            return self._released

    def release(self) -> None:
        """End its stalls and slowness in progress and strike no more."""
        with self._changed:
            self._released = True
            self._changed.notify_all()

    def wait_struck(self, timeout_s: float, *, times: int = 1) -> None:
        """Wait until it has struck `times` times: the moment for cutting power at a byte of the download.

        Raises:
            BoardError: it did not within `timeout_s`.
        """
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            while self._struck < times:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    raise BoardError(
                        f"the OTA server's fault '{self.fault}' on '{self.fault.match}' struck "
                        f"{self._struck} time(s) within {timeout_s:g} s, {times} expected",
                        todo="check in the server's journal what the board asked for, and how far it got",
                    )
                self._changed.wait(left_s)

    def note_strike(self) -> None:
        """Called by the server at the moment of effect."""
        with self._changed:
            self._struck += 1
            self._changed.notify_all()

    def take(self) -> bool:
        """Use it up once; False when nothing is left of it."""
        with self._changed:
            if self._released or self._left == 0:
                return False
            if self._left is not None:
                self._left -= 1
            return True


class Faults:
    """The faults of one server. A request meets the oldest one that fits it, and only that one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._armed: list[ArmedFault] = []

    def add(self, fault: Fault) -> ArmedFault:
        """Arm `fault` from the next request on; the result tells when it strikes, and releases it."""
        armed = ArmedFault(fault)
        with self._lock:
            self._armed.append(armed)
        return armed

    def clear(self) -> None:
        """Remove all faults and end their stalls: the server behaves from now on."""
        with self._lock:
            gone, self._armed = self._armed, []
        for armed in gone:
            armed.release()

    def take(
        self, *, device: str, name: str, size_bytes: int, start: int, stop: int, has_body: bool
    ) -> ArmedFault | None:
        """Use up the fault for a request of bytes `start` to `stop` of `name`, which has `size_bytes`."""
        with self._lock:
            for armed in self._armed:
                if _fits(armed.fault, device, name, size_bytes, start, stop, has_body) and armed.take():
                    return armed
        return None


def byte_struck(fault: Fault, size_bytes: int) -> int | None:
    """``at_byte`` counted from the start of a file of `size_bytes`; None when it names no byte."""
    if fault.at_byte is None or fault.at_byte >= 0:
        return fault.at_byte
    return size_bytes + fault.at_byte if size_bytes + fault.at_byte >= 0 else None


def _fits(
    fault: Fault, device: str, name: str, size_bytes: int, start: int, stop: int, has_body: bool
) -> bool:
    if not fnmatchcase(name, fault.match) or fault.device not in (None, device):
        return False
    if fault.kind in _ON_RESUME:
        return start > 0
    if fault.at_byte is None:
        return True
    at_byte = byte_struck(fault, size_bytes)
    is_end = fault.kind in _ENDS_AT_BYTE and at_byte == stop == size_bytes
    return has_body and at_byte is not None and (start <= at_byte < stop or is_end)
