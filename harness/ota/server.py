"""The HTTP server that boards fetch updates from: per-device secret paths, byte ranges, a journal, faults.

It runs in a thread of its own, so that a test's thread is free to watch the board. Every public method may
be called from any thread, and any number of servers may run at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware

from harness.errors import LabError, UsageError
from harness.ota.answer import Answer
from harness.ota.byte_range import RangeUnsatisfiable, parse_range
from harness.ota.faults import ArmedFault, Fault, FaultKind, Faults
from harness.ota.journal import Journal, OpenRequest, Request, RequestEnd
from harness.ota.listening import bind_first_free, is_wildcard, outward_address
from harness.ota.publications import File, Offer, Publications, sibling_path
from harness.ota.transmission import ShapedResponse, send, shape_head

_SHOWN_PATH, _SHOWN_RANGE, _SHOWN_METHOD = 200, 100, 20
_LIMITS = {"max_line_size": 4096, "max_field_size": 4096}
_MAX_HEADERS = 64
_MAX_CONNECTIONS = 256
"""At a time; the next ones are turned away. Descriptors are what the rest of the process lives on, too."""
_KEEPALIVE_S = 60.0
_LINGER_S = 1.0
"""How long an unwanted request body is read away before the connection is closed."""
_START_S, _STOP_S, _SHUTDOWN_S = 10.0, 10.0, 0.5
_SETTLE_TURNS, _SETTLE_S = 3, 1.0
# Turns of the event loop that asyncio takes from accepting a socket to owning a connection (which only then
# can be closed), and from closing a connection to closing its socket.
_TURNS_TO_CONNECT, _TURNS_TO_CLOSE = 6, 3
_INVERTED = bytes(255 - value for value in range(256))
_HEADERS = {"Server": "ota-harness", "Cache-Control": "no-store"}


class _Span(NamedTuple):
    """The status of an answer without fault, and the bytes of the file that it carries."""

    status: int
    start: int
    stop: int


class OtaServer:
    """Serves what was published, to whom it was published, and nothing else.

    As a context manager it starts with the defaults unless it was started, and stops at the end. Paths,
    faults and journal outlive a stop, so that a server can go away and come back.
    """

    def __init__(self, *, journal_path: Path | None = None) -> None:
        """`journal_path`: JSON Lines file that each request is appended to.

        Raises:
            LabError: the journal cannot be opened.
        """
        self.faults = Faults()
        self._journal = Journal(journal_path)
        self._lock = threading.RLock()
        self._published = Publications()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._stopping = False
        self._address: tuple[str, int] | None = None
        self._family = socket.AF_INET
        self._tls: ssl.SSLContext | None = None
        self._answering: set[asyncio.Transport] = set()

    def __enter__(self) -> OtaServer:
        return self if self.is_running else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        where = f"{self._address[0]}:{self._address[1]}" if self._address else "stopped"
        return f"<OtaServer {where}>"

    # ---- life -------------------------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        """Between `start` and `stop`."""
        return self._thread is not None

    @property
    def address(self) -> tuple[str, int]:
        """Address and port the server listens on.

        Raises:
            LabError: it is not running.
        """
        if self._address is None:
            raise LabError("the OTA server is not running", todo="start() it, or use it in a with statement")
        return self._address

    def start(
        self,
        bind: str = "127.0.0.1",
        port: int | Sequence[int] = 0,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> OtaServer:
        """Listen on `bind`, `port` (0: a free one) and return self once requests are answered.

        Of several ports the first free one is taken. With `tls` (which holds certificate and key) it speaks HTTPS.

        Raises:
            LabError: address or port cannot be had; the message names both. UsageError: running already.
        """
        with self._lock:
            if self._thread is not None:
                raise UsageError(f"the OTA server runs already, on port {self.address[1]}")
            sock = bind_first_free(bind, [port] if isinstance(port, int) else port)
            ready: Future[None] = Future()
            thread = threading.Thread(
                target=self._run, args=(sock, ready), name=f"ota-server-{sock.getsockname()[1]}", daemon=True
            )
            self._family = sock.family
            self._tls = tls
            self._address = sock.getsockname()[:2]
            self._stopping = False
            thread.start()
            try:
                ready.result(_START_S)
            except (OSError, RuntimeError, FutureTimeoutError) as error:
                self._address = None
                raise LabError(f"the OTA server did not start on {bind} port {port}: {error}") from error
            self._thread = thread
            return self

    def stop(self) -> None:
        """Cut every answer, close every socket and end the thread; does nothing when stopped.

        Raises:
            LabError: the thread did not end, or a line of the journal file could not be written.
        """
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is None:
                return
            self._stopping = True
            if self._loop is not None and self._stop is not None:
                self._loop.call_soon_threadsafe(self._stop.set)
            thread.join(_STOP_S)
            self._address = self._loop = self._stop = None
            if thread.is_alive():
                raise LabError(f"the OTA server's thread did not end within {_STOP_S:g} s")
            self._journal.check()

    # ---- what is served ---------------------------------------------------------------------------------

    def publish(self, device_mac: str, name: str, data: bytes, *, faultless: bool = False) -> str:
        """See `Publications.publish`. Answers that are on their way keep the old bytes."""
        return self._published.publish(device_mac, name, data, faultless=faultless)

    def open_path(self, path: str, device_mac: str, name: str) -> None:
        """See `Publications.open_path`: for firmware whose URL is compiled in."""
        self._published.open_path(path, device_mac, name)

    def withdraw(self, device_mac: str, name: str | None = None) -> None:
        """Stop serving `name`, or everything, to the device; later requests get 404."""
        self._published.withdraw(device_mac, name)

    def url_for(self, device_mac: str, name: str, host: str | None = None) -> str:
        """URL under which the device gets `name`. `host`: the address that the device uses for this machine;
        default is the one bound to, or, bound to all, that of the interface towards the network.

        Raises:
            UsageError: nothing is published there. LabError: not running, or no address to name.
        """
        address, port = self.address
        path = self._published.path_of(device_mac, name)
        if host is None:
            host = outward_address(self._family) if is_wildcard(address) else address
        return f"{'https' if self._tls else 'http'}://{_in_url(host)}:{port}{path}"

    # ---- what was asked for -----------------------------------------------------------------------------

    @property
    def journal(self) -> tuple[Request, ...]:
        """The requests whose answers have ended, oldest first, those the clients have just read included."""
        with self._lock:
            loop = self._loop
        if loop is not None:
            _settle(loop)
        return self._journal.requests

    def wait_for_request(
        self,
        accepts: Callable[[Request], bool],
        timeout_s: float,
        *,
        since: int = 0,
        what: str = "a request",
    ) -> Request:
        """See `Journal.wait_for`."""
        return self._journal.wait_for(accepts, timeout_s, since=since, what=what)

    # ---- the server's own thread ------------------------------------------------------------------------

    def _run(self, sock: socket.socket, ready: Future[None]) -> None:
        try:
            with sock:
                asyncio.run(self._serve(sock, ready))
        finally:
            if not ready.done():
                ready.set_exception(RuntimeError("its thread ended at once"))

    async def _serve(self, sock: socket.socket, ready: Future[None]) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        # The middleware answers, whatever the path; the route is there for its say on Expect headers.
        app = web.Application(middlewares=[self._middleware()])
        app.router.add_route("*", "/{anything:.*}", _never_reached, expect_handler=_ignore_expectation)
        app.on_response_prepare.append(shape_head)
        runner = web.AppRunner(
            app,
            handle_signals=False,
            handler_cancellation=True,
            access_log_class=self._refusals(),
            logger=_logger(),
            keepalive_timeout=_KEEPALIVE_S,
            lingering_time=_LINGER_S,
            shutdown_timeout=_SHUTDOWN_S,
            **_LIMITS,
        )
        try:
            await runner.setup()
            listener = await self._loop.create_server(_door(runner.server), sock=sock, ssl=self._tls)
        except (OSError, RuntimeError) as error:
            ready.set_exception(error)
            await runner.cleanup()
            return
        ready.set_result(None)
        await self._stop.wait()
        # Close the door first, so that no new answer begins while the others are being cut. A connection just
        # accepted must become asyncio's own before its server is closed: in between, nobody would close it.
        with contextlib.suppress(NotImplementedError):  # Windows' event loop accepts in another way
            asyncio.get_running_loop().remove_reader(sock)
        await _turns(_TURNS_TO_CONNECT)
        listener.close()
        for transport in list(self._answering):
            transport.abort()  # which cancels the answer
        await runner.cleanup()
        await _turns(_TURNS_TO_CLOSE)

    def _middleware(self) -> Middleware:
        @web.middleware
        async def answer_every_request(request: web.Request, handler: Handler) -> web.StreamResponse:  # noqa: ARG001
            return await self._answer(request)

        return answer_every_request

    def _refusals(self) -> type[AbstractAccessLogger]:
        """An access log that journals what aiohttp answered by itself, such as bytes that are no request."""
        journal, redacted, hidden = self._journal, self._published.redacted, self._published.without_tokens

        class Refusals(AbstractAccessLogger):
            def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:  # noqa: ARG002
                if not isinstance(response, ShapedResponse):
                    # For bytes that are no request aiohttp makes one up, with this method and path "/".
                    path = "-" if request.method == "UNKNOWN" else redacted(request.raw_path)[:_SHOWN_PATH]
                    method = hidden(request.method)[:_SHOWN_METHOD]
                    journal.add(OpenRequest(_peer(request), method, path, status=response.status))

        return Refusals

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = self._published.redacted(request.raw_path)[:_SHOWN_PATH]
        hidden = self._published.without_tokens
        record = OpenRequest(_peer(request), hidden(request.method)[:_SHOWN_METHOD], path)
        asked = request.headers.get("Range")
        record.range = hidden(asked)[:_SHOWN_RANGE] if asked is not None else None
        transport = request.transport
        if transport is not None:
            # Nothing waits in user space: a byte counted as sent has left this process. Under TLS some do (the
            # socket's own 64 KiB), and asyncio's SSL transport would pause for ever at a limit of 0.
            transport.set_write_buffer_limits(high=0 if self._tls is None else 1)
            self._answering.add(transport)
        try:
            response = await self._respond(request, record)
        except asyncio.CancelledError:
            record.end = RequestEnd.SERVER_STOPPED if self._stopping else RequestEnd.PEER_LEFT
            self._journal.add(record)
            raise
        except ConnectionError:
            # Sending this answer fails, too, which aiohttp takes as it is; an exception it would log.
            record.end = RequestEnd.SERVER_STOPPED if self._stopping else RequestEnd.PEER_LEFT
            response = ShapedResponse()
            response.force_close()
        finally:
            if transport is not None:
                self._answering.discard(transport)
        self._journal.add(record)
        return response

    async def _respond(self, request: web.Request, record: OpenRequest) -> web.StreamResponse:
        offer = self._published.find(request.raw_path)
        if offer is None:
            return await send(request, _plain(404), record)
        record.device, record.name = offer.mac, offer.name
        if len(request.headers) > _MAX_HEADERS:
            return await send(request, _plain(431), record)
        if request.method not in ("GET", "HEAD"):
            return await send(request, _plain(405, Allow="GET, HEAD"), record)
        file = offer.file
        asked = request.headers.get("Range")
        if request.headers.get("If-Range", file.etag) != file.etag:
            asked = None
        span = _span(asked, len(file.data))
        armed = None if file.faultless else self._armed(offer, span, request.method)
        if armed is not None:
            record.fault = self._published.redacted(str(armed.fault))
            if armed.fault.target is not None:
                location = self._location(request, armed.fault.target)
                return await send(request, Answer(302, {**_HEADERS, "Location": location}), record, armed)
            if armed.fault.kind is FaultKind.CHANGED_ON_RESUME:
                file = _changed(file, armed.fault)
                span = _span(asked, len(file.data))
            span = _misplaced(span, armed.fault, len(file.data))
        return await send(request, _part_of(file, span), record, armed)

    def _armed(self, offer: Offer, span: _Span, method: str) -> ArmedFault | None:
        return self.faults.take(
            device=offer.mac,
            name=offer.name,
            size_bytes=len(offer.file.data),
            start=span.start,
            stop=span.stop,
            has_body=method == "GET",
        )

    def _location(self, request: web.Request, target: str) -> str:
        if "://" in target:
            return target
        sockname = request.transport.get_extra_info("sockname") if request.transport is not None else None
        address, port = sockname[:2] if sockname else self.address
        # Behind an emulator's network the device knows this machine by another address than the one it arrives at.
        host = _ip_asked_for(request) or _in_url(address)
        return f"{'https' if self._tls else 'http'}://{host}:{port}{sibling_path(request.raw_path, target)}"


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def _never_reached(_request: web.Request) -> web.StreamResponse:
    raise web.HTTPNotFound


async def _ignore_expectation(_request: web.Request) -> None:
    """No body is ever read, so a client that waits for 100 Continue gets the final answer (RFC 9110, 10.1.1).

    aiohttp's own handler quotes the header in its answer, and fails when that is not text.
    """


def _settle(loop: asyncio.AbstractEventLoop) -> None:
    """Let answers whose last byte was taken by the kernel reach the journal."""
    settled = threading.Event()

    def turn(left: int) -> None:
        if left:
            loop.call_soon(turn, left - 1)
        else:
            settled.set()

    # A loop that is closed in this moment has nothing left to wait for.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(turn, _SETTLE_TURNS)
        settled.wait(_SETTLE_S)


def _span(asked: str | None, size_bytes: int) -> _Span:
    try:
        wanted = parse_range(asked, size_bytes)
    except RangeUnsatisfiable:
        return _Span(416, 0, 0)
    return _Span(200, 0, size_bytes) if wanted is None else _Span(206, wanted.start, wanted.stop)


def _changed(file: File, fault: Fault) -> File:
    other = File.of(fault.content if fault.content is not None else file.data.translate(_INVERTED))
    return replace(other, etag=file.etag) if fault.etag == "kept" else other


def _misplaced(span: _Span, fault: Fault, size_bytes: int) -> _Span:
    """The part of the file that a fault serves in place of the one that was asked for."""
    if fault.kind is FaultKind.NO_RANGES:
        return _Span(200, 0, size_bytes)
    if fault.kind is FaultKind.WRONG_RANGE:
        start = min(max(0, span.start + (fault.delta or 0)), size_bytes - 1)
        return span._replace(start=start)
    return span


def _part_of(file: File, span: _Span) -> Answer:
    size_bytes = len(file.data)
    if span.status == 416:
        return _plain(416, **{"Content-Range": f"bytes */{size_bytes}"})
    headers = {
        **_HEADERS,
        "Content-Type": "application/octet-stream",
        "Accept-Ranges": "bytes",
        "ETag": file.etag,
    }
    if span.status == 206:
        headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{size_bytes}"
    return Answer(span.status, headers, file.data[span.start : span.stop], span.start, size_bytes)


class _TurnedAway(asyncio.Protocol):
    """One connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


def _door(server: web.Server | None) -> Callable[[], asyncio.Protocol]:
    """Who takes the next connection: aiohttp, as long as there are not too many."""
    assert server is not None

    def take() -> asyncio.Protocol:
        return server() if len(server.connections) < _MAX_CONNECTIONS else _TurnedAway()

    return take


def _plain(status: int, **headers: str) -> Answer:
    text = f"{status}\n".encode()
    return Answer(status, {**_HEADERS, "Content-Type": "text/plain", **headers}, text)


def _ip_asked_for(request: web.Request) -> str | None:
    """The IP address in the Host header, as a URL has it; None when there is none, or a name."""
    host = request.headers.get("Host", "").strip()
    host = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    try:
        return _in_url(str(ipaddress.ip_address(host)))
    except ValueError:
        return None


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _peer(request: web.BaseRequest) -> str:
    peer = request.transport.get_extra_info("peername") if request.transport is not None else None
    return f"{_in_url(str(peer[0]))}:{peer[1]}" if peer else "unknown"


def _logger() -> logging.Logger:
    """aiohttp reports each malformed request with a traceback; those are in the journal already."""
    logger = logging.getLogger("harness.ota.server")
    logger.addFilter(_is_not_the_clients_fault)
    return logger


def _is_not_the_clients_fault(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)
