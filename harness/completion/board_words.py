"""Names and tags in a boards.yaml, for completion: also while it is being written, and wrong.

No YAML reader: that takes longer than a keystroke, and refuses a file with a mistake in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

MAX_BYTES = 1 << 20

_ENTRY = re.compile(r"""( +)["']?([A-Za-z0-9][A-Za-z0-9._-]{0,62})["']?:(?:\s|$)""")
_TAGS = re.compile(r"\btags:\s*\[([^\]]*)\]")
_FIELD = re.compile(r"\b(chip|link):\s*[\"']?([A-Za-z0-9_-]+)")
_ITEM = re.compile(r"""\s+-\s+["']?([A-Za-z0-9][^"'#\s]*)""")


@dataclass(frozen=True, slots=True)
class Word:
    """A name or a tag that may be typed."""

    text: str
    about: str
    is_tag: bool = False


def words_in(file: Path) -> tuple[Word, ...]:
    """Names in the order of the file, then tags; nothing where there is no such file."""
    try:
        with file.open("rb") as stream:
            text = stream.read(MAX_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return ()
    return words_of(text.splitlines())


def words_of(lines: Iterable[str]) -> tuple[Word, ...]:
    """As `words_in`, of a text."""
    names: dict[str, dict[str, str]] = {}
    tags: dict[str, list[str]] = {}
    indent: int | None = None
    inside = False
    in_tags = False
    name = ""
    for written in lines:
        line = written.split(" #", 1)[0].rstrip()
        if not line or line.lstrip().startswith("#"):
            continue
        if not line.startswith((" ", "\t")):
            inside = line.startswith("boards:")
            continue
        if not inside:
            continue
        entry = _ENTRY.match(line)
        if entry is not None and indent in (None, len(entry[1])):
            indent, name, in_tags = len(entry[1]), entry[2], False
            names[name] = {}
        if not name:
            continue
        names[name].update(_FIELD.findall(line))
        found = [tag.strip(" \"'") for listed in _TAGS.findall(line) for tag in listed.split(",")]
        item = _ITEM.match(line)
        if in_tags and item is not None:
            found.append(item[1])
        elif item is None:
            in_tags = bool(re.fullmatch(r"\s+tags:", line))
        for tag in filter(None, found):
            tags.setdefault(tag, []).append(name)
    return (
        *(
            Word(name, " on ".join(told[k] for k in ("chip", "link") if k in told))
            for name, told in names.items()
        ),
        *(
            Word(tag, f"tag of {', '.join(tagged)}", is_tag=True)
            for tag, tagged in tags.items()
            if tag not in names
        ),
    )
