"""What an object file depends on: its source, the headers that this includes, and the options that any of them names.

Builds for another profile or chip differ in a few options, which most sources never see: their objects are the same.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_INCLUDE = re.compile(rb'^[ \t]*#[ \t]*include[ \t]*["<]([^">\n]+)[">]', re.MULTILINE)
_OPTION = re.compile(rb"\bCONFIG_\w+")


@dataclass(frozen=True, slots=True)
class _File:
    """What is in one file."""

    sha256: bytes
    includes: tuple[str, ...]
    """Names as they are written, without the brackets."""
    options: frozenset[str]


class Dependencies:
    """Of the sources of one build.

    It reads more than a preprocessor does: branches that are not taken, and every header of a name, wherever it lies.
    Names that no folder has are the host's own headers; the compiler's version stands for them.
    """

    def __init__(
        self, folder: Path, include_folders: Sequence[str], forced: Sequence[str], options: Mapping[str, str]
    ) -> None:
        """
        Args:
            folder: where the compiler runs; all paths are relative to it.
            include_folders: of ``-I``.
            forced: headers that every source includes (``-include``).
            options: of ``sdkconfig.h``.
        """
        self._folder = folder
        self._forced = tuple(forced)
        self._options = options
        self._places: dict[str, list[str]] = {}
        for place in include_folders:
            for path in (folder / place).rglob("*.h"):
                name = path.relative_to(folder / place).as_posix()
                self._places.setdefault(name, []).append(path.relative_to(folder).as_posix())

    def digest(self, source: Path) -> str:
        """SHA-256 over everything that the object of `source` depends on, `source` itself included; hexadecimal."""
        found: dict[str, _File] = {}
        left = [source.as_posix(), *self._forced]
        while left:
            path = left.pop()
            if path in found:
                continue
            found[path] = _file(self._folder / path)
            for name in found[path].includes:
                left += self._places.get(name, ())
        digest = hashlib.sha256(source.name.encode())
        for path in sorted(found.keys() - {source.as_posix()}):
            digest.update(path.encode() + b"\0" + found[path].sha256)
        digest.update(found[source.as_posix()].sha256)
        named = frozenset[str]().union(*(file.options for file in found.values()))
        for name in sorted(named & self._options.keys()):
            digest.update(f"{name}={self._options[name]}\0".encode())
        return digest.hexdigest()


def _file(path: Path) -> _File:
    status = path.stat()
    return _read(path, status.st_ino, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1024)
def _read(path: Path, _inode: int, _mtime_ns: int, _size: int) -> _File:
    """Read again when it has changed."""
    content = path.read_bytes()
    return _File(
        hashlib.sha256(content).digest(),
        tuple(word.decode(errors="replace") for word in _INCLUDE.findall(content)),
        frozenset(name.decode() for name in _OPTION.findall(content)),
    )
