"""Reads `boards.yaml`; every complaint names file, line and field."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import CollectionEndEvent, CollectionStartEvent

from harness.errors import UsageError
from harness.inventory.entry import (
    FORMAT_VERSION,
    LINKS,
    POWER_WAYS,
    AnyEntry,
    InventoryFile,
    PhysicalEntry,
    QemuEntry,
    TwinEntry,
)

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
"""Board names become folder names and test ids."""

DEFAULT_FILE = "boards.yaml"

MAX_FILE_BYTES = 1 << 20
"""Some thousand boards."""
MAX_DEPTH = 32
MAX_VALUES = 100_000
MAX_COMPLAINTS = 20
MAX_COMPLAINT = 500
"""Characters of one."""
_HARMLESS_TAGS = ("tag:yaml.org,2002:str", "!!str")


@dataclass(frozen=True, slots=True)
class Inventory:
    """The boards of one file, in the order they are written there."""

    path: Path | None
    boards: Mapping[str, AnyEntry]
    esp_idf: Path | None = None
    """ESP-IDF's folder, where the file names one."""

    def named(self, name: str) -> AnyEntry:
        """The entry of `name`.

        Raises:
            UsageError: there is none; the message lists those there are.
        """
        if name not in self.boards:
            where = self.path or f"no {DEFAULT_FILE} here, so there are only throwaway twins"
            known = ", ".join(self.boards) or "none"
            raise UsageError(
                f"there is no board '{name}' ({where}; boards: {known})",
                todo="use one of those names, or give the right file with --boards FILE",
            )
        return self.boards[name]

    def select(self, names: Sequence[str]) -> dict[str, AnyEntry]:
        """Entries by name or tag, in the order asked, each once.

        Raises:
            UsageError: a word is neither a name nor a tag.
        """
        chosen: dict[str, AnyEntry] = {}
        for word in names:
            tagged = {name: entry for name, entry in self.boards.items() if word in entry.tags}
            chosen.update({word: self.boards[word]} if word in self.boards else tagged)
            if word not in self.boards and not tagged:
                self.named(word)
        return chosen

    def require_named(self, names: Iterable[str], option: str) -> None:
        """That every name given with `option` is that of a board; a tag is none, consent is by name.

        Raises:
            UsageError: one is not; the message lists those there are.
        """
        for name in names:
            try:
                self.named(name)
            except UsageError as error:
                error.message = f"{option}: {error.message}"
                raise

    def twins(self) -> dict[str, TwinEntry]:
        """The virtual boards of the file."""
        return {name: entry for name, entry in self.boards.items() if isinstance(entry, TwinEntry)}


def read_inventory(path: Path | None, *, folder: Path | None = None) -> Inventory:
    """Reads `path`, or `boards.yaml` of `folder` (default: the current one) when `path` is None.

    Without a file there are no named boards; a file that was named must exist.

    Raises:
        UsageError: the file is missing, unreadable, not YAML, or says something wrong.
    """
    if path is None:
        path = (folder or Path.cwd()) / DEFAULT_FILE
        if not path.exists():
            return Inventory(None, {})
    try:
        with path.open("rb") as file:
            # One byte more than is allowed, whatever the file is: a device never ends.
            text = file.read(MAX_FILE_BYTES + 1).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason, todo = "it is not UTF-8 text", "save it as UTF-8: iconv -f latin1 -t utf-8 converts most"
        if isinstance(error, OSError):
            reason, todo = error.strerror or str(error), "give a readable file with --boards"
        raise UsageError(f"{path}: cannot be read: {reason}", todo=todo) from error
    return parse_inventory(text, path)


def parse_inventory(text: str, path: Path) -> Inventory:
    """Parses the text of a `boards.yaml`; `path` is for messages.

    Raises:
        UsageError: with ``file:line: field: what is wrong``.
    """
    if len(text) > MAX_FILE_BYTES:
        raise UsageError(
            f"{path}:1: the file has more than {MAX_FILE_BYTES >> 10} KiB", todo="split it by --boards FILE"
        )
    try:
        check_events(text, path)
        tree = YAML(typ="rt").load(text)
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        twice = _TWICE.match(str(error.problem))
        name = f"'{twice[1]}'" if twice else "a name"
        raise UsageError(f"{path}:{line}: {name} stands there twice", todo="take one of them out") from None
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        # Not "from": the error quotes the line, and what is wrong there may be a password.
        raise UsageError(
            f"{path}:{line}: not valid YAML: {_short(_unquoted(str(error.problem)))}",
            todo="mend the syntax there",
        ) from None
    except (YAMLError, ValueError, TypeError, RecursionError) as error:
        # TypeError: a mapping or a list in the place of a name.
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(
            f"{path}:1: not valid YAML: {_short(_unquoted(first))}", todo="mend the syntax"
        ) from None
    if not isinstance(tree, dict):
        raise UsageError(
            f"{path}:1: the file must be a mapping",
            todo=f"start it with 'version: {FORMAT_VERSION}' and 'boards:'",
        )
    version = tree.get("version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        written = str(int(version)) if version < 1 << 64 else "a huge number"
        raise UsageError(
            f"{path}:{_line(tree, ('version',))}: version: {written} is newer than this harness knows ({FORMAT_VERSION})",
            todo="use a newer harness; nothing was touched",
        )
    try:
        parsed = InventoryFile.model_validate(_Plain(path).of(tree))
    except ValidationError as error:
        errors = error.errors()
        complaints = [_complaint(path, tree, dict(item)) for item in errors[:MAX_COMPLAINTS]]
        if len(errors) > MAX_COMPLAINTS:
            complaints.append(f"{path}: and {len(errors) - MAX_COMPLAINTS} more")
        raise UsageError(
            "\n".join(complaints), todo="mend boards.yaml and run again; nothing was touched"
        ) from error
    for name in parsed.boards:
        if not NAME_PATTERN.fullmatch(name):
            raise UsageError(
                f"{path}:{_line(tree, ('boards', name))}: boards.{_short(name)}: not a usable name",
                todo="use letters, digits, dots, dashes and underscores, at most 63",
            )
    named = None if parsed.esp_idf is None else (path.parent / Path(parsed.esp_idf).expanduser()).absolute()
    return Inventory(path, parsed.boards, named)


def check_events(text: str, path: Path) -> None:
    """That the form of a file of ours is one that needs no more of the reader than its length says.

    Raises:
        UsageError: nested too deeply, or with a tag, which could make anything of a value. YAMLError.
    """
    depth = 0
    for event in YAML(typ="rt").parse(text):
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        line = event.start_mark.line + 1
        if depth > MAX_DEPTH:
            raise UsageError(
                f"{path}:{line}: values are nested more than {MAX_DEPTH} deep", todo="mend the brackets there"
            )
        tag = getattr(event, "tag", None)
        if tag is not None and str(tag) not in _HARMLESS_TAGS:
            raise UsageError(
                f"{path}:{line}: a tag (a word that begins with !) has no place in this file",
                todo="write the value without it",
            )


class _Plain:
    """A tree without ruamel's types, which pydantic's strict unions do not know, and without aliases."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._values = 0

    def of(self, node: Any) -> Any:
        """The plain form of `node`.

        Raises:
            UsageError: aliases make it larger than any file that a person would write, or endless.
        """
        self._values += 1
        if self._values > MAX_VALUES:
            raise UsageError(
                f"{self._path}:1: its aliases (*name) make more than {MAX_VALUES} values of it",
                todo="write out what they stand for",
            )
        if isinstance(node, dict):
            return {str(key): self.of(value) for key, value in node.items()}
        if isinstance(node, list):
            return [self.of(value) for value in node]
        if isinstance(node, str):
            return str(node)
        if isinstance(node, bool) or node is None:
            return node
        return int(node) if isinstance(node, int) else node


def _line(tree: Any, location: Sequence[int | str]) -> int:
    """Line (from 1) of the deepest part of `location` that exists in the tree."""
    line = 0
    node = tree
    for part in location:
        in_mapping = isinstance(node, dict) and part in node
        in_list = isinstance(node, list) and isinstance(part, int) and part < len(node)
        if not (in_mapping or in_list):
            continue
        # What came out of an alias by `<<` has no place of its own.
        places = getattr(getattr(node, "lc", None), "data", None) or {}
        line = places[part][0] if part in places else line
        node = node[part]
    return line + 1


_TAGS = (*LINKS, *POWER_WAYS)
"""pydantic puts them into the location of an error, although nobody wrote them there."""

_PHYSICAL_ONLY = PhysicalEntry.model_fields.keys() - QemuEntry.model_fields.keys()

_WANTED: Mapping[str, str] = {
    # pydantic's type of error: what is wanted, with its context filled in
    "missing": "is missing",
    "model_type": "must be a mapping: {{field: value}}",
    "model_attributes_type": "must be a mapping: {{field: value}}",
    "dict_type": "must be a mapping: {{name: value}}",
    "list_type": "must be a list: [one, another]",
    "string_type": "must be text; put it in quotes if YAML takes it for something else",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "too_short": "must have at least {min_length} in the list",
    "string_too_short": "must not be empty",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "union_tag_invalid": "{discriminator} must be one of: {expected_tags}",
}


_TWICE = re.compile(r'found duplicate key "([\w.-]{1,64})" with value')


def _unquoted(problem: str) -> str:
    """A parser's complaint without what it quotes of the file; a sign or two are no secret."""
    return re.sub(r"""(['"]).{3,}\1""", "…", problem, flags=re.DOTALL)


def _complaint(path: Path, tree: Any, item: dict[str, Any]) -> str:
    location = _written(tree, item["loc"])
    field = ".".join(str(part) for part in location) or "file"
    kind, context = item["type"], {key: str(value) for key, value in item.get("ctx", {}).items()}
    message = str(item["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
    if kind == "extra_forbidden":
        on_board = len(location) == 3 and location[0] == "boards"
        message = (
            "is for physical boards only (link: serial, rfc2217 or labgrid); a virtual one may be used up freely"
            if on_board and location[2] in _PHYSICAL_ONLY
            else "there is no such field"
        )
    elif kind == "union_tag_not_found":
        word = context["discriminator"].strip("'")
        message = (
            f"{word} is missing; it must be one of: {', '.join(LINKS if word == 'link' else POWER_WAYS)}"
        )
    elif kind in _WANTED:
        if "expected_tags" in context:
            context = {key: value.replace("'", "") for key, value in context.items()}
        message = _WANTED[kind].format_map(context)
    return f"{path}:{_line(tree, location)}: {_short(field)}: {_short(message)}"


def _short(text: str) -> str:
    """`text`, of which a value that somebody wrote is not to fill the screen."""
    return text if len(text) <= MAX_COMPLAINT else f"{text[:MAX_COMPLAINT]}…"


def _written(tree: Any, location: Sequence[int | str]) -> list[int | str]:
    """`location` as it is written in the file."""
    found: list[int | str] = []
    node = tree
    for part in location:
        indexed = isinstance(node, list) and isinstance(part, int) and part < len(node)
        if indexed or (isinstance(node, dict) and part in node):
            node = node[part]
        elif part in _TAGS:
            continue
        found.append(part)
    return found
