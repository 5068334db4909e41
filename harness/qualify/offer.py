"""What the unit is offered, and who serves it: the harness (HTTP or HTTPS) or somebody else's server."""

from __future__ import annotations

import hashlib
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from harness.board import Board
from harness.chips import Chip
from harness.connection import bind_of
from harness.errors import LabError, NotProvenError, UsageError
from harness.formats.flash_encryption import pad_to_block
from harness.formats.partition import Partition
from harness.inventory.entry import AnyEntry
from harness.ota.journal import Request, RequestEnd
from harness.ota.release import Release, encipher_for_slot
from harness.ota.server import OtaServer
from harness.qualify.file import ExternalServer, HarnessServer, QualifyPlan
from harness.qualify.trigger import Hands, url_values
from harness.qualify.url_secrets import without_url_secrets

NAME = "update.bin"
NOBODY = "00:00:00:00:00:00"
"""For whom an update is published when the unit's MAC is not known (an observation)."""


@dataclass(frozen=True, slots=True)
class Served:
    """What was offered in one case."""

    body: bytes = field(repr=False)
    sha256: str
    words: str
    """What it is: ``1.1.0, enciphered for ota_1``."""


def served(body: bytes, words: str) -> Served:
    """`body` with its SHA-256."""
    return Served(body, hashlib.sha256(body).hexdigest(), words)


@dataclass(slots=True)
class Offer:
    """The server of one qualification."""

    plan: QualifyPlan
    board: Board
    entry: AnyEntry
    hands: Hands
    folder: Path
    server: OtaServer | None = None

    @property
    def seen_here(self) -> bool:
        """Whether what the unit fetches is seen here."""
        return isinstance(self.plan.file.server, HarnessServer)

    @property
    def _mac(self) -> str:
        return self.board.mac or self.board.identity.declared or NOBODY

    def start(
        self, *, certificate: Path | None = None, key: Path | None = None, port: int | None = None
    ) -> None:
        """Starts the harness's server; with another certificate, or on a certain port, where that is asked for.

        Raises:
            LabError: address or port cannot be had. UsageError: the certificate is none.
        """
        wanted = self.plan.file.server
        if not isinstance(wanted, HarnessServer):
            return
        if certificate is None and wanted.certificate is not None and wanted.key is not None:
            certificate, key = self.plan.place(wanted.certificate), self.plan.place(wanted.key)
        tls = _tls(certificate, key) if certificate is not None else None
        first = self.server is None
        if self.server is None:
            self.server = OtaServer(journal_path=self.folder / "server-journal.jsonl")
        ports = wanted.port if wanted.port.first else self.board.network.ports
        numbers = [port] if port is not None else ports.numbers
        self.server.start(wanted.bind or bind_of(self.entry), numbers, tls=tls)
        if first and wanted.path is not None:
            self.server.open_path(wanted.path, self._mac, NAME)

    def stop(self) -> None:
        """Stops the harness's server."""
        if self.server is not None and self.server.is_running:
            self.server.stop()

    def clear_faults(self) -> None:
        """The harness's server behaves from now on."""
        if self.server is not None:
            self.server.faults.clear()

    def make(self, what: Served, release: Release, slot: str | None) -> None:
        """Offers `what` from now on, and tells the hands its URL.

        Raises:
            NotProvenError: nobody here can put it on the external server.
        """
        wanted = self.plan.file.server
        if isinstance(wanted, ExternalServer):
            url = wanted.url
            (self.folder / "served").mkdir(exist_ok=True)
            path = self.folder / "served" / f"{what.sha256[:16]}.bin"
            path.write_bytes(what.body)
            self.hands.values["file"] = str(path)
            self._put(wanted, what)
        else:
            assert self.server is not None
            self.server.publish(self._mac, NAME, what.body)
            url = self._url(wanted)
        values = {
            **url_values(url),
            "version": release.version,
            "sha256": what.sha256,
            "size": str(len(what.body)),
            "slot": slot or "",
            "mac": self._mac,
            "board": self.board.name,
        }
        self.hands.values.update(values)
        self.board.console.note(
            f"served from now on: {what.words}, {len(what.body)} bytes, SHA-256 {what.sha256}"
        )

    def _put(self, wanted: ExternalServer, what: Served) -> None:
        if wanted.publish is not None:
            self.hands.run(wanted.publish, wanted.timeout_s)
        else:
            url = without_url_secrets(wanted.url)
            self.hands.ask(f"put {self.hands.values['file']} ({what.words}) where {url} finds it")

    def _url(self, wanted: HarnessServer) -> str:
        assert self.server is not None
        host = wanted.address or self.board.network.address
        url = self.server.url_for(self._mac, NAME, host=host)
        if wanted.path is None:
            return url
        scheme, _, rest = url.partition("://")
        return f"{scheme}://{rest.partition('/')[0]}{wanted.path}"

    def journal_length(self) -> int:
        """How many requests have ended so far."""
        return len(self.server.journal) if self.server is not None else 0

    def requests(self, since: int) -> tuple[Request, ...]:
        """Requests for what is offered, after the first `since` that have ended."""
        if self.server is None:
            return ()
        return tuple(each for each in self.server.journal[since:] if each.name == NAME)


def _tls(certificate: Path, key: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without a question for a passphrase at a terminal that may not be there.
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        raise UsageError(
            f"the server's certificate {certificate} or its key cannot be used: {why}",
            todo="give both as PEM, the key not enciphered",
        ) from None
    return context


def fetched_whole(requests: tuple[Request, ...], size_bytes: int) -> bool:
    """Whether every byte went out, in one answer or in several of parts, the last of which was taken to its end.

    Of an answer that was broken off, more may have gone out than arrived; whoever asks for the rest has had it.
    """
    whole = [each for each in requests if each.end is RequestEnd.COMPLETE and each.fault is None]
    if not any(each.first_byte + each.bytes_sent >= size_bytes for each in whole):
        return False
    reached = 0
    for each in sorted(requests, key=lambda each: each.first_byte):
        if each.first_byte <= reached and each.fault is None:
            reached = max(reached, each.first_byte + each.bytes_sent)
    return reached >= size_bytes


def enciphered(release: Release, *, chip: Chip, key: bytes, slot: Partition) -> bytes:
    """`release` as it must lie in flash at `slot`."""
    if len(pad_to_block(release.image)) > slot.size:
        raise UsageError(
            f"{release.version} has {len(release.image)} bytes, slot {slot.label} holds {slot.size}",
            todo="make the image smaller or the slots larger",
        )
    return encipher_for_slot(release.image, chip=chip, key=key, slot=slot)


def key_of(board: Board) -> bytes:
    """The flash key of the unit.

    Raises:
        NotProvenError: it is not in the vault.
    """
    if board.mac is None:
        raise NotProvenError("is not identified: nobody knows its key", board=board.name)
    known = board.vault.key_record(board.mac)
    if known is None or not known.state.has_key:
        raise NotProvenError(
            "its flash key is not in this vault: nothing can be enciphered for it here",
            board=board.name,
            todo="use 'image: file' with what the holder of the key has enciphered, or 'image: plaintext'",
        )
    try:
        return board.vault.flash_key(board.mac)
    except LabError as error:
        raise NotProvenError(error.message, board=board.name) from error
