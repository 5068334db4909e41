"""Inputs that once broke the firmware, and those that fuzzing begins with, run through sanitizers and rules; and the
rules notice a handler that breaks them."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from harness.build import native
from tests.fuzz_c import targets
from tests.fuzz_c.seeds import SEEDS
from tests.fuzz_c.targets import TARGETS, FuzzTarget, build_target

pytestmark = pytest.mark.usefixtures("sanitizers_link")
RUN_TIMEOUT_S = 60


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.getbasetemp()
    return (base.parent if base.name.startswith("popen-") else base) / "fuzz-builds"


def run(target: FuzzTarget, work: Path, files: list[Path]) -> subprocess.CompletedProcess[str]:
    """The target over `files`; only one worker compiles."""
    work.mkdir(exist_ok=True)
    with FileLock(work / "build.lock"):
        program = build_target(target, work, libfuzzer=False)
    return subprocess.run(
        [program, *files],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        timeout=RUN_TIMEOUT_S,
        check=False,
    )


def seeds_of(target: FuzzTarget, folder: Path) -> list[Path]:
    folder.mkdir()
    for name, content in SEEDS[target.name]().items():
        (folder / name).write_bytes(content)
    return sorted(folder.iterdir())


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_no_finding_comes_back(target: FuzzTarget, work: Path, tmp_path: Path) -> None:
    kept = sorted(target.regressions.iterdir()) if target.regressions.is_dir() else []
    done = run(target, work, [*kept, *seeds_of(target, tmp_path / "seeds")])
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.parametrize("name", ["handler", "http"])
def test_what_fuzzing_begins_with_reaches_the_switch(name: str, work: Path, tmp_path: Path) -> None:
    done = run(TARGETS[name], work, seeds_of(TARGETS[name], tmp_path / "seeds"))
    told = re.search(r"(\d+) updates, (\d+) accepted", done.stderr)
    assert told is not None, done.stderr
    updates, accepted = map(int, told.groups())
    assert 0 < accepted < updates, done.stderr


@dataclass(frozen=True, slots=True)
class Planted:
    """A mistake in a source of the firmware, and what must notice it."""

    name: str
    source: str
    right: str
    wrong: str
    noticed: str


PLANTED = (
    Planted(
        "the lock is kept after an error",
        "components/raw_ota/raw_ota.c",
        "const raw_ota_err_t err = run(&job);\n    raw_ota_unlock();",
        "const raw_ota_err_t err = run(&job);\n    if (err == RAW_OTA_OK) {\n        raw_ota_unlock();\n    }",
        "the lock is still held",
    ),
    Planted(
        "the handle is kept after an error",
        "components/raw_ota/raw_ota.c",
        "if (handle != 0) {",
        "if (handle != 0 && err == RAW_OTA_OK) {",
        "OTA handles are still open",
    ),
    Planted(
        "the signature is not asked for",
        "components/raw_ota/raw_ota.c",
        "err = raw_ota_package_check_signature(raw, job->result);",
        "err = RAW_OTA_OK;",
        "before a signature was found good",
    ),
    Planted(
        "more is read than there is room for",
        "components/raw_ota/raw_ota_body.c",
        "buffer + *filled, size - *filled);",
        "buffer + *filled, size);",
        "buffer-overflow",
    ),
    Planted(
        "a hash is left open",
        "components/raw_ota/raw_ota_body.c",
        "(void)psa_hash_abort(&hash);\n        return err;",
        "return err;",
        "hashes are still open",
    ),
    Planted(
        "otadata is written for an image that does not verify",
        "native/src/ota_ops.c",
        "if (ota_image_verify(partition, false) != ESP_OK) {\n        return ESP_ERR_OTA_VALIDATE_FAILED;",
        "if (ota_image_verify(partition, false) == -1) {\n        return ESP_ERR_OTA_VALIDATE_FAILED;",
        "otadata names a slot that was not verified",
    ),
)


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.name)
def test_a_mistake_in_the_handler_is_noticed(
    planted: Planted, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "firmware"
    shutil.copytree(native.firmware_dir(), copy)
    text = (copy / planted.source).read_text()
    assert text.count(planted.right) == 1, "the source has changed: plant the mistake anew"
    (copy / planted.source).write_text(text.replace(planted.right, planted.wrong))
    monkeypatch.setattr(targets, "firmware_dir", lambda: copy)
    done = run(TARGETS["handler"], work, seeds_of(TARGETS["handler"], tmp_path / "seeds"))
    assert done.returncode != 0
    assert planted.noticed in done.stderr, done.stderr[-4000:]
