"""Who may look at the page: only readers, only under a name of this machine, and from elsewhere only with the token.

Why the Host header: a page of the internet whose name is made to lead to 127.0.0.1 (DNS rebinding) is asked for under its
own name, and gets nothing. The token comes once in the URL or in a header; from then on a cookie stands for it.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import secrets
import socket
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from harness.errors import LabError, RefusedError
from harness.home import Home

TOKEN_FILE = "serve-token"  # noqa: S105 - a file's name
"""Under HARNESS_HOME, mode 0600."""
HEADER = "X-Harness-Token"
PARAMETER = "token"
_TOKEN_BYTES = 24
_COOKIE_S = 30 * 86400

PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
FILE_POLICY = (
    "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; "
    "font-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Of what runs left: a report may run its own script, in an origin of its own, and reach nobody with it."""

_HEADERS = {
    "Content-Security-Policy": PAGE_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "harness",
}


@dataclass(frozen=True, slots=True)
class Access:
    """The rules of one server."""

    names: frozenset[str]
    """Host names, in lower case, that it answers to besides IP addresses."""
    token: str | None
    """None: whoever reaches it may look (loopback only)."""
    port: int

    @property
    def cookie(self) -> str:
        """Its name; cookies are not told apart by port."""
        return f"harness-{self.port}"

    @property
    def cookie_value(self) -> str:
        """Stands for the token, which is not in it."""
        return hmac.new((self.token or "").encode(), b"harness serve cookie", hashlib.sha256).hexdigest()

    def admits(self, given: str | None) -> bool:
        """Whether `given` is the token; as long as it is one, or none is needed."""
        return self.token is None or (given is not None and _equal(given, self.token))

    def admits_cookie(self, given: str | None) -> bool:
        """Whether `given` stands for the token."""
        return given is not None and _equal(given, self.cookie_value)

    def knows(self, host: str) -> bool:
        """Whether the Host header names this machine. An IP address is no name that somebody could rebind."""
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        name = name.strip("[]").lower().rstrip(".")
        with suppress(ValueError):
            address = ipaddress.ip_address(name.partition("%")[0])
            return self.token is not None or address.is_loopback
        return name in self.names


def _equal(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


def names_of_this_machine(more: Collection[str] = ()) -> frozenset[str]:
    """Under which a browser may ask for the page."""
    host = socket.gethostname()
    return frozenset(name.lower() for name in ("localhost", host, host.partition(".")[0], *more) if name)


def guard(access: Access) -> Middleware:
    """Lets through who may look, and gives every answer its headers."""

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        answer: web.StreamResponse | None = _refusal(request, access)
        if answer is None:
            try:
                answer = await handler(request)
            except web.HTTPException as error:
                answer = web.Response(status=error.status, text=f"{error.status}: {error.reason}\n")
        return answer

    return guarded


async def dress(_request: web.Request, answer: web.StreamResponse) -> None:
    """Gives an answer the headers that it has not got yet; for ``on_response_prepare``."""
    for name, value in _HEADERS.items():
        if name not in answer.headers or name == "Server":
            answer.headers[name] = value


def _refusal(request: web.Request, access: Access) -> web.Response | None:
    """Why this request gets nothing; None: it may have an answer."""
    if request.method not in ("GET", "HEAD"):
        return web.Response(status=405, text="405: this page is only read\n", headers={"Allow": "GET, HEAD"})
    if not access.knows(request.headers.get("Host", "")):
        text = "421: this server does not go by that name; start it with --name NAME to use one\n"
        return web.Response(status=421, text=text)
    if access.token is None or access.admits_cookie(request.cookies.get(access.cookie)):
        # Who has a cookie and comes by the link again is not left with the token in the address.
        return _come_in(request, access) if PARAMETER in request.query else None
    if access.admits(request.headers.get(HEADER)):
        return None
    if access.admits(request.query.get(PARAMETER)):
        return _come_in(request, access)
    text = (
        f"401: this page needs its token: open it with ?{PARAMETER}=TOKEN once, or send the header {HEADER}.\n"
        f"Whoever runs `harness serve` finds it in HARNESS_HOME/{TOKEN_FILE}.\n"
    )
    return web.Response(status=401, text=text)


def _come_in(request: web.Request, access: Access) -> web.Response:
    """Takes the token out of the address and leaves a cookie.

    A page and no redirect: a browser that came by a link in a mail sends a strict cookie only with what this server's own
    page asks for.
    """
    path = request.rel_url.with_query(
        {key: value for key, value in request.query.items() if key != PARAMETER}
    )
    target = escape("/" + str(path).lstrip("/"), quote=True)
    answer = web.Response(
        text=f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url={target}">'
        f'<title>harness</title><p><a href="{target}">Go on</a></p>\n',
        content_type="text/html",
    )
    if access.token is not None:
        answer.set_cookie(
            access.cookie, access.cookie_value, max_age=_COOKIE_S, httponly=True, samesite="Strict", path="/"
        )
    return answer


def read_token(home: Home, *, new: bool = False) -> tuple[str, bool]:
    """The token of this HARNESS_HOME, and whether it was made just now; with `new` another one is made.

    Raises:
        RefusedError: others may read the file. LabError: it cannot be read or written.
    """
    path = home.folder(".") / TOKEN_FILE
    try:
        if not new and path.exists():
            if os.name == "posix" and path.stat().st_mode & 0o077:
                raise RefusedError(
                    f"others may read the token in {path}",
                    todo="make another one with --new-token: this one may be known",
                )
            token = path.read_text(encoding="ascii").strip()
            if len(token) >= _TOKEN_BYTES:
                return token, False
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        _write_private(path, token + "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise LabError(
            f"the token in {path} cannot be read or written: {error}",
            todo="set HARNESS_HOME to a folder that you may write to, or make another one with --new-token",
        ) from error
    return token, True


def _write_private(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:  # noqa: PTH123
        file.write(text)
    part.replace(path)
