"""Files that people and earlier releases wrote: boards.yaml, the vault's records, device records, challenges."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, UsageError
from harness.inventory.inventory import NAME_PATTERN, parse_inventory
from harness.provision.device_record import DeviceRecord, DeviceRecords
from harness.provision.profile import Lock, Profile
from harness.vault.errors import DamagedError
from harness.vault.hand_over import read_challenge
from harness.vault.intent import Intent
from harness.vault.key_record import Challenge, Change, KeyRecord
from harness.vault.key_ref import KeyState
from harness.vault.record_file import canonical, parse_record
from harness.vault.sealed import Sealed
from tests.fuzz.target import DATA, Target, refused, require, scratch_folder

MAC = "aa:bb:cc:00:00:01"
LONGEST_MESSAGE = 20_000
"""Characters: a complaint is for a person to read."""


def check_boards_yaml(data: bytes) -> str:
    text = data.decode("utf-8", "surrogateescape")
    try:
        inventory = parse_inventory(text, Path("boards.yaml"))
    except UsageError as error:
        require(len(str(error)) < LONGEST_MESSAGE, f"a complaint has {len(str(error))} characters")
        return refused(error)
    require(all(NAME_PATTERN.fullmatch(name) for name in inventory.boards), "a name that is no folder name")
    return "good"


def boards_yamls() -> Iterator[bytes]:
    yield b"version: 1\nboards:\n  a: {chip: esp32c3, link: twin}\n"
    yield b"version: 1\nx: &a [1, *b]\nboards: &b\n  a: &c {chip: esp32, link: twin}\n  d: {<<: *c, tags: [x, y]}\n"
    yield b"""\
version: 1
esp_idf: ~/esp
boards:
  desk:
    chip: esp32c3
    link: serial
    usb_serial: "0001"
    mac: "7c:df:a1:00:00:01"
    burn_up_to: release
    tags: [c3, lab]
    network: {ssid: "lab", password_env: WIFI_PASSWORD, port: 8070-8079}
    secure_boot: {keys: [vault, key.pem], scheme: rsa3072}
    flash_key: {command: [./key.sh, "{mac}"], timeout_s: 5}
    power: {by: uhubctl, hub: 1-1.4, port: 2}
    budget: {secure_version: 3}
  far: {chip: esp32, link: rfc2217, url: "rfc2217://pi4:4000", power: {by: command, off: [a], on: [b]}}
  emu: {chip: esp32, link: qemu, flash_size: 4MB, arguments: [-d]}
"""


def _with_check(data: bytes) -> bytes:
    """`data` with the checksum that its fields have, so that what lies behind the checksum is reached."""
    try:
        fields = json.loads(data)
        if isinstance(fields, dict):
            fields.pop("check", None)
            fields["check"] = hashlib.sha256(canonical(fields)).hexdigest()
            return json.dumps(fields).encode("ascii")
    except (ValueError, RecursionError):
        pass
    return data


def _check_record(data: bytes, from_fields: Callable[[dict[str, Any]], Any]) -> str:
    words = []
    for content in (data, _with_check(data)):
        try:
            fields = parse_record(content, Path("record.json"), newest=2, what="the record")
            record = from_fields(fields)
            require(from_fields(record.to_fields()) == record, "a record differs when written and read")
            json.dumps(record.to_fields())
            words.append("good")
        except HarnessError as error:
            words.append(refused(error))
    return "; ".join(words)


def check_key_record(data: bytes) -> str:
    return _check_record(data, KeyRecord.from_fields)


def check_intent(data: bytes) -> str:
    return _check_record(data, Intent.from_fields)


def check_sealed(data: bytes) -> str:
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        return "no JSON"
    try:
        sealed = Sealed.from_fields(fields, "the record")
    except DamagedError as error:
        return refused(error)
    require(sealed.open(bytes(32), {}) is None, "something opened that nobody sealed")
    return "good"


def key_records() -> Iterator[bytes]:
    challenge = Challenge(0x1000, bytes(32), "QA", "2026-11-21T00:00:00Z")
    record = KeyRecord(
        mac=MAC,
        chip_name="esp32c3",
        key_id="0123456789abcdef",
        state=KeyState.TEST_ONLY,
        made="2026-11-21T00:00:00Z",
        made_by="made here",
        history=(Change(KeyState.TEST_ONLY, "2026-11-21T00:00:00Z", "made here"),),
        challenge=challenge,
        part_ids=("01", "02"),
    )
    yield json.dumps(record.to_fields()).encode()
    for file in sorted((DATA / "vault/v1/keys").glob("*.json")):
        yield file.read_bytes()


def intents() -> Iterator[bytes]:
    for file in sorted((DATA / "vault/v1/intents").glob("*.json")):
        yield file.read_bytes()
    intent = Intent(
        MAC, "esp32", "BLOCK1", "01", "p", "release", "none", {"A": 1}, True, "2026", ("BLOCK2",), {"0": "a"}
    )
    yield json.dumps({"format": 1, **intent.to_fields()}).encode()


def sealed_parts() -> Iterator[bytes]:
    yield json.dumps(Sealed.of(bytes(range(32)), b"key", {}).to_fields()).encode()


def check_device_record(data: bytes) -> str:
    words = []
    records = DeviceRecords(scratch_folder() / "devices")
    records.folder.mkdir(exist_ok=True)
    for content in (data, _with_check(data)):
        (records.folder / f"{MAC.replace(':', '-')}.json").write_bytes(content)
        try:
            record = records.read(MAC)
            require(record is not None, "no record where there is one")
            assert record is not None
            json.dumps(record.to_fields())
            records.write(record)
            require(records.read(MAC) == record, "a record differs when written and read")
            words.append("good")
        except HarnessError as error:
            words.append(refused(error))
    return "; ".join(words)


def device_records() -> Iterator[bytes]:
    record = DeviceRecord(
        mac=MAC,
        chip_name="esp32c3",
        profile=Profile.RELEASE,
        lock=Lock.NONE,
        key_id="0123456789abcdef",
        key_state="test-only",
        key_block="BLOCK_KEY0",
        fuses={"SPI_BOOT_CRYPT_CNT": 7},
        flashed={"ota_0": "ab" * 32},
        plan_id="p",
        updated="2026-11-21T00:00:00Z",
        digests={"0": "cd" * 32},
    )
    fields = record.to_fields()
    fields["proven"] = [{"what": "rollback", "when": "2026", "version": "1.0.0"}]
    yield json.dumps(fields).encode()


def check_challenge(data: bytes) -> str:
    file = scratch_folder() / "challenge.json"
    file.write_bytes(data)
    try:
        read_challenge(file)
    except HarnessError as error:
        return refused(error)
    return "good"


def challenges() -> Iterator[bytes]:
    yield json.dumps(
        {
            "format": 1,
            "mac": MAC,
            "chip": "esp32c3",
            "key_id": "01",
            "address": 4096,
            "block": "00" * 32,
            "receiver": "QA",
            "made": "2026",
        }
    ).encode()


_JSON = (
    b"null", b"true", b"-1", b"1e999", b"NaN", b"[]", b"{}", b"[[[[", b'{"a":', b'"\\ud800"', b"9" * 30,
    b'"format":', b"1.5"
)  # fmt: skip

TARGETS = (
    Target(
        "boards-yaml",
        "boards.yaml",
        check_boards_yaml,
        boards_yamls,
        (
            b"&a ", b"*a", b"<<: *c", b"[*a,*a]", b"!!binary ", b"!!set ", b"!!timestamp ", b"!!int ", b"? ",
            b"- ", b": ",
            b"{", b"[", b"|\n", b">-\n", b"%YAML 1.1\n---\n", b"0x" + b"F" * 40, b"2001-99-99", b".inf", b"~",
            b"\n  ", b"boards:",
            b"link: serial", b"chip: esp32", b"version: 2", b"!!omap ", b"1_0", b"'", b'"\\x00"', b"0o7", b"12:30:45",
        ),
        limit_s=3.0,
    ),
    Target("key-record", "key records of the vault", check_key_record, key_records, (*_JSON, b'"esp32"', b'"history":')),
    Target("intent", "intent files of the vault", check_intent, intents, (*_JSON, b'"fuses":', b'"digests":')),
    Target("sealed", "the enciphered part of a record", check_sealed, sealed_parts, (*_JSON, b'"nonce":"', b'"00')),
    Target("device-record", "device records", check_device_record, device_records, (*_JSON, b'"proven":', b'"fuses":')),
    Target("challenge", "challenges of a hand-over", check_challenge, challenges, (*_JSON, b'"address":')),
)  # fmt: skip
