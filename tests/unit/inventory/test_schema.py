"""The JSON Schema of boards.yaml says of a file's form what its reader says."""

from __future__ import annotations

import importlib
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from harness.chips import CHIPS, TWINS
from harness.cli.main import cli
from harness.errors import UsageError
from harness.inventory.discover import EXAMPLES
from harness.inventory.entry import LINKS
from harness.inventory.inventory import parse_inventory
from harness.inventory.schema import boards_schema
from harness.qualify.example import EXAMPLE
from harness.qualify.schema import qualify_schema

ROOT = Path(__file__).parents[3]
PUBLISHED = ROOT / "docs" / "boards.schema.json"


def board(text: str) -> str:
    return f"version: 1\nboards:\n  a: {{{text}}}\n"


SERIAL = "chip: esp32c3, link: serial, port: COM5"

FITTING = [
    "version: 1\nboards: {}\n",
    "version: 1\nesp_idf: ~/esp-idf\nboards: {}\n",
    *(board(f"chip: {chip}, link: serial, mac: '7C-DF-A1-00-00-01'") for chip in CHIPS),
    *(board(f"chip: {chip}, link: twin") for chip in TWINS),
    board("chip: ESP32-C3, link: twin, tags: [x], description: my own"),
    board("chip: esp32c3, link: qemu, flash_size: 8MB, watchdog: true"),
    board("chip: esp32c3, link: rfc2217, url: 'rfc2217://pi4:4000?ign_set_control'"),
    board("chip: esp32c3, link: labgrid, place: desk, mac: '7C-DF-A1-00-00-01', burn_up_to: release"),
    board(
        "chip: esp32c3, link: labgrid, coordinator: 'rack:20408', filter: {board: esp32c3, rig: 2}, grace_s: 60"
    ),
    board(f"{SERIAL}, power: {{by: uhubctl, hub: '1-1.4', port: 4}}, burn_up_to: release+sbv2"),
    board(f"{SERIAL}, power: {{by: uhubctl}}"),
    board("chip: esp32c3, link: labgrid, place: desk"),
    board("chip: esp32c3, link: labgrid, filter: {soc: c3, rev: 4}, coordinator: 'lab:20408'"),
    board(f"{SERIAL}, power: {{by: command, off: [relay, '0'], on: [relay, '1']}}"),
    board(f"{SERIAL}, network: {{ssid: lab, password_file: p.txt, port: 8070-8079}}"),
    board(f"{SERIAL}, network: {{ssid: lab, port: 8070, bind: 0.0.0.0}}"),
    board(f"{SERIAL}, secure_boot: {{keys: [vault, k.pem], scheme: rsa3072}}, budget: {{revocations: 1}}"),
    board(f"{SERIAL}, flash_key: {{command: [kms, '{{mac}}'], timeout_s: 5}}"),
]

MISFITS = [
    "{}",
    "version: 2\nboards: {}\n",
    "version: 1\nboards: [a]\n",
    "version: 1\nboards: {}\nbaords: {}\n",
    "version: 1\nboards: {'a b': {chip: esp32, link: twin}}\n",
    board("chip: esp32"),
    board("link: twin"),
    board("chip: esp99, link: twin"),
    board("chip: esp32, link: telepathy"),
    board("chip: esp32, link: twin, port: COM5"),
    board("chip: esp32, link: twin, burn_up_to: release"),
    board("chip: esp32, link: twin, mac: '7c:df:a1:00:00'"),
    board("chip: esp32c3, link: serial"),
    board("chip: esp32c3, link: serial, port: ''"),
    board(f"{SERIAL}, usb_serial: '0001'"),
    board(f"{SERIAL}, burn_up_to: everything"),
    board(f"{SERIAL}, sacrificial: 'yes'"),
    board(f"{SERIAL}, baud: 300"),
    board(f"{SERIAL}, power: {{by: hope}}"),
    board(f"{SERIAL}, power: {{by: uhubctl, port: 4}}"),
    board(f"{SERIAL}, power: {{by: command, off: [], on: [x]}}"),
    board(f"{SERIAL}, network: {{password: hunter2hunter2}}"),
    board(f"{SERIAL}, network: {{ssid: lab, password_file: a, password_env: B}}"),
    board(f"{SERIAL}, network: {{password_file: a}}"),
    board(f"{SERIAL}, network: {{port: lots}}"),
    board(f"{SERIAL}, budget: {{digest_slots: 4}}"),
    board(f"{SERIAL}, flash_key: {{}}"),
    board("chip: esp32c3, link: labgrid"),
    board("chip: esp32c3, link: labgrid, place: a, filter: {b: c}"),
    board("chip: esp32c3, link: labgrid, filter: {}"),
    board("chip: esp32c3, link: rfc2217, url: 'http://pi4:4000'"),
    board("chip: esp32c3, link: labgrid"),
    board("chip: esp32c3, link: labgrid, place: desk, filter: {board: esp32c3}"),
    board("chip: esp32c3, link: labgrid, filter: {}"),
    board("chip: esp32c3, link: labgrid, filter: {board: [esp32c3]}"),
    board("chip: esp32c3, link: labgrid, place: desk, coordinator: 'http://rack:20408'"),
    board("chip: esp32c3, link: labgrid, place: desk, grace_s: 0"),
]


@pytest.fixture(scope="module")
def accepts() -> Any:
    """Whether a schema takes a value; by the reference implementation, from outside."""
    try:
        jsonschema: Any = importlib.import_module("jsonschema")
    except ImportError:
        if os.environ.get("CI"):
            raise
        pytest.skip("jsonschema is not installed")
    schema = boards_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    return lambda text: validator.is_valid(YAML(typ="safe").load(text))


def reads(text: str) -> bool:
    try:
        parse_inventory(text, Path("boards.yaml"))
    except UsageError:
        return False
    return True


@pytest.mark.parametrize("text", FITTING, ids=range(len(FITTING)))
def test_what_the_reader_takes_the_schema_takes(accepts: Any, text: str) -> None:
    assert reads(text)
    assert accepts(text)


@pytest.mark.parametrize("text", MISFITS, ids=range(len(MISFITS)))
def test_what_the_reader_refuses_for_its_form_the_schema_refuses(accepts: Any, text: str) -> None:
    assert not reads(text)
    assert not accepts(text)


def test_every_sample_in_the_documentation_fits(accepts: Any) -> None:
    samples = [(ROOT / "boards.yaml").read_text()]
    for page in [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]:
        samples += [
            block
            for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
            if re.search(r"^boards:", block, re.MULTILINE) and reads(block)
        ]
    assert [text for text in samples if not accepts(text)] == []
    assert "link: serial" in EXAMPLES


def test_the_file_in_the_documentation_is_current() -> None:
    assert json.loads(PUBLISHED.read_text()) == boards_schema(), "harness schema > docs/boards.schema.json"


def test_an_editor_can_show_what_each_field_means_and_which_words_there_are() -> None:
    models = boards_schema()["$defs"]
    links = {
        each["properties"]["link"]["const"]: name
        for name, each in models.items()
        if "Entry" in name and "link" in each["properties"]
    }
    assert set(links) == set(LINKS)
    silent = [
        f"{link}.{field}"
        for link, name in links.items()
        for field, schema in models[name]["properties"].items()
        if "description" not in schema
    ]
    assert silent == []
    assert models["SerialEntry"]["properties"]["chip"]["anyOf"][0]["enum"] == list(CHIPS)
    assert models["TwinEntry"]["properties"]["chip"]["anyOf"][0]["enum"] == list(TWINS)


def test_a_qualify_yaml_has_a_schema_of_the_same_kind() -> None:
    try:
        jsonschema: Any = importlib.import_module("jsonschema")
    except ImportError:
        if os.environ.get("CI"):
            raise
        pytest.skip("jsonschema is not installed")
    schema = qualify_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    sample = YAML(typ="safe").load(EXAMPLE)
    assert [error.message for error in validator.iter_errors(sample)] == []
    assert not validator.is_valid(sample | {"unit": "any"})
    assert not validator.is_valid({key: value for key, value in sample.items() if key != "unit"})


def test_the_command_prints_it() -> None:
    done = CliRunner().invoke(cli, ["schema"])
    assert done.exit_code == 0
    assert json.loads(done.output) == boards_schema()
