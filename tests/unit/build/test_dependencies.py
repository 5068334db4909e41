"""An object is compiled again when its source, a header of it, or an option that any of them names has changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.build.dependencies import Dependencies

OPTIONS = {"CONFIG_OWN": "y", "CONFIG_FAR": "1", "CONFIG_OTHER": "7"}


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    texts = {
        "main/a.c": '#include <stdio.h>\n#include "near.h"\n#if CONFIG_OWN\nint a;\n#endif\n',
        "main/b.c": "int b;\n",
        "main/near.h": '  #  include "sub/far.h"\n',
        "include/sub/far.h": "#define RATE CONFIG_FAR\n",
        "include/unused.h": "#define UNUSED CONFIG_OTHER\n",
        "forced.h": "typedef int forced_t;\n",
    }
    for name, text in texts.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def digests(sources: Path, options: Mapping[str, str] = OPTIONS) -> tuple[str, str]:
    """Of a.c and b.c."""
    made = Dependencies(sources, ("include", "main"), ("forced.h",), options)
    return made.digest(Path("main/a.c")), made.digest(Path("main/b.c"))


@pytest.mark.parametrize(
    ("option", "value", "a_changes"),
    [
        ("CONFIG_OWN", "n", True),
        ("CONFIG_FAR", "2", True),
        ("CONFIG_OTHER", "8", False),
        ("CONFIG_NEW", "y", False),
    ],
)
def test_an_option_counts_where_it_is_named_headers_of_headers_included(
    sources: Path, option: str, value: str, a_changes: bool
) -> None:
    before, after = digests(sources), digests(sources, OPTIONS | {option: value})
    assert (after[0] != before[0]) is a_changes
    assert after[1] == before[1]


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("main/a.c", (True, False)),
        ("main/near.h", (True, False)),
        ("include/sub/far.h", (True, False)),
        ("include/unused.h", (False, False)),
        ("forced.h", (True, True)),
    ],
)
def test_a_file_counts_where_it_is_included(sources: Path, name: str, changed: tuple[bool, bool]) -> None:
    before = digests(sources)
    with (sources / name).open("a") as file:
        file.write("/* more */\n")
    after = digests(sources)
    assert (after[0] != before[0], after[1] != before[1]) == changed


def test_a_header_that_appears_in_another_folder_counts_too(sources: Path) -> None:
    before = digests(sources)
    (sources / "include" / "near.h").write_text("#define NEAR\n")
    assert digests(sources)[0] != before[0]


def test_where_the_folder_lies_does_not_count(sources: Path) -> None:
    before = digests(sources)
    assert digests(sources.rename(sources.with_name("elsewhere"))) == before
