"""What raw_ota makes of versions of ESP-IDF that the native port does not stand for."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.build.compiler import find_compiler
from harness.build.native import firmware_dir
from harness.build.sdkconfig import native_options, to_header
from harness.chips import CHIPS

Ask = Callable[..., list[str]]


def program_of(source: str, work: Path) -> Ask:
    """Compiles a C file beside this one; a call runs it with arguments, and gives the lines that it prints."""
    firmware = firmware_dir()
    options = native_options(firmware, CHIPS["esp32c3"], ["profile.open"])
    (work / "sdkconfig.h").write_text(to_header(options), encoding="utf-8")
    folders = ("native/include", "components/raw_ota/include", "components/raw_ota")
    subprocess.run(
        [
            *find_compiler(),
            *("-std=gnu11", "-pthread", f"-I{work}", *(f"-I{firmware / folder}" for folder in folders)),
            *(str(Path(__file__).with_name(source)), "-o", str(work / "program")),
        ],
        check=True,
    )

    def run(*words: str) -> list[str]:
        found = subprocess.run([work / "program", *words], check=True, capture_output=True, text=True)
        return found.stdout.splitlines()

    return run


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Ask:
    return program_of("other_idf_versions.c", tmp_path_factory.mktemp("other-idf"))


@pytest.fixture(scope="module")
def erased(tmp_path_factory: pytest.TempPathFactory) -> Ask:
    return program_of("earlier_idf_otadata.c", tmp_path_factory.mktemp("earlier-idf"))


ORIGIN, PLAIN, OTHER = "https://updates.example/p", "http://updates.example/p", "HTTPS://other.example/p"


@pytest.mark.parametrize(
    ("url", "locations", "error", "asked"),
    [
        (ORIGIN, [PLAIN], "http-status", [ORIGIN]),
        (ORIGIN, [OTHER, PLAIN], "http-status", [ORIGIN, OTHER]),
        (PLAIN, [OTHER, PLAIN], "http-status", [PLAIN, OTHER]),
        (ORIGIN, [OTHER, "/q"], "ok", [ORIGIN, OTHER, "/q"]),
        (PLAIN, [PLAIN], "ok", [PLAIN, PLAIN]),
    ],
    ids=["at-once", "after-another-server", "after-a-way-up", "stays-on-tls", "never-on-tls"],
)
def test_no_redirect_leads_out_of_tls(
    ask: Ask, url: str, locations: list[str], error: str, asked: list[str]
) -> None:
    """esp_http_client of v5.3, v5.4 and v6.0 would follow it."""
    assert ask("follow", url, *locations) == [*asked, error]


def test_an_update_of_the_application_itself_is_told_as_busy(ask: Ask) -> None:
    """From v6.1 on esp_ota_begin() refuses a slot that somebody writes already."""
    assert ask("name", "0x1507") == ["busy"]
    assert ask("name", "0x1503") == ["image-invalid"]


@pytest.mark.parametrize(
    ("slot", "sequences", "sectors"),
    [
        ("1", ("3", "2"), ["1 of 1"]),
        ("0", ("3", "4"), ["0 of 1"]),
        ("1", ("1", "0"), []),
        ("1", ("3", "1"), []),
        ("1", ("0", "0"), []),
    ],
    ids=["second-slot", "first-slot", "no-record", "record-of-the-running-slot", "empty-otadata"],
)
def test_the_record_of_a_version_does_not_outlive_it_where_esp_ota_begin_leaves_it(
    erased: Ask, slot: str, sequences: tuple[str, str], sectors: list[str]
) -> None:
    """v5.3 and v5.4: a rollback after an update that was cut off before its switch would start it as if confirmed."""
    assert erased(slot, *sequences) == sectors
