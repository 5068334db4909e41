"""What qualify.yaml may say, and what is said of mistakes in it."""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path
from typing import Any

import pytest
from recorded_unit import app_of
from ruamel.yaml import YAML

from harness.errors import HarnessError, RefusedError, UsageError
from harness.inventory.entry import SerialEntry
from harness.qualify.artefacts import load_artefacts
from harness.qualify.example import EXAMPLE
from harness.qualify.file import parse_qualify_text, read_qualify_file
from harness.qualify.perform import require_allowed

ZERO = "0" * 64
GOOD: dict[str, Any] = {
    "version": 1,
    "unit": "ship",
    "running": {"path": "a.bin", "sha256": ZERO},
    "update": {"path": "b.bin", "sha256": ZERO},
    "image": "plaintext",
    "trigger": [{"by": "reset"}],
}
PATH = Path("qualify.yaml")


def text_of(**more: Any) -> str:
    out = io.StringIO()
    told = {name: value for name, value in {**GOOD, **more}.items() if value is not None}
    YAML().dump(told, out)
    return out.getvalue()


def test_the_file_that_init_writes_is_valid_and_so_is_all_that_it_shows_in_comments() -> None:
    parse_qualify_text(EXAMPLE, PATH)
    # What is commented out in a line of its own, and can stand beside the rest.
    fields = "there_and_back|secrets|  wifi|image|slot|version|failed|times|requirements|  OTA-1|  SEC-1"
    shown = re.sub(rf"(?m)^( *)# ((?:{fields}):)", r"\1\2", EXAMPLE)
    assert shown.count("#") < EXAMPLE.count("#") - 10
    parsed = parse_qualify_text(shown, PATH)
    assert parsed.there_and_back
    assert parsed.secrets
    assert parsed.end.slot == "ota_1"
    assert parsed.witness.image is not None
    assert set(parsed.requirements) == {"OTA-1", "SEC-1"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"unit": None}, "unit: is missing: say 'ship'"),
        ({"unit": "keep"}, "unit: must be 'ship' or 'sacrificial'"),
        ({"trigger": []}, "trigger: must have at least one"),
        (
            {"trigger": [{"by": "telepathy"}]},
            "'by' must be one of: uart, http, command, prompt, reset, await",
        ),
        ({"trigger": [{"send": "x"}]}, "'by' is missing"),
        ({"running": {"path": "a", "sha256": "12"}}, "must be a SHA-256"),
        ({"witness": {"version": "no group"}}, "put the value itself in parentheses"),
        ({"witness": {"version": "(half"}}, "is no regular expression"),
        (
            {"witness": {"confirmed": {"pattern": "good", "is": "good"}}},
            "no group that 'is' could be compared",
        ),
        ({"witness": {"confirmed": {"pattern": "(.*)", "is": []}}}, "must have at least one"),
        ({"image": "file"}, "'served' belongs to 'image: file'"),
        ({"rollback": True}, "'rollback' is for 'unit: sacrificial'"),
        ({"requirements": {"R1": "carried-out"}}, "there is no claim 'carried-out'"),
        ({"requirements": {"R1": []}}, "no claim is named that would meet it"),
        ({"requirements": {"R1": "good-luck"}}, "there is no claim 'good-luck'"),
        ({"server": {"certificate": "a.pem"}}, "'by' is missing"),
        ({"server": {"by": "harness", "certificate": "a.pem"}}, "both 'certificate' and 'key'"),
        ({"server": {"by": "harness", "path": "a b"}}, "is no path to serve under"),
        (
            {"prepare": [{"by": "command", "run": ["join", "{secret:wifi}"]}]},
            "must not stand in a command line",
        ),
        (
            {"prepare": [{"by": "http", "url": "http://unit/?t={secret:wifi}"}]},
            "must not stand in a command line or a URL",
        ),
        (
            {"witness": {"version": {"pattern": "(x)", "run": ["ask", "{secret:x}"]}}},
            "must not stand in a command line",
        ),
        (
            {"server": {"by": "external", "url": "https://me:pass@updates.example/a"}},
            "a URL with a password in it",
        ),
        (
            {"prepare": [{"by": "http", "url": "http://unit/", "headers": {"Authorization": "Bearer x"}}]},
            "'Authorization' is a secret",
        ),
        ({"colour": "red"}, "colour: there is no such field"),
        ({"version": 2}, "newer than this harness knows"),
    ],
)
def test_a_mistake_is_named_with_file_line_and_field(more: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_qualify_text(text_of(**more), PATH)
    assert said in caught.value.message
    assert caught.value.message.startswith("qualify.yaml:")


@pytest.mark.parametrize("text", ["", "- a", "{", "a: !!python/object:os.system x", "x" * 300_000, "\t:"])
def test_what_is_no_such_file_at_all_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(UsageError):
        parse_qualify_text(text, PATH)


def test_a_password_in_the_wrong_place_is_not_quoted() -> None:
    with pytest.raises(UsageError) as caught:
        parse_qualify_text(text_of(secrets={"wifi": "hunter2hunter2"}), PATH)
    assert "hunter2" not in str(caught.value)


def demanded(folder: Path, **sha256: str) -> Path:
    """A qualify.yaml on two images, with other digests where a test says so."""
    apps = {}
    for role, version in (("running", "1.0.0"), ("update", "1.1.0")):
        image = app_of(version, hashlib.sha256(version.encode()).hexdigest(), project="lock")
        (folder / f"{role}.bin").write_bytes(image)
        apps[role] = {
            "path": f"{role}.bin",
            "sha256": sha256.get(role, hashlib.sha256(image).hexdigest()),
        }
    path = folder / "qualify.yaml"
    path.write_text(text_of(**apps))
    return path


def test_images_come_by_path_and_sha256(tmp_path: Path) -> None:
    found = load_artefacts(read_qualify_file(demanded(tmp_path)))
    assert (found.running.facts.version, found.update.facts.version) == ("1.0.0", "1.1.0")


def test_another_sha256_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="Nothing was touched"):
        load_artefacts(read_qualify_file(demanded(tmp_path, update=ZERO)))


def test_two_apps_that_no_log_could_tell_apart_are_refused(tmp_path: Path) -> None:
    path = demanded(tmp_path)
    (tmp_path / "update.bin").write_bytes((tmp_path / "running.bin").read_bytes())
    text = path.read_text()
    old = hashlib.sha256((tmp_path / "running.bin").read_bytes()).hexdigest()
    plan = read_qualify_file(path)
    path.write_text(text.replace(plan.file.update.sha256, old))
    with pytest.raises(UsageError, match="the same app"):
        load_artefacts(read_qualify_file(path))


SERIAL = SerialEntry(chip="esp32c3", link="serial", port="/dev/ttyUSB0")
SEND = [{"by": "uart", "send": "x"}]


@pytest.mark.parametrize(
    ("more", "observe", "error"),
    [
        ({"unit": "sacrificial"}, False, RefusedError),
        ({"unit": "sacrificial"}, True, UsageError),
        ({"trigger": SEND}, True, UsageError),
        ({"confirm": SEND}, True, UsageError),
        ({"witness": {"slot": {"pattern": "(x)", "send": "x"}}}, True, UsageError),
        ({"trigger": SEND}, False, None),
        ({}, True, None),
    ],
)
def test_what_is_not_allowed_is_refused_before_anything_is_opened(
    tmp_path: Path, more: dict[str, Any], observe: bool, error: type[HarnessError] | None
) -> None:
    path = tmp_path / "qualify.yaml"
    path.write_text(text_of(**more))
    plan = read_qualify_file(path)
    if error is None:
        require_allowed(plan, SERIAL, "unit", observe=observe)
        return
    with pytest.raises(error):
        require_allowed(plan, SERIAL, "unit", observe=observe)
