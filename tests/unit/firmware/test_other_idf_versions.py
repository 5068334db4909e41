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


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """Runs ``other_idf_versions.c`` with arguments; the lines that it prints."""
    firmware, work = firmware_dir(), tmp_path_factory.mktemp("other-idf")
    options = native_options(firmware, CHIPS["esp32c3"], ["profile.open"])
    (work / "sdkconfig.h").write_text(to_header(options), encoding="utf-8")
    program = work / "other_idf_versions"
    folders = ("native/include", "components/raw_ota/include", "components/raw_ota")
    subprocess.run(
        [
            *find_compiler(),
            *("-std=gnu11", "-pthread", f"-I{work}", *(f"-I{firmware / folder}" for folder in folders)),
            *(str(Path(__file__).with_name("other_idf_versions.c")), "-o", str(program)),
        ],
        check=True,
    )

    def run(*words: str) -> list[str]:
        found = subprocess.run([program, *words], check=True, capture_output=True, text=True)
        return found.stdout.splitlines()

    return run


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
