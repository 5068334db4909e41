"""Binds and runs the page's server until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from pathlib import Path

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from harness.errors import LabError
from harness.home import Home
from harness.ota.listening import is_loopback, is_wildcard
from harness.serve.access import Access, names_of_this_machine
from harness.serve.app import make_app

DEFAULT_PORT = 8642
_MAX_LINE = 4096


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether an error is one of this program. A request that is no HTTP has been answered with 400, and its address may
    hold the token: neither it nor a traceback goes to a service's journal."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_LOG = logging.getLogger("harness.serve")
_LOG.addFilter(_is_ours)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket on `host`, port 0: a free one.

    Raises:
        LabError: it cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise LabError(
            f"harness serve cannot listen on '{host}': {error}",
            todo="give an address of this machine with --host",
        ) from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(64)
    except OSError as error:
        sock.close()
        raise LabError(
            f"harness serve cannot listen on {host}, port {port}: {error.strerror or error}",
            todo="choose another port with --port (0: a free one)",
        ) from error
    return sock


def access_of(port: int, names: tuple[str, ...], token: str | None) -> Access:
    """The rules of a server. Without a token it answers to names of the loopback alone."""
    known = frozenset({"localhost", *(name.lower() for name in names)})
    return Access(known if token is None else names_of_this_machine(names), token, port)


def serve(
    sock: socket.socket,
    home: Home,
    access: Access,
    *,
    boards_file: Path | None,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Serves on `sock` until a signal ends it, which passes through as KeyboardInterrupt."""
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_run(sock, home, access, boards_file, ready))


def runner_of(app: web.Application) -> web.AppRunner:
    """What serves `app`, within bounds for what strangers send."""
    return web.AppRunner(
        app,
        access_log=None,
        logger=_LOG,
        handle_signals=False,
        max_line_size=_MAX_LINE,
        max_field_size=_MAX_LINE,
        shutdown_timeout=0.5,
        keepalive_timeout=30,
    )


async def _run(
    sock: socket.socket, home: Home, access: Access, boards_file: Path | None, ready: Callable[[], None]
) -> None:
    runner = runner_of(make_app(home, access, boards_file))
    await runner.setup()
    try:
        await web.SockSite(runner, sock).start()
        ready()
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def url_of(host: str, port: int) -> str:
    """Where a browser on this machine finds it; a wildcard is no address to go to."""
    shown = "127.0.0.1" if is_loopback(host) else socket.gethostname() if is_wildcard(host) else host
    return f"http://[{shown}]:{port}/" if ":" in shown else f"http://{shown}:{port}/"
