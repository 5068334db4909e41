"""One answer of the OTA server going out on its connection, byte for byte as a fault wants it.

All lies about how a body travels are told here; those in status, headers and bytes come from `harness.ota.answer`. The
rest of the server knows what the right answer is, but for the part of a file that a fault puts in place of another.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import time
from http import HTTPStatus

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter

from harness.ota.answer import Answer, altered
from harness.ota.faults import ArmedFault, Fault, FaultKind, byte_struck
from harness.ota.journal import OpenRequest, RequestEnd

_PIECE_BYTES = 16 * 1024
_SLOW_TICK_S = 0.05
_POLL_S = 0.02
_FLUSH_S = 5.0
"""How long a fault waits for the bytes before it to be acknowledged by the peer's network stack."""
_CHUNK_BYTES = 5000
_INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </next>; rel=preload\r\n\r\n"
_EXTRA_BYTE = b"U"
_BEFORE_ALL = frozenset({FaultKind.RESET, FaultKind.STALL})
_CUTS = frozenset(
    {FaultKind.RESET, FaultKind.STALL, FaultKind.TRUNCATE, FaultKind.CHUNKED, FaultKind.MISSING_LENGTH}
)
_BY_HAND = frozenset({FaultKind.HTTP10, FaultKind.SLOW_HEADER, FaultKind.CHUNK_EXTRAS})


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
    answer = altered(answer, fault)
    record.status, record.first_byte, record.body_bytes = answer.status, answer.first_byte, len(answer.body)
    if armed is None or fault is None:
        return await _send_as_usual(request, answer, None, record)
    if fault.kind in _BEFORE_ALL and fault.at_byte is None:
        record.status = None
        if await _strike(request, armed, record):
            return ShapedResponse()
        record.status = answer.status
    elif not _is_cut(fault):
        armed.note_strike()
    if fault.kind in _BY_HAND:
        return await _send_by_hand(request, answer, fault, record)
    return await _send_as_usual(request, answer, armed, record)


def _is_cut(fault: Fault) -> bool:
    """It ends, or holds up, the body at its byte."""
    return fault.kind in _CUTS and fault.at_byte is not None


async def _send_as_usual(
    request: web.Request, answer: Answer, armed: ArmedFault | None, record: OpenRequest
) -> web.StreamResponse:
    fault = armed.fault if armed is not None else None
    at_byte = None if fault is None else byte_struck(fault, answer.size_bytes)
    cut = None if at_byte is None else at_byte - answer.first_byte
    response = _head(request, answer, fault)
    if fault is not None and fault.kind is FaultKind.INTERIM:
        await request.writer.write(_INTERIM * (fault.count or 1))
    writer = await response.prepare(request)
    if writer is None or request.method == "HEAD":
        record.body_bytes = 0
        return response
    await writer.drain()
    if fault is not None and fault.kind is FaultKind.SLOW:
        await _send_bytes(writer, answer.body[: cut or 0], record)
        await _send_bytes(writer, answer.body[cut or 0 :], record, fault.bytes_per_s, armed)
    elif armed is not None and fault is not None and _is_cut(fault):
        await _send_bytes(writer, answer.body[:cut], record)
        if await _strike(request, armed, record):
            response.force_close()
            return response
        await _send_bytes(writer, answer.body[cut:], record)
    else:
        await _send_bytes(writer, answer.body, record)
        if fault is not None and fault.kind is FaultKind.EXTRA_BYTES:
            await writer.write(_EXTRA_BYTE * (fault.count or 1))
    await response.write_eof()
    return response


def _head(request: web.Request, answer: Answer, fault: Fault | None) -> ShapedResponse:
    response = ShapedResponse(status=answer.status, headers=answer.headers)
    kind = fault.kind if fault is not None else None
    if kind is FaultKind.CHUNKED and request.version >= HttpVersion11:
        response.enable_chunked_encoding()
        return response
    response.content_length = len(answer.body)
    if fault is not None and kind is FaultKind.WRONG_LENGTH:
        response.shaped, response.declared = True, str(max(0, len(answer.body) + (fault.delta or 0)))
    elif fault is not None and kind is FaultKind.BAD_LENGTH:
        response.shaped, response.declared = True, fault.text
    elif fault is not None and kind is FaultKind.EXTRA_BYTES:
        response.shaped, response.declared = True, str(len(answer.body))
        response.content_length += fault.count or 1
    elif kind in (FaultKind.MISSING_LENGTH, FaultKind.CHUNKED):
        response.shaped, response.declared = True, None
    if response.shaped or request.body_exists:
        # A body nobody reads must not be taken for the next request.
        response.force_close()
    return response


async def _send_by_hand(
    request: web.Request, answer: Answer, fault: Fault, record: OpenRequest
) -> web.StreamResponse:
    """Send what aiohttp would not, and close the connection."""
    version = "HTTP/1.0" if fault.kind is FaultKind.HTTP10 else "HTTP/1.1"
    is_chunked = fault.kind is FaultKind.CHUNK_EXTRAS
    framing = {"Transfer-Encoding": "chunked"} if is_chunked else {"Content-Length": str(len(answer.body))}
    lines = [f"{version} {answer.status} {HTTPStatus(answer.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in {**answer.headers, **framing}.items()]
    writer = request.writer
    await _send_bytes(writer, "\r\n".join([*lines, "", ""]).encode("ascii"), None, fault.bytes_per_s)
    if request.method == "HEAD":
        record.body_bytes = 0
    elif is_chunked:
        for at in range(0, len(answer.body), _CHUNK_BYTES):
            piece = answer.body[at : at + _CHUNK_BYTES]
            await writer.write(f'{len(piece):x};name=value;"quoted"\r\n'.encode("ascii"))
            await _send_bytes(writer, piece, record)
            await writer.write(b"\r\n")
        await writer.write(b"0;last\r\nX-Trailer: one\r\nX-Other: two\r\n\r\n")
    else:
        await _send_bytes(writer, answer.body, record)
    return _closed(request)


def _closed(request: web.Request) -> web.StreamResponse:
    """Close the connection behind what was sent; aiohttp then gets nothing onto it."""
    if request.transport is not None:
        request.transport.close()
    response = ShapedResponse()
    response.force_close()
    return response


async def _send_bytes(
    writer: AbstractStreamWriter,
    data: bytes,
    record: OpenRequest | None,
    bytes_per_s: float | None = None,
    armed: ArmedFault | None = None,
) -> None:
    """Hand `data` to the network piece by piece, each accepted by the kernel before it is counted; at `bytes_per_s`
    until `armed` is released."""
    piece_bytes = _PIECE_BYTES
    if bytes_per_s is not None:
        piece_bytes = max(1, min(_PIECE_BYTES, int(bytes_per_s * _SLOW_TICK_S)))
    started_s = time.monotonic()
    for at in range(0, len(data), piece_bytes):
        piece = data[at : at + piece_bytes]
        await writer.write(piece)
        await writer.drain()
        if record is not None:
            record.bytes_sent += len(piece)
        if bytes_per_s is not None and not (armed is not None and armed.released):
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
    elif fault.kind is FaultKind.CHUNKED:
        transport.close()  # else aiohttp would send the last chunk
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
