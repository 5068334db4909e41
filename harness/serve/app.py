"""The pages: the rack, one board, the runs, one run, the history. Each is whole without its script; that refreshes it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from aiohttp import web
from jinja2 import ChoiceLoader, PackageLoader

from harness.errors import HarnessError
from harness.history import History
from harness.history.amounts import size_text
from harness.history.flakiness import RULE
from harness.history.page import css, environment, templates_of_history
from harness.history.queries import (
    LastRun,
    PastRun,
    Scope,
    flaky_tests,
    past_runs,
    phase_series,
    rates_of_tests,
    run_named,
)
from harness.home import Home
from harness.serve.access import Access, dress, guard
from harness.serve.log_tail import tail
from harness.serve.rack import QUICK_S, SHOWN_S, Rack, RackView
from harness.serve.run_files import REPORT, find_run, give, listed_files

T = TypeVar("T")

FRESH_S = 1.0
"""What several browsers ask for within this time is looked at once."""

STATIC = {"look.css": "text/css", "serve.js": "text/javascript", "icon.svg": "image/svg+xml"}


class Pages:
    """The pages of one HARNESS_HOME."""

    def __init__(self, home: Home, boards_file: Path | None = None) -> None:
        self._home = home
        self._rack = Rack(home, boards_file)
        self._guard = asyncio.Lock()
        self._seen: tuple[float, RackView] | None = None
        self._templates = environment(ChoiceLoader([PackageLoader("harness.serve"), templates_of_history()]))
        self._templates.filters.update(size=size_text)
        self._templates.globals.update(
            link_board=lambda name: f"/board/{quote(name, safe='')}",
            link_run=_link_run,
            host=socket.gethostname(),
        )
        self._static = {
            "look.css": css() + _text("serve.css"),
            "serve.js": _text("serve.js"),
            "icon.svg": _text("icon.svg"),
        }

    def routes(self) -> list[web.RouteDef]:
        """All there are."""
        return [
            web.get("/", self.rack),
            web.get("/board/{name}", self.board),
            web.get("/board/{name}/log", self.log),
            web.get("/runs", self.runs),
            web.get("/run/{id}", self.run),
            web.get("/run/{id}/{file:.+}", self.run_file),
            web.get("/history", self.history),
            web.get("/static/{name}", self.static),
            # Browsers ask for it beside a report, too.
            web.get("/favicon.ico", self.icon),
        ]

    async def rack(self, request: web.Request) -> web.StreamResponse:
        """All boards; with ``?live`` only the part that changes."""
        view = await self._look()
        return self._page(request, "rack", view=view)

    async def board(self, request: web.Request) -> web.StreamResponse:
        """One board."""
        name = request.match_info["name"]
        view = await self._look()
        board = view.board(name)
        if "live" in request.query:
            return self._page(request, "board", view=view, board=board, name=name)
        past, problem = await self._ask(
            lambda database: {
                "runs": past_runs(database, Scope(board=name), limit=12),
                "flaky": flaky_tests(database, Scope(board=name, since_s=time.time() - SHOWN_S)),
                "tests": rates_of_tests(database, Scope(board=name, since_s=time.time() - SHOWN_S)),
                "phases": phase_series(database, Scope(board=name, since_s=time.time() - SHOWN_S), limit=6),
            }
        )
        if board is None and not (past and past["runs"]):
            return self._missing(f"There is no board {name} here, and no run of one.")
        return self._page(
            request,
            "board",
            view=view,
            board=board,
            name=name,
            problem=problem,
            rule=RULE,
            **(past or _NOTHING),
        )

    async def log(self, request: web.Request) -> web.StreamResponse:
        """What came to the log of a board since ``place``, as JSON."""
        name = request.match_info["name"]
        path = await self._log_of(name)
        piece = await asyncio.to_thread(tail, path, request.query.get("place", "")) if path else None
        return web.json_response(
            {
                "lines": [[line.time, line.kind, line.text] for line in piece.lines] if piece else [],
                "place": piece.place if piece else "",
                "fresh": piece.fresh if piece else True,
            }
        )

    async def runs(self, request: web.Request) -> web.StreamResponse:
        """The runs under way, and the last ones."""
        view = await self._look()
        if "live" in request.query:
            return self._page(request, "runs", view=view)
        found, problem = await self._ask(lambda database: past_runs(database, limit=200))
        return self._page(request, "runs", view=view, runs=found or [], problem=problem)

    async def run(self, request: web.Request) -> web.StreamResponse:
        """One run: its report if it has one, else what it left."""
        run_id = request.match_info["id"]
        folder = await asyncio.to_thread(find_run, self._home, run_id)
        if folder is None:
            return self._missing(
                f"There is no folder of a run {run_id}: it was pruned, or it is on another machine."
            )
        names = await asyncio.to_thread(listed_files, folder)
        past, _ = await self._ask(lambda database: run_named(database, run_id))
        view = await self._look()
        live = next((run for run in view.runs if run.folder.id == run_id), None)
        return self._page(
            request, "run", view=view, folder=folder, names=names, live=live, past=past, report=REPORT
        )

    async def run_file(self, request: web.Request) -> web.StreamResponse:
        """One file of a run."""
        folder = await asyncio.to_thread(find_run, self._home, request.match_info["id"])
        if folder is None:
            raise web.HTTPNotFound
        return await give(request, folder, request.match_info["file"])

    async def history(self, request: web.Request) -> web.StreamResponse:
        """Rates, flaky tests, phases."""
        scope = Scope(since_s=time.time() - SHOWN_S)
        found, problem = await self._ask(
            lambda database: {
                "flaky": flaky_tests(database, scope),
                "tests": rates_of_tests(database, scope),
                "phases": phase_series(database, scope),
            }
        )
        view = await self._look()
        return self._page(request, "history", view=view, problem=problem, rule=RULE, **(found or _NOTHING))

    async def static(self, request: web.Request) -> web.StreamResponse:
        """Style and script."""
        name = request.match_info["name"]
        if name not in STATIC:
            raise web.HTTPNotFound
        return _fresh(request, self._static[name], STATIC[name])

    async def icon(self, request: web.Request) -> web.StreamResponse:
        """What a browser shows beside the title."""
        return _fresh(request, self._static["icon.svg"], STATIC["icon.svg"])

    async def _look(self) -> RackView:
        async with self._guard:
            if self._seen is None or time.monotonic() - self._seen[0] > FRESH_S:
                view = await asyncio.to_thread(self._rack.look)
                self._seen = (time.monotonic(), view)
            return self._seen[1]

    async def _log_of(self, name: str) -> Path | None:
        board = (await self._look()).board(name)
        if board is not None and board.log is not None:
            return board.log
        return None

    async def _ask(self, question: Callable[[Any], T]) -> tuple[T | None, str | None]:
        """The history's answer, or why there is none."""

        def asked() -> tuple[T | None, str | None]:
            try:
                with History.of(self._home, wait_s=QUICK_S).reading() as database:
                    return question(database), None
            except HarnessError as error:
                return None, str(error)

        return await asyncio.to_thread(asked)

    def _page(self, request: web.Request, template: str, /, **values: Any) -> web.Response:
        part = "live" if "live" in request.query else "page"
        values.setdefault("now_s", time.time())
        text = self._templates.get_template(f"{template}.{part}.html.j2").render(page=template, **values)
        return _fresh(request, text, "text/html")

    def _missing(self, sentence: str) -> web.Response:
        text = self._templates.get_template("missing.page.html.j2").render(page="", sentence=sentence)
        return web.Response(status=404, text=text, content_type="text/html")


_NOTHING: dict[str, list[Any]] = {"runs": [], "flaky": [], "tests": [], "phases": []}


def make_app(home: Home, access: Access, boards_file: Path | None = None) -> web.Application:
    """The application, ready to be served."""
    app = web.Application(middlewares=[guard(access)])
    app.on_response_prepare.append(dress)
    app.add_routes(Pages(home, boards_file).routes())
    return app


def _link_run(run: PastRun | LastRun) -> str | None:
    # One that was pruned, or lies on another host, leads nowhere.
    return f"/run/{quote(run.id, safe='')}" if run.folder and os.path.isdir(run.folder) else None  # noqa: PTH112


def _fresh(request: web.Request, text: str, kind: str) -> web.Response:
    """The answer, or only that it is the one which the browser has."""
    tag = f'"{hashlib.sha256(text.encode()).hexdigest()[:24]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if request.headers.get("If-None-Match") == tag:
        return web.Response(status=304, headers=headers)
    return web.Response(text=text, content_type=kind, charset="utf-8", headers=headers)


def _text(name: str) -> str:
    return files("harness.serve").joinpath("static").joinpath(name).read_text(encoding="utf-8")
