"""Networks and servers that fail: every fault at every place of the download, and another server after the break.

The update either goes on with the same file and switches to it, or ends in its own error; after each the old slot runs
with every byte as it was, and the same update then works.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pytest
from row import Row, rows

from harness.board import Board, Snapshot
from harness.console.device import Answer
from harness.errors import LabError
from harness.ota.faults import Fault, FaultKind
from harness.ota.release import Release
from harness.ota.server import OtaServer

pytestmark = [
    pytest.mark.in_turn,
    pytest.mark.profiles("release", full=("open", "development", "ciphertext-only")),
]

K = FaultKind
SWITCHED = "switched"
HEADER_BYTES, SECTOR_BYTES = 256, 4096
VERSIONS = ("4.0.1", "4.0.2")
"""Two are enough: the one that does not run is the update."""
NAME = "update.pkg"

PLACES: dict[str, Callable[[int], int]] = {
    "in the header": lambda _: 100,
    "at the end of the header": lambda _: HEADER_BYTES,
    "in the first sector": lambda _: HEADER_BYTES + 2000,
    "at the end of the first sector": lambda _: HEADER_BYTES + SECTOR_BYTES,
    "in the middle": lambda size: size // 2,
    "in the last sector": lambda size: size - 1000,
    "at the last byte": lambda size: size - 1,
    "behind the last byte": lambda size: size,
}
"""Bytes of the package, by its size."""

HEAD, HEAD_END, FIRST, FIRST_END, MIDDLE, LAST, LAST_BYTE, BEHIND = PLACES
EVERYWHERE = (HEAD, HEAD_END, FIRST, FIRST_END, MIDDLE, LAST, LAST_BYTE)


@dataclass(frozen=True)
class Cell(Row):
    """Faults, one per request, of which the first strikes at a place; and what comes of the update."""

    faults: tuple[Fault, ...]
    place: str | None
    outcome: str
    resumes: int = 1
    """How many reconnections the board is allowed."""
    within_s: int | None = None

    @property
    def name(self) -> str:
        said = ", then ".join(
            str(fault).replace(" at byte 0", "") + (" for good" if fault.times is None else "")
            for fault in self.faults
        )
        allowed = f", {self.resumes} resumes" if self.resumes != 1 else ""
        return f"{said}{f' {self.place}' if self.place else ''}{allowed}"

    def located(self, size_bytes: int) -> tuple[Fault, ...]:
        """The faults, the first with its byte of a package of that size."""
        if self.place is None:
            return self.faults
        return (replace(self.faults[0], at_byte=PLACES[self.place](size_bytes)), *self.faults[1:])


def cells(
    fault: Fault,
    outcomes: dict[str, str],
    *,
    default: tuple[str, ...] = (),
    within_s: int | None = None,
) -> list[Cell]:
    """One row per place; only those in `default` are in the default subset."""
    return [
        Cell((fault,), place, outcome, within_s=within_s, full=place not in default)
        for place, outcome in outcomes.items()
    ]


def everywhere(outcome: str, others: dict[str, str] | None = None) -> dict[str, str]:
    """The same outcome at every place, but for `others`."""
    return dict.fromkeys(EVERYWHERE, outcome) | (others or {})


# A range would need the size, which an answer without length does not tell; from its header on the package does.
UNKNOWN_SIZE = everywhere(SWITCHED, {HEAD: "truncated"})
# What is fetched after the first sector is judged by its hash alone.
DAMAGED = everywhere("body-hash", {HEAD: "bad-signature", HEAD_END: "not-deciphered"})
# A header that is shifted from its first hash on may have no readable version any more.
SHIFTED = {**DAMAGED, HEAD: "bad-signature or wrong-version"}
TO_THE_END = {BEHIND: SWITCHED}

# Whoever translates addresses on the way, as a router does, may make a close of a reset.
MATRIX = (
    *cells(Fault(K.RESET, at_byte=0), everywhere(SWITCHED, TO_THE_END), default=(HEAD, BEHIND)),
    *cells(Fault(K.RESET, at_byte=0, times=None), everywhere("http-read or truncated"), default=(LAST_BYTE,)),
    *cells(Fault(K.TRUNCATE, at_byte=0), everywhere(SWITCHED, TO_THE_END), default=(HEAD_END, LAST_BYTE)),
    *cells(Fault(K.TRUNCATE, at_byte=0, times=None), everywhere("truncated", TO_THE_END), default=(HEAD,)),
    *cells(Fault(K.STALL, at_byte=0, seconds=60), everywhere(SWITCHED)),
    *cells(Fault(K.STALL, at_byte=0, seconds=60, times=None), everywhere("http-timeout")),
    *cells(Fault(K.STALL, at_byte=0, seconds=1, times=None), everywhere(SWITCHED, TO_THE_END)),
    *cells(Fault(K.CHUNKED, at_byte=0), everywhere(SWITCHED), default=(MIDDLE,)),
    *cells(Fault(K.CHUNKED, at_byte=0, times=None), everywhere("truncated")),
    *cells(Fault(K.MISSING_LENGTH, at_byte=0), UNKNOWN_SIZE, default=(FIRST,)),
    *cells(Fault(K.MISSING_LENGTH, at_byte=0, times=None), everywhere("truncated"), default=(HEAD,)),
    *cells(Fault(K.FLIP, at_byte=0), DAMAGED, default=(LAST_BYTE,)),
    *cells(
        Fault(K.DUPLICATE_BYTE, at_byte=0),
        {place: outcome for place, outcome in SHIFTED.items() if place != LAST_BYTE},
        default=(HEAD_END, MIDDLE),
    ),
    *cells(
        Fault(K.SLOW, at_byte=0, bytes_per_s=1, times=None),
        {place: "http-timeout" for place in EVERYWHERE if place != LAST_BYTE},
        within_s=3,
    ),
)  # fmt: skip


def first(fault: Fault, outcome: str, *, within_s: int | None = None, full: bool = False) -> Cell:
    """What the very first answer is like."""
    return Cell((fault,), None, outcome, within_s=within_s, full=full)


FIRST_ANSWERS = (
    first(Fault(K.RESET), "http-read or truncated"),
    first(Fault(K.STALL, seconds=60), "http-timeout", full=True),
    first(Fault(K.CHUNK_EXTRAS), SWITCHED),
    first(Fault(K.HTTP10), SWITCHED),
    first(Fault(K.INTERIM, count=3), SWITCHED),
    first(Fault(K.LONG_HEADER), SWITCHED),
    first(Fault(K.EXTRA_BYTES, count=5000), SWITCHED),
    first(Fault(K.GZIP), "http-encoding"),
    first(Fault(K.UNASKED_RANGE), "http-status"),
    first(Fault(K.BAD_LENGTH, text="-1"), "http-read"),
    first(Fault(K.BAD_LENGTH, text="many"), "http-read", full=True),
    first(Fault(K.BAD_LENGTH, text="99999999999999999999"), "http-read", full=True),
    first(Fault(K.BAD_LENGTH, text="1000000000000"), "wrong-size"),
    first(Fault(K.BAD_LENGTH, text="0"), "truncated"),
    first(Fault(K.WRONG_LENGTH, delta=-1), "truncated", full=True),
    first(Fault(K.WRONG_LENGTH, delta=1), "wrong-size", full=True),
    first(Fault(K.SLOW_HEADER, bytes_per_s=2000), SWITCHED, full=True),
    first(Fault(K.SLOW_HEADER, bytes_per_s=1, times=None), "http-timeout", within_s=1),
)

BREAK = Fault(K.TRUNCATE, at_byte=0)
BREAK_UNTAGGED = Fault(K.TRUNCATE, at_byte=0, etag="none")


def resumed(
    fault: Fault, outcome: str, *more: Fault, after: Fault = BREAK, resumes: int = 1, full: bool = False
) -> Cell:
    """What the answer is like that the board gets when it asks for the rest."""
    return Cell((after, fault, *more), MIDDLE, outcome, resumes=resumes, full=full)


RESUMED_ANSWERS = (
    resumed(Fault(K.NO_RANGES), SWITCHED),
    resumed(Fault(K.NO_RANGES, etag="none"), SWITCHED, after=BREAK_UNTAGGED, full=True),
    resumed(Fault(K.NO_RANGES), SWITCHED, after=Fault(K.CHUNKED, at_byte=0), full=True),
    resumed(Fault(K.NO_RANGES), SWITCHED, after=Fault(K.MISSING_LENGTH, at_byte=0), full=True),
    resumed(Fault(K.WRONG_RANGE, delta=1), SWITCHED),
    resumed(Fault(K.WRONG_RANGE, delta=-1), SWITCHED, full=True),
    resumed(Fault(K.CONTENT_RANGE, text=""), SWITCHED),
    resumed(Fault(K.CONTENT_RANGE, text="bytes"), SWITCHED, full=True),
    resumed(Fault(K.CONTENT_RANGE, text="bytes 0-1/*"), SWITCHED, full=True),
    resumed(Fault(K.CONTENT_RANGE, text="bytes 0-1/2"), "changed"),
    resumed(Fault(K.STATUS, code=416), SWITCHED),
    resumed(Fault(K.STATUS, code=404), "http-status"),
    resumed(Fault(K.STATUS, code=503), "http-status"),
    resumed(Fault(K.STATUS, code=503), SWITCHED, resumes=2, full=True),
    resumed(Fault(K.RESET), "http-read or truncated", full=True),
    resumed(Fault(K.RESET), SWITCHED, resumes=2),
    resumed(Fault(K.CHANGED_ON_RESUME, etag="kept"), "body-hash"),
    resumed(Fault(K.CHANGED_ON_RESUME, etag="none"), "body-hash", after=BREAK_UNTAGGED, full=True),
    resumed(Fault(K.CHANGED_ON_RESUME, content=b"short"), SWITCHED, full=True),
    resumed(Fault(K.GZIP), "http-encoding", full=True),
    resumed(Fault(K.HTTP10), SWITCHED, full=True),
    resumed(Fault(K.INTERIM), SWITCHED, full=True),
    resumed(Fault(K.CHUNKED), SWITCHED, full=True),
    resumed(Fault(K.CHUNK_EXTRAS), SWITCHED, full=True),
    resumed(Fault(K.MISSING_LENGTH), SWITCHED, full=True),
    resumed(Fault(K.LONG_HEADER), SWITCHED, full=True),
    resumed(Fault(K.EXTRA_BYTES), SWITCHED, full=True),
    resumed(Fault(K.BAD_LENGTH, text="-1"), "http-read", full=True),
    resumed(Fault(K.WRONG_LENGTH, delta=7), SWITCHED, full=True),
    resumed(Fault(K.TRUNCATE, at_byte=-1), SWITCHED, resumes=2, full=True),
)


@pytest.fixture(autouse=True)
def _network(board: Board) -> None:
    if board.status().fields.get("net") == "none":
        pytest.skip("its firmware has no network, and these are faults of one")


@pytest.fixture
def releases(board: Board) -> tuple[Release, Release]:
    """The update, and another version."""
    burned = int(board.status().fields["fuse_secure_version"]) if "anti-rollback" in board.capabilities else 0
    running = board.status().version
    names = sorted(VERSIONS, key=lambda version: version == running)
    return board.release(names[0], secure_version=burned), board.release(names[1], secure_version=burned)


@pytest.fixture
def package(board: Board, releases: tuple[Release, Release]) -> bytes:
    return board.package(releases[0])


@pytest.fixture
def comes_to(
    board: Board, ota_server: OtaServer, before: Snapshot, package: bytes, releases: tuple[Release, Release]
) -> Callable[[Answer, str], None]:
    """Asserts how an update ended, that nothing was lost, and that it then works."""

    def check(answer: Answer, outcome: str) -> None:
        if outcome != SWITCHED:
            assert answer.error in outcome.split(" or "), answer
            ota_server.faults.clear()
            again = board.restart()
            assert (again.slot, again.version) == (before.running.slot, before.running.version)
            assert board.slot_digest(before.running.slot) == before.digest, "the running slot was written to"
            answer = board.take(package)
        assert answer.ok, answer
        updated = board.reboot()
        assert (updated.slot, updated.version) == (before.running.next_slot, releases[0].version)

    return check


@pytest.mark.parametrize("cell", rows((*MATRIX, *FIRST_ANSWERS, *RESUMED_ANSWERS)))
def test_a_bad_network_costs_an_update_at_most(
    board: Board, ota_server: OtaServer, cell: Cell, package: bytes, comes_to: Callable[[Answer, str], None]
) -> None:
    armed = [ota_server.faults.add(fault) for fault in cell.located(len(package))]
    within = {} if cell.within_s is None else {"within_s": cell.within_s}
    answer = board.take(package, resumes=cell.resumes, **within)
    # Who has the whole package may hang up before the server gets to its fault.
    assert cell.place == BEHIND or all(fault.struck for fault in armed), (
        f"a fault never took effect: {answer}"
    )
    comes_to(answer, cell.outcome)


# ---- another server after the break --------------------------------------------------------------------------


@dataclass(frozen=True)
class Successor(Row):
    """What the server has that answers when the board asks for the rest."""

    name: str
    serves: Callable[[Board, bytes, Release], bytes | None]
    """By board, the package that the update began with, and another version; None: no such file."""
    outcome: str
    faults: tuple[Fault, ...] = ()
    began_untagged: bool = False
    """The first server gave no ETag, so none is asked for."""

    @property
    def first_etag(self) -> str | None:
        """The option of the first server's fault."""
        return "none" if self.began_untagged else None


def the_same(_board: Board, package: bytes, _other: Release) -> bytes:
    return package


def another_version(board: Board, _package: bytes, other: Release) -> bytes:
    return board.package(other)


def other_bytes(_board: Board, package: bytes, _other: Release) -> bytes:
    """Of the same version and size: such as the same image enciphered for another slot, or a damaged copy."""
    return package[:-1] + bytes([package[-1] ^ 1])


def other_first_bytes(_board: Board, package: bytes, _other: Release) -> bytes:
    return package[:5000] + bytes([package[5000] ^ 1]) + package[5001:]


def nothing(_board: Board, _package: bytes, _other: Release) -> None:
    return None


UNTAGGED = Fault(K.SLOW, bytes_per_s=1e9, etag="none")

SUCCESSORS = (
    Successor("the same file", the_same, SWITCHED),
    Successor("another version", another_version, "changed"),
    Successor("the same version with other bytes", other_bytes, "changed", full=True),
    Successor("other bytes and no ETag", other_bytes, "body-hash", (UNTAGGED,), full=True),
    Successor("other first bytes and no ETag", other_first_bytes, "changed", (UNTAGGED,)),
    Successor("other bytes, never an ETag", other_bytes, "body-hash", (UNTAGGED,), began_untagged=True),
    Successor("no such file", nothing, "http-status"),
    Successor("the same file without ranges", the_same, SWITCHED, (Fault(K.NO_RANGES),), full=True),
)  # fmt: skip


@pytest.mark.parametrize("successor", rows(SUCCESSORS))
def test_another_server_at_the_same_address_after_the_break(
    board: Board,
    ota_server: OtaServer,
    successor: Successor,
    package: bytes,
    releases: tuple[Release, Release],
    comes_to: Callable[[Answer, str], None],
) -> None:
    """The first one goes in the middle of its answer, and the connection with it."""
    mac = board.status().mac
    data = successor.serves(board, package, releases[1])
    hold = ota_server.faults.add(Fault(K.STALL, at_byte=len(package) // 2, etag=successor.first_etag))
    with ThreadPoolExecutor(1) as pool:
        update = pool.submit(board.take, package, name=NAME, resumes=9)
        hold.wait_struck(120)
        bind, port = ota_server.address
        ota_server.stop()
        ota_server.faults.clear()
        for fault in successor.faults:
            ota_server.faults.add(fault)
        ota_server.withdraw(mac, NAME)
        if data is not None:
            ota_server.publish(mac, NAME, data)
        ota_server.start(bind, port)
        answer = update.result()
    comes_to(answer, successor.outcome)


def test_nobody_at_the_address_after_the_break(
    board: Board, ota_server: OtaServer, package: bytes, comes_to: Callable[[Answer, str], None]
) -> None:
    hold = ota_server.faults.add(Fault(K.STALL, at_byte=len(package) // 2))
    with ThreadPoolExecutor(1) as pool:
        update = pool.submit(board.take, package, name=NAME, resumes=2)
        hold.wait_struck(120)
        bind, port = ota_server.address
        ota_server.stop()
        ota_server.faults.clear()
        answer = update.result()
    ota_server.start(bind, port)
    # Whoever translates addresses on the way may take the connection and only then find nobody.
    comes_to(answer, "http-connect or http-read or truncated")


@pytest.fixture
def second_server(board: Board) -> Iterator[OtaServer]:
    """On another port that the board may reach, too."""
    bind, ports = board.network.bind, board.network.ports.numbers
    try:
        server = OtaServer().start(bind, ports)
    except LabError as error:
        pytest.skip(f"the board's network entry leaves no port for a second server: {error.message}")
    with server:
        yield server


@pytest.mark.parametrize(
    "successor", rows(replace(row, full=row.name != "another version") for row in SUCCESSORS)
)
def test_a_redirect_to_another_server_after_the_break(
    board: Board,
    ota_server: OtaServer,
    second_server: OtaServer,
    successor: Successor,
    package: bytes,
    releases: tuple[Release, Release],
    comes_to: Callable[[Answer, str], None],
) -> None:
    mac = board.status().mac
    data = successor.serves(board, package, releases[1])
    second_server.publish(mac, "moved.pkg", package if data is None else data)
    url = second_server.url_for(mac, "moved.pkg", host=board.reach_updates().host)
    if data is None:
        second_server.withdraw(mac, "moved.pkg")
    for fault in successor.faults:
        second_server.faults.add(fault)
    ota_server.faults.add(Fault(K.TRUNCATE, at_byte=len(package) // 2, etag=successor.first_etag))
    redirect = ota_server.faults.add(Fault(K.REDIRECT, target=url))
    answer = board.take(package, name=NAME)
    assert redirect.struck == 1
    comes_to(answer, successor.outcome)
