"""One answer of the OTA server going out on its connection, byte for byte as a fault wants it.

All lies are told here. The rest of the server knows what the right answer is; this file sends it, or what a
`Fault` makes of it, and fills in the journal's record while it does.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter

from harness.ota.faults import ArmedFault, Fault, FaultKind, byte_struck
from harness.ota.journal import OpenRequest, RequestEnd

_PIECE_BYTES = 16 * 1024
_SLOW_TICK_S = 0.05
_POLL_S = 0.02
_FLUSH_S = 5.0
"""How long a fault waits for the bytes before it to be acknowledged by the peer's network stack."""
_NO_BODY = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})


@dataclass(frozen=True, slots=True)
class Answer:
    """The right answer to a request: what a server without faults sends."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    first_byte: int = 0
    """Offset of `body` within the published bytes."""
    size_bytes: int = 0
    """Size of the published bytes."""


class ShapedResponse(web.StreamResponse):
    """A response whose Content-Length may differ from the number of bytes that follow.

    aiohttp clips a body to the declared length and makes chunks when there is none. So the true length is
    declared to it, and `shape_head` replaces the header's text after aiohttp has taken note of the truth.
    """

    shaped: bool = False
    declared: str | None = None


async def shape_head(_request: web.Request, response: web.StreamResponse) -> None:
    """``on_response_prepare`` hook: put a `ShapedResponse`'s own Content-Length, or none, into the head."""
    if isinstance(response, ShapedResponse) and response.shaped:
        del response.headers["Content-Length"]
        if response.declared is not None:
            response.headers["Content-Length"] = response.declared


async def send(
    request: web.Request, answer: Answer, record: OpenRequest, armed: ArmedFault | None = None
) -> web.StreamResponse:
    """Send `answer`, or what the fault makes of it, until it is complete or cut.

    Raises:
        ConnectionError: the peer left. CancelledError: it left while nothing was being sent, or the
            server stops.
    """
    fault = armed.fault if armed is not None else None
    answer = _altered(answer, fault)
    record.status, record.first_byte, record.body_bytes = answer.status, answer.first_byte, len(answer.body)
    cut = None
    if armed is not None and fault is not None:
        if fault.kind in (FaultKind.RESET, FaultKind.STALL) and fault.at_byte is None:
            record.status = None
            if await _strike(request, armed, record):
                return ShapedResponse()
            record.status = answer.status
        elif fault.kind in (FaultKind.RESET, FaultKind.STALL, FaultKind.TRUNCATE):
            at_byte = byte_struck(fault, answer.size_bytes)
            cut = None if at_byte is None else at_byte - answer.first_byte
        else:
            armed.note_strike()
    response = _head(request, answer, fault)
    writer = await response.prepare(request)
    if writer is None or request.method == "HEAD":
        record.body_bytes = 0
        return response
    await writer.drain()
    rate = fault.bytes_per_s if fault is not None else None
    await _send_bytes(writer, answer.body[:cut], record, rate)
    if armed is not None and cut is not None:
        if await _strike(request, armed, record):
            response.force_close()
            return response
        await _send_bytes(writer, answer.body[cut:], record, None)
    await response.write_eof()
    return response


def _altered(answer: Answer, fault: Fault | None) -> Answer:
    """The answer with the status, the headers or the bytes that the fault puts in their place."""
    if fault is None:
        return answer
    if fault.kind is FaultKind.STATUS:
        status = fault.code or HTTPStatus.SERVICE_UNAVAILABLE
        return Answer(status, {"Content-Type": "text/plain"}, b"" if status in _NO_BODY else b"fault\n")
    if fault.kind is FaultKind.REDIRECT:
        return replace(answer, status=fault.code or answer.status)
    if fault.kind is FaultKind.FLIP:
        at_byte = byte_struck(fault, answer.size_bytes)
        body = bytearray(answer.body)
        if at_byte is not None and 0 <= at_byte - answer.first_byte < len(body):
            body[at_byte - answer.first_byte] ^= 1 << (fault.bit or 0)
        return replace(answer, body=bytes(body))
    return answer


def _head(request: web.Request, answer: Answer, fault: Fault | None) -> ShapedResponse:
    response = ShapedResponse(status=answer.status, headers=answer.headers)
    kind = fault.kind if fault is not None else None
    if kind is FaultKind.CHUNKED and request.version >= HttpVersion11:
        response.enable_chunked_encoding()
        return response
    response.content_length = len(answer.body)
    if fault is not None and kind is FaultKind.WRONG_LENGTH:
        response.shaped, response.declared = True, str(max(0, len(answer.body) + (fault.delta or 0)))
    elif kind in (FaultKind.MISSING_LENGTH, FaultKind.CHUNKED):
        response.shaped, response.declared = True, None
    if response.shaped or request.body_exists:
        # A body nobody reads must not be taken for the next request.
        response.force_close()
    return response


async def _send_bytes(
    writer: AbstractStreamWriter, body: bytes, record: OpenRequest, bytes_per_s: float | None
) -> None:
    """Hand `body` to the network piece by piece, each accepted by the kernel before it is counted."""
    piece_bytes = _PIECE_BYTES
    if bytes_per_s is not None:
        piece_bytes = max(1, min(_PIECE_BYTES, int(bytes_per_s * _SLOW_TICK_S)))
    started_s = time.monotonic()
    for at in range(0, len(body), piece_bytes):
        piece = body[at : at + piece_bytes]
        await writer.write(piece)
        await writer.drain()
        record.bytes_sent += len(piece)
        if bytes_per_s is not None:
            due_s = started_s + (at + len(piece)) / bytes_per_s
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))


async def _strike(request: web.Request, armed: ArmedFault, record: OpenRequest) -> bool:
    """Stall, or end the connection; True when it has ended."""
    fault, transport = armed.fault, request.transport
    if transport is None:
        raise ConnectionResetError("the peer left before the fault struck")
    sock = transport.get_extra_info("socket")
    await _wait_acknowledged(sock)
    armed.note_strike()
    if fault.kind is FaultKind.STALL:
        until_s = None if fault.seconds is None else time.monotonic() + fault.seconds
        while not armed.released and (until_s is None or time.monotonic() < until_s):
            await asyncio.sleep(_POLL_S)
        return False
    record.end = RequestEnd.CUT_BY_FAULT
    if fault.kind is FaultKind.RESET:
        # Linger of zero seconds: close sends RST instead of FIN. Windows' struct linger has short members.
        linger = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
    return True


async def _wait_acknowledged(sock: socket.socket) -> None:
    """Wait, within a bound, until the peer's network stack has what was sent; a RST would take the rest back."""
    until_s = time.monotonic() + _FLUSH_S
    while (unsent := _unacknowledged_bytes(sock)) != 0 and time.monotonic() < until_s:
        await asyncio.sleep(_POLL_S)
        if unsent is None:
            return


def _unacknowledged_bytes(sock: socket.socket) -> int | None:
    """Bytes in the socket's send queue; None where the system does not tell."""
    if sys.platform == "linux":
        import fcntl  # no such module on Windows
        import termios

        # SIOCOUTQ, which shares its number with TIOCOUTQ (tcp(7)).
        answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
        return int.from_bytes(answer, sys.byteorder)
    if sys.platform == "darwin":
        return sock.getsockopt(socket.SOL_SOCKET, 0x1024)  # SO_NWRITE
    return None
