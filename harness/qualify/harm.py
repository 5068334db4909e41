"""What a sacrificial unit is offered, or suffers, that must not harm it; the table is `harness.qualify.cases`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from harness.console.boot_record import BootRecord
from harness.errors import NotProvenError
from harness.formats.partition import Partition
from harness.ota.faults import Fault, FaultKind
from harness.qualify import claims as c
from harness.qualify.bench import Bench, NotCovered
from harness.qualify.cases import CASES, Case, How, Ingredients, why_not
from harness.qualify.claims import Attempt
from harness.qualify.file import HarnessServer
from harness.qualify.offer import NAME, Served
from harness.qualify.unit import POLL_S
from harness.report.verdict import Standing

ANY_SLOT = Partition("any", 0, 0x10, 0, 1 << 30)


def try_harm(bench: Bench, *, late: bool) -> None:
    """All cases of the table that come before (or, `late`, after) the good update. Errors as `run.carry_out`."""
    server = bench.file.server
    https = isinstance(server, HarnessServer) and server.certificate is not None
    for case in CASES:
        if case.late is not late:
            continue
        reason = why_not(case, bench.file.image, our_server=bench.offer.seen_here, https=https)
        if reason is not None:
            bench.not_covered.append(NotCovered(c.CLAIMS[case.key], reason, case.key))
            continue
        with bench.case(case.key, c.CLAIMS[case.key], (case.key,)):
            bench.require_unit()
            _try(bench, case)


def _try(bench: Bench, case: Case) -> None:
    old, new = bench.old, bench.new
    before = bench.seen
    if bench.flash is not None:
        bench.flash.doubt(bench.boot)
    attempt, boot = _offer(bench, case, case.make(_ingredients(bench)))
    bench.settle(boot)
    judged = bench.judge(
        c.judge_survival(
            case.key,
            attempt,
            old.facts,
            new.facts,
            bench.seen,
            before=before,
            new_may_run=case.late,
        )
    )
    if judged.standing is Standing.FAILED:
        bench.lost = f"the unit no longer runs what it ran, since the case '{case.key}'"
    elif bench.boot is not None and bench.runs is new and bench.file.confirm:
        bench.hands.carry_out(bench.file.confirm, since=bench.boot.first_line)


def _ingredients(bench: Bench) -> Ingredients:
    new = bench.new
    if bench.file.image == "ciphertext":
        slot, other = bench.target()
    else:
        # What is served does not depend on it, but for the one case that enciphers for an app which does not.
        slots = [each for each in bench.partitions if each.is_ota_slot]
        slot, other = (slots[0] if slots else ANY_SLOT), None
    return Ingredients(
        new.release,
        lambda where: bench.body_for(new, where if bench.file.image == "ciphertext" else None),
        bench.board.chip,
        slot,
        other,
    )


def _offer(bench: Bench, case: Case, what: Served) -> tuple[Attempt, BootRecord | None]:
    """Offers `what`, does what `case` says, and restarts the unit."""
    offer, unit, release = bench.offer, bench.unit, bench.new.release
    mark, since = unit.mark(), offer.journal_length()
    if case.how is How.OTHER_CERTIFICATE:
        with _other_certificate_served(bench):
            offer.make(what, release, bench.target_label())
            bench.hands.carry_out(bench.file.trigger)
            decided = _await_decision(bench, mark)
        return _attempt(bench, mark, since, decided=decided), unit.restart()
    offer.make(what, release, bench.target_label())
    if case.how is How.CUT_IN_DOWNLOAD:
        return _cut_in_download(bench, what, mark)
    if case.fault is not None and offer.server is not None:
        offer.server.faults.add(case.fault(len(what.body)))
    try:
        bench.hands.carry_out(bench.file.trigger)
        if case.how is How.CUT_AT_END:
            return _cut_at_end(bench, what, mark, since)
        decided = _await_decision(bench, mark)
    finally:
        offer.clear_faults()
    return _attempt(bench, mark, since, decided=decided), unit.restart()


def _attempt(bench: Bench, mark: int, since: int, *, decided: bool) -> Attempt:
    sent = sum(each.bytes_sent for each in bench.offer.requests(since)) if bench.offer.seen_here else None
    complaint, line = bench.complaint(mark) or (None, None)
    return Attempt(sent, complaint, line, decided)


def _await_decision(bench: Bench, mark: int) -> bool:
    """Until the unit has given the update up, or has restarted; False when nothing has shown that it has.

    Where qualify.yaml does not name the line that means so, an error that is followed by silence does. A unit that has
    all of an update may write and verify it for long and print nothing: to reset it then would prove nothing.
    """
    times = bench.file.times
    deadline_s = time.monotonic() + times.update_s
    quiet_since_s, seen = time.monotonic(), -1
    while time.monotonic() < deadline_s:
        time.sleep(POLL_S)
        if bench.gave_up(mark) or bench.came_back(mark):
            return True
        now = bench.unit.mark()
        if now != seen:
            seen, quiet_since_s = now, time.monotonic()
        named = bench.unit.failed is not None
        if not named and time.monotonic() - quiet_since_s > times.settle_s and bench.complaint(mark):
            return True
    return False


def _cut_in_download(bench: Bench, what: Served, mark: int) -> tuple[Attempt, BootRecord | None]:
    """Stops sending half way, and resets the unit (or cuts its supply) there."""
    server = bench.offer.server
    assert server is not None
    half = len(what.body) // 2
    armed = server.faults.add(Fault(FaultKind.STALL, match=NAME, at_byte=half))
    try:
        bench.hands.carry_out(bench.file.trigger)
        deadline_s = time.monotonic() + bench.file.times.update_s
        while armed.struck == 0:
            if time.monotonic() > deadline_s or bench.gave_up(mark):
                raise NotProvenError("the download did not get to where it was to be cut")
            time.sleep(POLL_S)
        cut = bench.unit.reset()
    finally:
        bench.offer.clear_faults()
    return Attempt(half), _boot_since(bench, cut)


def _cut_at_end(bench: Bench, what: Served, mark: int, since: int) -> tuple[Attempt, BootRecord | None]:
    """Resets the unit (or cuts its supply) as soon as every byte has gone out."""
    deadline_s = time.monotonic() + bench.file.times.update_s
    while not bench.fetched(since, len(what.body)):
        if time.monotonic() > deadline_s or bench.gave_up(mark):
            shown = bench.shown(mark) or "it printed nothing"
            raise NotProvenError(f"the download was not completed, there was nothing to cut: {shown}")
        time.sleep(POLL_S / 10)
    cut = bench.unit.reset()
    return Attempt(len(what.body)), _boot_since(bench, cut)


def _boot_since(bench: Bench, mark: int) -> BootRecord | None:
    found = bench.unit.await_app(mark, bench.file.times.boot_s)
    if found is not None:
        return found
    since = [boot for boot in bench.unit.look() if boot.first_line >= mark]
    return since[-1] if since else None


@contextmanager
def _other_certificate_served(bench: Bench) -> Iterator[None]:
    """The server is the same, at the same place, but for a certificate that the unit cannot trust."""
    server = bench.offer.server
    assert server is not None
    port = server.address[1]
    folder = bench.board.folder
    host = bench.hands.values.get("host", server.address[0])
    certificate, key = write_other_certificate(folder, host)
    server.stop()
    try:
        bench.offer.start(certificate=certificate, key=key, port=port)
        yield
    finally:
        key.unlink(missing_ok=True)
        server.stop()
        bench.offer.start(port=port)


def write_other_certificate(folder: Path, host: str) -> tuple[Path, Path]:
    """For the same name, by nobody that the unit knows; a private key is in no folder of evidence when it is over."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host or "somebody else")])
    now = datetime.now(timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    certificate, key_file = folder / "other-certificate.pem", folder / "other-certificate.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.touch(mode=0o600)
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    key_file.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return certificate, key_file
