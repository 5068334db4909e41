"""What the OTA server saw: one typed record per request, in memory and, if wanted, in a JSON Lines file."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path

from harness.errors import BoardError, LabError


class RequestEnd(str, Enum):
    """How an answer ended, as far as the server can know."""

    COMPLETE = "complete"
    """Every byte that was to be sent was handed to the network."""
    PEER_LEFT = "peer-left"
    """The client closed or reset the connection before that."""
    CUT_BY_FAULT = "cut-by-fault"
    """A fault ended the answer early."""
    SERVER_STOPPED = "server-stopped"


@dataclass(frozen=True, slots=True)
class Request:
    """One request and its answer. Written when the answer has ended, so a stalled download comes late."""

    number: int
    """Counts from 1 per server, in the order in which answers ended."""
    at_ms: int
    """When the request had arrived, milliseconds since 1970-01-01 UTC."""
    peer: str
    """``address:port`` of the client."""
    device: str | None
    """MAC of the device whose path was asked for; None when the path belongs to none."""
    method: str
    """``UNKNOWN`` when what arrived was no HTTP request; the path is then ``-``."""
    path: str
    """Path as it arrived, the secret part replaced by ``****``, query left out, at most 200 characters."""
    name: str | None
    """The published name that was asked for; None when nothing is published under the path."""
    range: str | None
    """The ``Range`` header as it arrived, at most 100 characters."""
    status: int | None
    """None: no status line was sent."""
    first_byte: int
    """Offset within the published bytes at which the answer's body starts."""
    body_bytes: int
    """Size of the body of a complete answer."""
    bytes_sent: int
    """Bytes of the body handed to the network; the peer may have received fewer, never more."""
    fault: str | None
    """The fault that was applied, e.g. ``truncate at byte 4096``."""
    duration_ms: int
    end: RequestEnd

    @property
    def left_early(self) -> bool:
        """The peer was gone before it had the whole answer."""
        return self.end is RequestEnd.PEER_LEFT

    def to_json(self) -> str:
        """One line of JSON without line end; ``at`` repeats ``at_ms`` for people."""
        at = datetime.fromtimestamp(self.at_ms / 1000, timezone.utc).isoformat(timespec="milliseconds")
        return json.dumps({"at": at.replace("+00:00", "Z"), **asdict(self)}, ensure_ascii=True)


@dataclass(slots=True)
class OpenRequest:
    """A request that is being answered; the server fills it in and closes it."""

    peer: str
    method: str
    path: str
    range: str | None = None
    device: str | None = None
    name: str | None = None
    status: int | None = None
    first_byte: int = 0
    body_bytes: int = 0
    bytes_sent: int = 0
    fault: str | None = None
    end: RequestEnd = RequestEnd.COMPLETE
    at_ms: int = 0
    _started_s: float = 0.0

    def __post_init__(self) -> None:
        self.at_ms = time.time_ns() // 1_000_000
        self._started_s = time.monotonic()

    def closed(self, number: int) -> Request:
        """The record of this request, its duration running up to now."""
        return Request(
            number=number,
            at_ms=self.at_ms,
            peer=self.peer,
            device=self.device,
            method=self.method,
            path=self.path,
            name=self.name,
            range=self.range,
            status=self.status,
            first_byte=self.first_byte,
            body_bytes=self.body_bytes,
            bytes_sent=self.bytes_sent,
            fault=self.fault,
            duration_ms=round((time.monotonic() - self._started_s) * 1000),
            end=self.end,
        )


class Journal:
    """The requests of one server, oldest first. Safe to use from any thread."""

    def __init__(self, path: Path | None = None) -> None:
        """`path`: JSON Lines file to append to, opened and closed for each line; its folder must exist.

        Raises:
            LabError: the file cannot be opened.
        """
        self._changed = threading.Condition()
        self._requests: list[Request] = []
        self._path = path
        self._failure: OSError | None = None
        if path is not None:
            try:
                path.open("a", encoding="ascii").close()
            except OSError as error:
                raise _unwritable(path, error) from error

    def add(self, request: OpenRequest) -> Request:
        """Close `request` and append its record."""
        with self._changed:
            record = request.closed(len(self._requests) + 1)
            self._requests.append(record)
            self._write(record)
            self._changed.notify_all()
        return record

    @property
    def requests(self) -> tuple[Request, ...]:
        """What has ended so far."""
        with self._changed:
            return tuple(self._requests)

    def wait_for(
        self, accepts: Callable[[Request], bool], timeout_s: float, *, since: int = 0, what: str = "a request"
    ) -> Request:
        """The first record after the first `since` that `accepts` takes, waiting for it if need be.

        Raises:
            BoardError: none came within `timeout_s`; the message says `what` was waited for and what came.
        """
        deadline_s = time.monotonic() + timeout_s
        seen = since
        with self._changed:
            while True:
                for record in self._requests[seen:]:
                    seen += 1
                    if accepts(record):
                        return record
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    break
                self._changed.wait(left_s)
            came = ", ".join(f"{r.method} {r.path} -> {r.status}" for r in self._requests[since:][-5:])
        raise BoardError(
            f"waited {timeout_s:g} s at the OTA server for {what}; it ended none like it "
            f"(last ones: {came or 'none at all'})",
            todo="check in the board's log which URL it was told, and that it can reach this machine",
        )

    def check(self) -> None:
        """Report lines that could not be written; once, since a full disk does not stop an update.

        Raises:
            LabError: there were such lines since the last call.
        """
        with self._changed:
            failure, self._failure = self._failure, None
        if failure is not None and self._path is not None:
            raise _unwritable(self._path, failure) from failure

    def _write(self, record: Request) -> None:
        if self._path is None:
            return
        try:
            with self._path.open("a", encoding="ascii", newline="\n") as file:
                file.write(record.to_json() + "\n")
        except OSError as error:
            self._failure = error


def _unwritable(path: Path, error: OSError) -> LabError:
    return LabError(
        f"the OTA server's journal {path} cannot be written: {error.strerror or error}",
        todo="check that its folder exists, is writable and has space left",
    )
