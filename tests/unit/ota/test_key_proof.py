"""What a firmware's answer to one sector says of a key, and what it does not."""

from __future__ import annotations

from typing import Any

import pytest

from harness.chips import ESP32, ESP32C3
from harness.console.device import Answer
from harness.errors import FormatError
from harness.formats.app_image import app_description_at, parse_app_image
from harness.formats.flash_encryption import decrypt
from harness.formats.ota_package import HEADER_BYTES, parse_package
from harness.ota.key_proof import PROOF_VERSION, proof_by_firmware, proof_sector
from harness.vault.key_proof import ProofResult

MAC = "02:00:00:aa:bb:01"
KEY = bytes(range(32))
STATUS = {
    "fe": "release",
    "state": "valid",
    "next": "ota_1",
    "next_offset": 0x1A0000,
    "project": "companion",
    "secure_version": 3,
}


def answered(error: str | None, *phases: str, version: str = PROOF_VERSION) -> Answer:
    events = tuple({"ev": "ota", "phase": phase} for phase in phases)
    return Answer("ota-uart", error is None, error, 0, {"version": version}, events)


class Firmware:
    """Answers in turn, and keeps what it was sent."""

    def __init__(self, *answers: Answer, slot_bytes: int | None = 0x180000) -> None:
        self.answers = list(answers)
        self.slot_bytes = slot_bytes
        self.sent: list[tuple[bytes, dict[str, Any]]] = []

    def command(self, name: str, *, timeout_s: float = 0.0, **arguments: object) -> Answer:
        assert (name, arguments) == ("hash", {"slot": "ota_1"})
        return Answer("hash", True, None, 0, {} if self.slot_bytes is None else {"len": self.slot_bytes})

    def take(self, data: bytes, **arguments: Any) -> Answer:
        self.sent.append((data, arguments))
        return self.answers.pop(0)


def ask(firmware: Firmware, **status: object) -> ProofResult:
    fields = {**STATUS, **status}
    return proof_by_firmware(firmware, ESP32C3, MAC, KEY, fields, lambda _: bytes(64)).result


ANSWERS = (
    (answered("body-hash", "header", "erase", "first-sector", "write"), ProofResult.PROVEN),
    (answered("body-hash", "header"), ProofResult.PROVEN),  # the event was lost on the wire
    (answered("not-deciphered", "header", "erase"), ProofResult.WRONG),
    (answered("body-hash", "first-sector", version="1.0.0"), ProofResult.OPEN),
    (answered("wrong-description", "header", "erase"), ProofResult.OPEN),
    (answered("not-erased", "header", "erase"), ProofResult.OPEN),
    (answered("busy"), ProofResult.OPEN),
    (answered("wrong-cipher", "header"), ProofResult.OPEN),
    (answered("uart-timeout", "header"), ProofResult.OPEN),
)


@pytest.mark.parametrize(("answer", "result"), ANSWERS, ids=lambda value: getattr(value, "error", None))
def test_only_what_comes_after_the_first_sector_proves_a_key(answer: Answer, result: ProofResult) -> None:
    assert ask(Firmware(answer)) is result


def test_a_firmware_that_knows_another_signer_is_asked_bare() -> None:
    firmware = Firmware(answered("bad-signature"), answered("image-invalid", "first-sector"))
    assert ask(firmware) is ProofResult.PROVEN
    (package, _), (bare, arguments) = firmware.sent
    assert arguments["bare"] == 1
    assert bare == package[HEADER_BYTES:]


def test_a_firmware_that_takes_nothing_from_here_shows_nothing() -> None:
    firmware = Firmware(answered("bad-signature"), answered("bare-not-allowed"))
    proof = proof_by_firmware(firmware, ESP32C3, MAC, KEY, STATUS, lambda _: bytes(64))
    assert proof.result is ProofResult.OPEN
    assert "bad-signature" in proof.how


def test_a_firmware_without_updates_over_the_uart_gets_it_as_updates_go() -> None:
    firmware = Firmware(answered("unknown-command"), answered("body-hash", "first-sector"))
    assert ask(firmware) is ProofResult.PROVEN
    assert [arguments.get("over") for _, arguments in firmware.sent] == ["uart", None]


@pytest.mark.parametrize("status", [{"fe": "off"}, {"next": "none"}, {"state": "pending"}])
def test_a_board_that_cannot_show_it_or_needs_its_other_slot_is_not_asked(status: dict[str, str]) -> None:
    firmware = Firmware()
    assert ask(firmware, **status) is ProofResult.OPEN
    assert firmware.sent == []


def test_a_slot_of_unknown_size_is_not_written() -> None:
    firmware = Firmware(slot_bytes=None)
    assert ask(firmware) is ProofResult.OPEN
    assert firmware.sent == []


@pytest.mark.parametrize("chip", [ESP32, ESP32C3], ids=lambda chip: chip.name)
def test_the_sector_begins_like_an_application_and_can_never_be_one(chip: Any) -> None:
    sector = proof_sector(chip, "companion", 3)
    described = app_description_at(sector)
    assert (described.project_name, described.version, described.secure_version) == (
        "companion",
        PROOF_VERSION,
        3,
    )
    with pytest.raises(FormatError, match="length of segment 0"):
        parse_app_image(sector)


def test_the_package_promises_a_hash_that_its_body_does_not_have() -> None:
    firmware = Firmware(answered("body-hash", "first-sector"))
    ask(firmware)
    header, _, body = parse_package(firmware.sent[0][0])
    with pytest.raises(FormatError, match="SHA-256"):
        header.check_body(body)
    assert decrypt(ESP32C3.cipher, KEY, 0x1A0000, body) == proof_sector(ESP32C3, "companion", 3)
    assert (header.slot_offset, header.slot_size) == (0x1A0000, 0x180000)
