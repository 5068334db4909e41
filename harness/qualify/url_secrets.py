"""What in a URL may be a secret: the name and password before its host, and what its query says.

A signed link, or one with a token, opens a server to whoever reads it; qualify.yaml and its report go to many hands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.console.redaction import REDACTED

_URL = re.compile(
    r"(?P<scheme>\b[a-z][a-z0-9+.-]*://)(?P<user>[^\s/?#\"'<>]*@)?(?P<place>[^\s?#\"'<>@]*)"
    # What closes a list or a mapping of YAML behind a URL is none of it.
    r"(?P<query>[?#][^\s\"'<>]*?(?=[,\])}]*(?:[\s\"'<>]|\Z)))?",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(r"(?:\{[a-z_]+\}?)+")
"""A word in braces; the last brace may be what `_URL` has left behind the URL."""
_TELLING = re.compile(
    r"(?:^|[^a-zA-Z]|(?<=[a-z])(?=[A-Z]))"
    r"(?i:(?:api|access|auth|id|session)*(?:tokens?|sig|signature|key|secret|pass|passwd|password|passphrase|pwd|auth"
    r"|authorization|creds?|credentials?|code|sas))(?![a-z])"
)
"""In the name of a query's value, as a word of its own: not in "design", "keyboard" or "postcode"."""
_PLAIN = re.compile(r"[a-zA-Z]?(?:[a-z._-]*|[A-Z._-]*)|[0-9._-]*")
"""A unit's log holds such words and numbers of itself: "update", "Calling", "app_main", "20261126"."""

LEAST_CHARS = 16
"""A value of a query that is as long may be a secret, whatever it is called and made of."""
LEAST_DIFFERENT = 5
"""Characters that differ from one another in it: zeros in a row are part of many a number."""
LEAST_NAMED_CHARS = 8
"""A password that is as long is one; a value whose name tells, if it is no plain word or number."""


def without_url_secrets(text: str) -> str:
    """`text` with what may be secret in the URLs in it replaced by `REDACTED`; names in a query stay."""
    return _URL.sub(_shown, text)


def _shown(match: re.Match[str]) -> str:
    user = f"{REDACTED}@" if match["user"] else ""
    query = match["query"] or ""
    shown = query[:1] + "&".join(_shown_pair(pair) for pair in re.split("[&;]", query[1:])) if query else ""
    return match["scheme"] + user + match["place"] + shown


def _shown_pair(pair: str) -> str:
    name, equals, value = pair.partition("=")
    if not equals:
        name, value = "", pair
    # A word in braces says what stands there, and is none of it.
    return (
        pair if not value or value == REDACTED or _PLACEHOLDER.fullmatch(value) else name + equals + REDACTED
    )


def secrets_in_urls(text: str, public: Sequence[str]) -> Iterator[str]:
    """Values in the URLs in `text` that a unit may print and no log may hold; what is part of one in `public` is none.

    What is blotted out is missing from the log as evidence: no user name is among them, and no ordinary word but for a
    password.
    """
    for match in _URL.finditer(text):
        user, colon, password = (match["user"] or "").removesuffix("@").partition(":")
        # A password is one, whatever it is made of. Alone before the host there may stand a token instead of a user.
        if len(password) >= LEAST_NAMED_CHARS and not _PLACEHOLDER.fullmatch(password):
            yield password
        found = [] if colon else [(user, False)]
        for pair in re.split("[&;]", (match["query"] or "")[1:]):
            name, equals, value = pair.partition("=")
            found.append((value, _TELLING.search(name) is not None) if equals else (pair, False))
        for value, named in found:
            secret = len(value) >= LEAST_CHARS or (
                named and len(value) >= LEAST_NAMED_CHARS and not _PLAIN.fullmatch(value)
            )
            secret = secret and len(set(value)) >= LEAST_DIFFERENT
            if secret and not _PLACEHOLDER.fullmatch(value) and not any(value in each for each in public):
                yield value


def texts_in(tree: Any) -> list[str]:
    """Every text in what YAML made, names too, in order; what is there several times by an alias, once. Of bytes
    (``!!binary``), what is taken for their text."""
    seen: set[int] = set()
    found: list[str] = []
    waiting = [tree]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            found.append(each)
        elif isinstance(each, bytes):
            found.append(each.decode("utf-8", errors="replace"))
        elif isinstance(each, Mapping | list) and id(each) not in seen:
            seen.add(id(each))
            parts = [part for pair in each.items() for part in pair] if isinstance(each, Mapping) else each
            waiting += reversed(parts)
    return found
