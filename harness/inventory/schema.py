"""The JSON Schema of boards.yaml, for editors: made from the models that read it.

An editor shows what a field means and refuses what the reader refuses for its form. What needs more than form (a key
slot that the chip has not, a budget larger than its counter) only the reader says.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from harness.chips import CHIPS, TWINS
from harness.inventory.entry import COORDINATOR_PATTERN, MAC_PATTERN, InventoryFile

ADDRESS = "urn:esp32-secure-ota-harness:boards.yaml:1"
"""A name, no place: nothing is fetched."""
FILE_NAME = "boards.schema.json"
EDITOR_LINE = f"# yaml-language-server: $schema={FILE_NAME}"
"""First line of a boards.yaml, by which editors find the schema beside it."""
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"

_PORT_RANGE = {
    "anyOf": [
        {"type": "integer", "minimum": 0, "maximum": 65535},
        {"type": "string", "pattern": r"^\s*\d{1,5}(\s*-\s*\d{1,5})?\s*$"},
    ],
    "default": 0,
    "examples": [8070, "8070-8079"],
}
_TEXT = {"type": "string"}


def _chip(names: Sequence[str]) -> dict[str, Any]:
    """An editor offers the names; the reader also takes them with dashes and capitals."""
    letters = ("-*".join(f"[{c}{c.upper()}]" if c.isalpha() else c for c in name) for name in names)
    return {"anyOf": [{"enum": list(names)}, {"type": "string", "pattern": f"^({'|'.join(letters)})-*$"}]}


_MAC = {"anyOf": [{"type": "string", "pattern": f"^{MAC_PATTERN.pattern}$"}, {"type": "null"}]}

REFINED: Mapping[tuple[str, str], Mapping[str, Any]] = {
    # (model or "*", field): what the model's validators demand of the form
    ("*", "chip"): _chip(tuple(CHIPS)),
    ("TwinEntry", "chip"): _chip(tuple(TWINS)),
    ("*", "mac"): _MAC | {"examples": ["7c:df:a1:00:00:01"]},
    ("Network", "ssid"): {"anyOf": [{"type": "string", "minLength": 1, "maxLength": 32}, {"type": "null"}]},
    ("Network", "password_env"): {"anyOf": [_TEXT | {"pattern": "^[A-Z_][A-Z0-9_]*$"}, {"type": "null"}]},
    ("Rfc2217Entry", "url"): _TEXT
    | {"pattern": r"^rfc2217://[^/:]+:\d+", "examples": ["rfc2217://pi4:4000"]},
    ("LabgridEntry", "coordinator"): {
        "anyOf": [_TEXT | {"pattern": f"^{COORDINATOR_PATTERN.pattern}$"}, {"type": "null"}],
        "examples": ["rack:20408"],
    },
    ("LabgridEntry", "filter"): {
        "anyOf": [
            {"type": "object", "additionalProperties": {"type": ["string", "number"]}, "minProperties": 1},
            {"type": "null"},
        ],
        "examples": [{"board": "esp32c3"}],
    },
    ("UhubctlEntry", "hub"): {"anyOf": [_TEXT | {"pattern": r"^\d+(-\d+(\.\d+)*)?$"}, {"type": "null"}]},
    ("SerialEntry", "port"): {
        "anyOf": [_TEXT | {"pattern": r"\S"}, {"type": "null"}],
        "examples": ["/dev/serial/by-id/usb-Silicon_Labs_CP2102N_0001-if00-port0", "/dev/ttyUSB0", "COM5"],
    },
}

WHOLE: Mapping[str, Mapping[str, Any]] = {
    # model: what its validators demand of fields together
    "SerialEntry": {
        "anyOf": [{"required": [way]} for way in ("port", "usb_serial", "usb_location", "mac")],
        "not": {
            "anyOf": [
                {"required": list(pair)}
                for pair in (("port", "usb_serial"), ("port", "usb_location"), ("usb_serial", "usb_location"))
            ]
        },
    },
    "UhubctlEntry": {"dependentRequired": {"hub": ["port"], "port": ["hub"]}},
    "LabgridEntry": {"oneOf": [{"required": ["place"]}, {"required": ["filter"]}]},
    "FlashKeyEntry": {"oneOf": [{"required": ["file"]}, {"required": ["command"]}]},
    "Network": {
        "dependentRequired": {"password_file": ["ssid"], "password_env": ["ssid"]},
        "not": {"required": ["password_file", "password_env"]},
    },
}

SHORT: Mapping[str, Mapping[str, Any]] = {
    # model: what its reader also takes in its place
    "WitnessEntry": {"type": "string", "description": "A regular expression whose first group is the value."},
    "ConfirmedEntry": {
        "type": "string",
        "description": "A regular expression: its group is the state, or without one it matches only what is confirmed.",
    },
}

FIELD_TEXT: Mapping[tuple[str, str], str] = {
    # Where the class itself says nothing of a field that explains itself in code only.
    ("*", "chip"): "The chip, as `harness boards` names it.",
    ("*", "link"): "How its UART is reached.",
    ("*", "description"): "For people.",
    ("*", "tags"): "Groups of boards; --board takes a tag as well as a name.",
    ("*", "network"): "The Wi-Fi that the board joins, and where the OTA server listens for it.",
    ("*", "mac"): "Base MAC; of a physical board it must match the chip before anything is written.",
    ("*", "baud"): "Baud of the ROM and its stub.",
    ("*", "console_baud"): "Baud of the firmware's log.",
    ("*", "power"): "How its supply is cut.",
    ("*", "port"): "Its serial port.",
    ("*", "usb_serial"): "USB serial number of its bridge.",
    ("*", "usb_location"): "Place in the USB tree, such as 1-1.4.",
    ("*", "place"): "Name of the place at the coordinator.",
    ("*", "url"): "RFC 2217 server.",
    ("*", "flash_key"): "Where a new flash key of this board comes from, when it is not to be made here.",
    ("*", "qemu"): "Path of QEMU.",
    ("*", "watchdog"): "Whether the emulated timer watchdogs run.",
    ("*", "by"): "The way.",
    ("*", "off"): "Command that cuts the supply.",
    ("*", "on"): "Command that gives it back.",
    ("*", "timeout_s"): "Seconds that it may take.",
    ("*", "state"): "Folder of flash.bin and efuse.bin; default: twins/NAME in the state folder.",
    ("InventoryFile", "version"): "Version of this format.",
    ("InventoryFile", "boards"): "The boards, by name.",
}


def boards_schema() -> dict[str, Any]:
    """The schema of boards.yaml (JSON Schema 2020-12)."""
    return schema_of(InventoryFile, ADDRESS, "boards.yaml of esp32-secure-ota-harness")


def schema_text(schema: Mapping[str, Any]) -> str:
    """As it is kept in a file."""
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def schema_of(model: type[BaseModel], address: str, title: str) -> dict[str, Any]:
    """The schema of a file that `model` reads, with the models' own words as descriptions."""
    made = model.model_json_schema(by_alias=True)
    models = {each.__name__: each for each in _models(model)}
    for name, part in {**made.get("$defs", {}), model.__name__: made}.items():
        if name in models:
            _describe(part, models[name])
            part.update(WHOLE.get(name, {}))
            # The reader tells variants by it, also where the model has a default.
            words = [
                field for field in ("link", "by") if "const" in part.get("properties", {}).get(field, {})
            ]
            if words:
                part["required"] = sorted({*part.get("required", []), *words})
    boards = made.get("properties", {}).get("boards")
    if boards is not None:
        boards["propertyNames"] = {"pattern": NAME_PATTERN}
    tidied: dict[str, Any] = _tidy(made)
    tidied.pop("title", None)
    parts = tidied.get("$defs", {})
    parts.pop("Ports", None)
    for name, short in SHORT.items():
        if name in parts:
            parts[name] = {"anyOf": [dict(short), parts[name]]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": address,
        "title": title,
        **tidied,
    }


def _describe(part: dict[str, Any], model: type[BaseModel]) -> None:
    words = _words_of(model)
    for field, schema in part.get("properties", {}).items():
        anybody = "*" if model.__module__ == InventoryFile.__module__ else ""
        refined = REFINED.get((model.__name__, field), REFINED.get((anybody, field)))
        if refined is not None:
            kept = {key: schema[key] for key in ("default",) if key in schema}
            schema.clear()
            schema.update({**kept, **refined})
        text = words.get(field) or FIELD_TEXT.get((model.__name__, field)) or FIELD_TEXT.get((anybody, field))
        if text is not None:
            schema["description"] = text


def _words_of(model: type[BaseModel]) -> dict[str, str]:
    """The string below each field in the source of the class and of those above it."""
    found: dict[str, str] = {}
    for each in reversed(model.__mro__):
        if not (issubclass(each, BaseModel) and each is not BaseModel):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(each))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, below in zip(body.body, body.body[1:], strict=False):
            said = (
                below.value.value
                if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
                else None
            )
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(said, str)
            ):
                found[field.target.id] = _plain(said)
    return found


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text.replace("``", "`")).strip()


def _models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """`model`, and those that its fields hold."""
    seen: set[type[BaseModel]] = set()

    def walk(kind: Any) -> Iterator[type[BaseModel]]:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            if kind not in seen:
                seen.add(kind)
                yield kind
                for field in kind.model_fields.values():
                    yield from walk(field.annotation)
        elif get_origin(kind) is not None:
            for part in get_args(kind):
                yield from walk(part)

    yield from walk(model)


def _tidy(node: Any) -> Any:
    """Without the titles that pydantic makes of names, and defaults that say nothing."""
    if isinstance(node, list):
        return [_tidy(each) for each in node]
    if not isinstance(node, dict):
        return node
    if node.get("$ref") == "#/$defs/Ports":
        return {**_PORT_RANGE, **{key: value for key, value in node.items() if key == "description"}}
    if "discriminator" in node:
        others = {key: value for key, value in node.items() if key not in ("discriminator", "oneOf")}
        return {**others, **_by_word(node)}
    found = {}
    for key, value in node.items():
        is_title = key == "title" and isinstance(value, str)
        is_empty_default = key == "default" and (value is None or isinstance(value, (dict, list)))
        if is_title or is_empty_default:
            continue
        found[key] = _plain(value) if key == "description" and isinstance(value, str) else _tidy(value)
    return found


def _by_word(variants: Mapping[str, Any]) -> dict[str, Any]:
    """Variants that a word in the mapping chooses: so an editor complains of the chosen one, not of all."""
    word = variants["discriminator"]["propertyName"]
    mapping = variants["discriminator"]["mapping"]
    return {
        "type": "object",
        "required": [word],
        "properties": {word: {"enum": list(mapping)}},
        "allOf": [
            {"if": {"required": [word], "properties": {word: {"const": chosen}}}, "then": {"$ref": model}}
            for chosen, model in mapping.items()
        ],
    }
