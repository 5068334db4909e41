"""An answer of the OTA server: the right one, and what a fault makes of its status, headers and bytes. Pure."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus

from harness.ota.faults import Fault, FaultKind, byte_struck

_NO_BODY = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})
_LONG_HEADER_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers without those that say how the body travels, and the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    first_byte: int = 0
    """Offset of `body` within the published bytes."""
    size_bytes: int = 0
    """Size of the published bytes."""

    def with_headers(self, **headers: str | None) -> Answer:
        """The same answer with other headers (``_`` for ``-``); None leaves one out."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        kept = {name: value for name, value in self.headers.items() if name not in named}
        return replace(
            self, headers=kept | {name: value for name, value in named.items() if value is not None}
        )


def altered(answer: Answer, fault: Fault | None) -> Answer:
    """The answer with the status, the headers or the bytes that the fault puts in their place."""
    if fault is None:
        return answer
    alter = _ALTER.get(fault.kind)
    return _with_etag(alter(answer, fault) if alter is not None else answer, fault.etag)


def _with_etag(answer: Answer, wish: str | None) -> Answer:
    etag = answer.headers.get("ETag")
    if etag is None or wish in (None, "kept"):
        return answer
    return answer.with_headers(ETag=f"W/{etag}" if wish == "weak" else None)


def _other_status(_answer: Answer, fault: Fault) -> Answer:
    status = fault.code or HTTPStatus.SERVICE_UNAVAILABLE
    return Answer(status, {"Content-Type": "text/plain"}, b"" if status in _NO_BODY else b"fault\n")


def _redirected(answer: Answer, fault: Fault) -> Answer:
    return replace(answer, status=fault.code or answer.status)


def _struck_index(answer: Answer, fault: Fault) -> int | None:
    """Where in the body the struck byte lies; None when it does not."""
    at_byte = byte_struck(fault, answer.size_bytes)
    at = -1 if at_byte is None else at_byte - answer.first_byte
    return at if 0 <= at < len(answer.body) else None


def _flipped(answer: Answer, fault: Fault) -> Answer:
    at = _struck_index(answer, fault)
    if at is None:
        return answer
    body = bytearray(answer.body)
    body[at] ^= 1 << (fault.bit or 0)
    return replace(answer, body=bytes(body))


def _duplicated(answer: Answer, fault: Fault) -> Answer:
    at = _struck_index(answer, fault)
    if at is None:
        return answer
    return replace(answer, body=(answer.body[: at + 1] + answer.body[at:])[: len(answer.body)])


def _packed(answer: Answer, _fault: Fault) -> Answer:
    body = gzip.compress(answer.body, compresslevel=1, mtime=0)
    return replace(answer, body=body).with_headers(Content_Encoding="gzip")


def _with_long_header(answer: Answer, fault: Fault) -> Answer:
    return answer.with_headers(X_Long="x" * (fault.count or _LONG_HEADER_BYTES))


def _with_content_range(answer: Answer, fault: Fault) -> Answer:
    return answer.with_headers(Content_Range=fault.text or None)


def _without_ranges(answer: Answer, _fault: Fault) -> Answer:
    return answer.with_headers(Accept_Ranges=None)


def _partial(answer: Answer, _fault: Fault) -> Answer:
    last = answer.first_byte + len(answer.body) - 1
    said = f"bytes {answer.first_byte}-{last}/{answer.size_bytes}"
    return replace(answer, status=HTTPStatus.PARTIAL_CONTENT).with_headers(Content_Range=said)


_ALTER: Mapping[FaultKind, Callable[[Answer, Fault], Answer]] = {
    FaultKind.STATUS: _other_status,
    FaultKind.REDIRECT: _redirected,
    FaultKind.FLIP: _flipped,
    FaultKind.DUPLICATE_BYTE: _duplicated,
    FaultKind.GZIP: _packed,
    FaultKind.LONG_HEADER: _with_long_header,
    FaultKind.CONTENT_RANGE: _with_content_range,
    FaultKind.NO_RANGES: _without_ranges,
    FaultKind.UNASKED_RANGE: _partial,
}
