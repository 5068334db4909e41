"""A session whose board labgrid gives to somebody else fails once, in a sentence, and skips what is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from labgrid_site import CHECKOUT, Lend
from wired_twin import Start, WiredLab

CONFTEST = """\
import pytest

@pytest.fixture(scope="session", autouse=True)
def runs_native():
    # Behind the place is a twin.
    from harness.links.labgrid import LabgridLink
    LabgridLink.runs_native = True
"""

TESTS = """\
import os, subprocess, time

def test_first(board):
    assert board.status().version
    environment = os.environ | {{"LG_USERNAME": "bob", "LG_HOSTNAME": "elsewhere"}}
    kick = [{client!r}, "-x", {coordinator!r}, "-p", "desk-0", "release", "--kick"]
    subprocess.run(kick, env=environment, check=True, capture_output=True)
    deadline = time.monotonic() + 60
    while board.link.lost is None and time.monotonic() < deadline:
        time.sleep(0.05)

def test_second(board):
    raise AssertionError("it must not get the board")

def test_third(board):
    raise AssertionError("it must not get the board")
"""


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="labgrid runs on Linux")
def test_a_lost_board_fails_one_test_and_skips_the_rest(
    lend: Lend, start: Start, wired: WiredLab, tmp_path: Path
) -> None:
    site = lend(start())
    folder = tmp_path / "suite"
    folder.mkdir()
    entry = site.entry(0, reserve_timeout_s=60).model_dump(exclude_defaults=True, mode="json")
    (folder / "boards.yaml").write_text(
        json.dumps({"version": 1, "boards": {"desk": entry | {"link": "labgrid"}}})
    )
    (folder / "conftest.py").write_text(CONFTEST)
    client = str(site.python.parent / "labgrid-client")
    (folder / "test_suite.py").write_text(TESTS.format(client=client, coordinator=site.address))
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT), "HARNESS_HOME": str(wired.home.root)}
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-n0", "-p", "no:cacheprovider"]
    command += ["--board", "desk", "--profile", "open", "."]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    # It is the bench that failed, not the test.
    assert "1 passed, 1 skipped, 1 error" in done.stdout, done.stdout
    lost = "place desk-0 was taken away (labgrid-client release --kick); nobody has it now"
    assert f"board desk: {lost}" in done.stdout
    assert not site.who()
