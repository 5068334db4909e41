"""Reads `boards.yaml`; every complaint names file, line and field."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from harness.errors import UsageError
from harness.inventory.entry import FORMAT_VERSION, LINKS, AnyEntry, InventoryFile, TwinEntry

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
"""Board names become folder names and test ids."""

DEFAULT_FILE = "boards.yaml"


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
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(
            f"{path}: cannot be read: {reason}", todo="give a readable file with --boards"
        ) from error
    return parse_inventory(text, path)


def parse_inventory(text: str, path: Path) -> Inventory:
    """Parses the text of a `boards.yaml`; `path` is for messages.

    Raises:
        UsageError: with ``file:line: field: what is wrong``.
    """
    try:
        tree = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UsageError(
            f"{path}:{line}: not valid YAML: {error.problem}", todo="mend the syntax there"
        ) from error
    except (YAMLError, ValueError, RecursionError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"{path}:1: not valid YAML: {first}", todo="mend the syntax") from error
    if not isinstance(tree, dict):
        raise UsageError(
            f"{path}:1: the file must be a mapping",
            todo=f"start it with 'version: {FORMAT_VERSION}' and 'boards:'",
        )
    version = tree.get("version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise UsageError(
            f"{path}:{_line(tree, ('version',))}: version: {version} is newer than this harness knows ({FORMAT_VERSION})",
            todo="use a newer harness; nothing was touched",
        )
    try:
        parsed = InventoryFile.model_validate(_plain(tree))
    except ValidationError as error:
        complaints = [_complaint(path, tree, dict(item)) for item in error.errors()]
        raise UsageError(
            "\n".join(complaints), todo="mend boards.yaml and run again; nothing was touched"
        ) from error
    for name in parsed.boards:
        if not NAME_PATTERN.fullmatch(name):
            raise UsageError(
                f"{path}:{_line(tree, ('boards', name))}: boards.{name}: not a usable name",
                todo="use letters, digits, dots, dashes and underscores, at most 63",
            )
    named = None if parsed.esp_idf is None else (path.parent / Path(parsed.esp_idf).expanduser()).absolute()
    return Inventory(path, parsed.boards, named)


def _plain(node: Any) -> Any:
    """The tree without ruamel's types, which pydantic's strict unions do not know."""
    if isinstance(node, dict):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
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
        if isinstance(node, dict) and part in node and hasattr(node, "lc"):
            line = node.lc.key(part)[0]
            node = node[part]
        elif isinstance(node, list) and isinstance(part, int) and part < len(node) and hasattr(node, "lc"):
            line = node.lc.item(part)[0]
            node = node[part]
    return line + 1


def _complaint(path: Path, tree: Any, item: dict[str, Any]) -> str:
    location = [part for part in item["loc"] if part not in LINKS or part in ("link",)]
    field = ".".join(str(part) for part in location) or "file"
    message = str(item["msg"]).removeprefix("Value error, ")
    kind = item["type"]
    if kind == "extra_forbidden":
        message = "there is no such field"
    elif kind == "missing":
        message = "is missing"
    elif kind == "union_tag_invalid":
        message = f"link must be one of: {', '.join(LINKS)}"
    elif kind == "union_tag_not_found":
        message = f"link is missing; it must be one of: {', '.join(LINKS)}"
    return f"{path}:{_line(tree, location)}: {field}: {message}"
