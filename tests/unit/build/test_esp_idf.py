"""ESP-IDF is found, run in its own environment, and asked only when something has changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from idf_folder import C3, DATA, app_image, write_idf_folder

from harness.build.app_dir import read_app_dir
from harness.build.artefacts import Artefacts
from harness.build.build_output import Progress, ProgressReader, first_failure
from harness.build.esp_idf import find_esp_idf
from harness.build.firmware_source import TargetFirmware
from harness.build.native import firmware_dir
from harness.build.target import build_target
from harness.errors import FormatError, HarnessError, LabError, UsageError
from harness.formats.app_description import AppDescription
from harness.formats.app_image import Segment, build_app_image

KEY = b"\x04" + bytes(range(64))
FRAGMENTS = ("profile.release", "test")


@pytest.fixture
def idf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like an installed, exported ESP-IDF v5.5.5."""
    path = tmp_path / "esp-idf"
    (path / "tools" / "cmake").mkdir(parents=True)
    (path / "images").mkdir()
    shutil.copy(DATA / "fake_idf.py", path / "tools" / "idf.py")
    set_version(path, "5", "5", "5")
    write_idf_folder(path / "template")
    for version in ("1.0.0", "2.1.0"):
        image = app_image(version, project="companion", size=5000)
        (path / "images" / f"{version}.bin").write_bytes(image)
    environment = tmp_path / "python_env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--symlinks", environment], check=True)
    monkeypatch.setenv("IDF_PATH", str(path))
    monkeypatch.setenv("IDF_PYTHON_ENV_PATH", str(environment))
    return path


@pytest.fixture
def firmware(tmp_path: Path) -> Path:
    """Sources of a firmware, with fragments."""
    folder = tmp_path / "firmware"
    (folder / "main").mkdir(parents=True)
    (folder / "main" / "app_main.c").write_text("void app_main(void) {}\n")
    (folder / "sdkconfig.defaults").write_text("CONFIG_BOOTLOADER_APP_ROLLBACK_ENABLE=y\n")
    (folder / "sdkconfig.defaults.esp32c3").write_text("CONFIG_ESP32C3_REV_MIN_3=y\n")
    (folder / "sdkconfig.profile.release").write_text("CONFIG_SECURE_FLASH_ENC_ENABLED=y\n")
    (folder / "sdkconfig.test").write_text("CONFIG_RAW_OTA_ALLOW_BARE=y\n")
    return folder


def set_version(path: Path, *numbers: str) -> None:
    names = ("MAJOR", "MINOR", "PATCH")
    lines = [f"set(IDF_VERSION_{name} {number})" for name, number in zip(names, numbers, strict=True)]
    (path / "tools" / "cmake" / "version.cmake").write_text("\n".join(lines))


def calls(idf: Path) -> list[dict[str, Any]]:
    path = idf / "calls.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def build(tmp_path: Path, firmware: Path, **changes: Any) -> Artefacts:
    wanted: dict[str, Any] = {
        "version": "1.0.0",
        "fragments": FRAGMENTS,
        "work": tmp_path / "builds",
        "firmware": firmware,
        **changes,
    }
    return build_target(C3, idf=find_esp_idf(), **wanted)


def test_it_is_found_by_the_exported_shell_or_where_it_is_said_to_be(idf: Path) -> None:
    found = find_esp_idf()
    assert (found.path, found.version) == (idf, "v5.5.5")
    assert find_esp_idf(idf) == found
    assert found.python.parent.parent.name == "python_env"


def test_a_shell_that_was_set_up_by_hand_is_taken_with_its_own_python(
    idf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("IDF_PYTHON_ENV_PATH")
    monkeypatch.setenv("IDF_TOOLS_PATH", str(tmp_path / "nothing"))
    with pytest.raises(LabError, match="there is no Python environment for it"):
        find_esp_idf()
    (idf / "tools" / "idf.py").chmod(0o755)
    python = tmp_path / "python_env" / "bin"
    monkeypatch.setenv("PATH", f"{idf / 'tools'}:{python}", prepend=":")
    assert find_esp_idf().python == python / "python"


def test_without_any_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IDF_PATH", raising=False)
    with pytest.raises(LabError, match="ESP-IDF is needed") as caught:
        find_esp_idf()
    assert "export.sh" in str(caught.value.todo)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not an ESP-IDF"):
        find_esp_idf(tmp_path)


def test_a_version_that_is_too_old_is_refused(idf: Path) -> None:
    set_version(idf, "5", "2", "6")
    with pytest.raises(LabError, match=r"is v5\.2\.6; the firmware needs v5\.3"):
        find_esp_idf()


def test_what_one_folder_has_compiled_is_found_by_ccache_in_another(
    idf: Path, tmp_path: Path, firmware: Path
) -> None:
    build(tmp_path, firmware)
    call = calls(idf)[0]
    folder = Path(call["arguments"][call["arguments"].index("-B") + 1]).parent
    assert call["environment"]["CCACHE_BASEDIR"] == str(folder)
    assert call["environment"]["CCACHE_NOHASHDIR"] == "true"


def test_without_an_exported_shell_its_own_tool_tells_the_environment(
    idf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "tools"
    environment = tools / "python_env" / "idf5.5_py3.11_env"
    environment.parent.mkdir(parents=True)
    environment.symlink_to(os.environ["IDF_PYTHON_ENV_PATH"])
    (idf / "tools" / "idf_tools.py").write_text(
        f"print('PATH={tmp_path}/compiler:$PATH')\nprint('ESP_IDF_VERSION=5.5')\nprint('a remark')\n"
    )
    monkeypatch.delenv("IDF_PYTHON_ENV_PATH")
    monkeypatch.setenv("IDF_TOOLS_PATH", str(tools))
    found = find_esp_idf()
    assert found.python == environment / "bin" / "python"
    assert f"{tmp_path}/compiler" in found.environment["PATH"].split(":")
    assert found.environment["ESP_IDF_VERSION"] == "5.5"
    (idf / "tools" / "idf_tools.py").write_text(
        "import sys\nsys.exit('ERROR: tool riscv32-esp-elf has no installed versions')\n"
    )
    with pytest.raises(LabError, match="riscv32-esp-elf has no installed versions") as caught:
        find_esp_idf()
    assert "install.sh" in str(caught.value.todo)


def test_one_that_was_never_installed_is_told_apart(
    idf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("IDF_PYTHON_ENV_PATH")
    monkeypatch.setenv("IDF_TOOLS_PATH", str(tmp_path / "nothing"))
    with pytest.raises(LabError, match="is not installed for this user"):
        find_esp_idf()


def test_children_see_a_cleaned_environment(
    idf: Path, tmp_path: Path, firmware: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_VAULT_KEY_FILE", "hidden")
    monkeypatch.setenv("IDF_COMPONENT_API_TOKEN", "hidden")
    monkeypatch.setenv("PYTHONPATH", "hidden")
    monkeypatch.setenv("IDF_TARGET", "esp32s3")
    build(tmp_path, firmware)
    call = calls(idf)[0]
    assert "hidden" not in call["environment"].values()
    assert "IDF_TARGET" not in call["environment"]
    assert call["environment"]["IDF_PATH"] == str(idf)
    assert call["environment"]["IDF_COMPONENT_MANAGER"] == "0"
    assert call["python"].startswith(os.environ["IDF_PYTHON_ENV_PATH"])
    assert "environment" not in repr(find_esp_idf())


def test_a_build_becomes_a_set_of_artefacts_with_its_log(idf: Path, tmp_path: Path, firmware: Path) -> None:
    told: list[Progress] = []
    made = build(tmp_path, firmware, on_progress=told.append)
    assert (made.kind, made.version, made.chip.name, made.table_offset) == (
        "target",
        "1.0.0",
        "esp32c3",
        0xC000,
    )
    assert made.sdkconfig["CONFIG_RAW_OTA_ALLOW_BARE"] == "y"
    assert [(step.done, step.total) for step in told] == [(1, 3), (3, 3)]
    assert "idf.py" in (made.dir / "build.log").read_text()
    arguments = calls(idf)[0]["arguments"]
    assert arguments[-1] == "build"
    assert {"-DIDF_TARGET=esp32c3", "-DCOMPANION_VERSION=1.0.0"} <= set(arguments)
    assert not (firmware / "sdkconfig").exists()
    assert read_app_dir(made.dir).version == "1.0.0"


def test_the_set_can_be_moved_and_names_nothing_of_this_host(
    idf: Path, tmp_path: Path, firmware: Path
) -> None:
    for version in ("1.0.0", "2.1.0"):
        with_key(idf, version)
    made = build(tmp_path, firmware, signing_keys=(KEY,))
    moved = tmp_path / "elsewhere"
    shutil.copytree(made.dir, moved)
    shutil.rmtree(tmp_path / "builds")
    assert Artefacts.read(moved).sdkconfig["CONFIG_RAW_OTA_PUBLIC_KEY_1"] == '"public_key_1.bin"'
    assert str(tmp_path) not in (moved / "sdkconfig").read_text() + (moved / "artefacts.json").read_text()


def with_key(idf: Path, version: str) -> None:
    """The image that comes out for `version` holds `KEY`."""
    description = AppDescription(version=version, project_name="companion", idf_ver="v5.5.5").to_bytes()
    image = build_app_image(C3, [Segment(C3.drom_base + 0x20, description + KEY)], entry_point=0x40380000)
    (idf / "images" / f"{version}.bin").write_bytes(image)


def test_an_image_without_the_signing_keys_is_refused(idf: Path, tmp_path: Path, firmware: Path) -> None:
    with pytest.raises(LabError, match="does not hold the signing keys"):
        build(tmp_path, firmware, signing_keys=(b"\x04" + b"\xee" * 64,))


CHANGES: dict[str, tuple[Any, bool]] = {
    "nothing": (lambda firmware, idf: None, False),
    "a source": (lambda firmware, idf: (firmware / "main" / "new.c").write_text("int x;\n"), True),
    "a fragment": (lambda firmware, idf: append(firmware / "sdkconfig.test", "CONFIG_A=y\n"), True),
    "a fragment that is not used": (
        lambda firmware, idf: (firmware / "sdkconfig.other").write_text("x"),
        False,
    ),
    "the chip's defaults": (
        lambda firmware, idf: append(firmware / "sdkconfig.defaults.esp32c3", "#\n"),
        True,
    ),
    "ESP-IDF's version": (lambda firmware, idf: set_version(idf, "5", "5", "6"), True),
    "the native port": (lambda firmware, idf: native_source(firmware), False),
    "the README": (lambda firmware, idf: (firmware / "README.md").write_text("x"), False),
}


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def native_source(firmware: Path) -> None:
    (firmware / "native").mkdir()
    (firmware / "native" / "log.c").write_text("int x;\n")


@pytest.mark.parametrize("name", CHANGES)
def test_it_is_built_again_only_when_what_went_in_has_changed(
    idf: Path, tmp_path: Path, firmware: Path, name: str
) -> None:
    change, again = CHANGES[name]
    first = build(tmp_path, firmware)
    change(firmware, idf)
    second = build(tmp_path, firmware)
    assert len(calls(idf)) == (2 if again else 1)
    assert (first.dir != second.dir) is again


def test_versions_share_the_folder_that_is_compiled_in(idf: Path, tmp_path: Path, firmware: Path) -> None:
    one, two = (build(tmp_path, firmware, version=version) for version in ("1.0.0", "2.1.0"))
    folders = {call["arguments"][call["arguments"].index("-B") + 1] for call in calls(idf)}
    assert (one.version, two.version, len(folders)) == ("1.0.0", "2.1.0", 1)


def test_a_damaged_set_is_built_again(idf: Path, tmp_path: Path, firmware: Path) -> None:
    made = build(tmp_path, firmware)
    made.app.write_bytes(b"spoiled")
    assert read_app_dir(build(tmp_path, firmware).dir).version == "1.0.0"
    assert len(calls(idf)) == 2


def test_a_failed_build_is_one_error_with_the_compilers_first_message_and_the_log(
    idf: Path, tmp_path: Path, firmware: Path
) -> None:
    (idf / "mode").write_text("fails")
    with pytest.raises(LabError) as caught:
        build(tmp_path, firmware)
    assert "commands.c:12:5: error: 'nonsense' undeclared" in caught.value.message
    log = Path(str(caught.value.todo).removeprefix("read "))
    assert "FAILED:" in log.read_text()
    (idf / "mode").unlink()
    assert build(tmp_path, firmware).version == "1.0.0"


def test_an_option_that_kconfig_drops_is_an_error(idf: Path, tmp_path: Path, firmware: Path) -> None:
    (idf / "mode").write_text("drops")
    with pytest.raises(LabError, match="CONFIG_RAW_OTA_ALLOW_BARE=y"):
        build(tmp_path, firmware)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"fragments": ("profile.nonsense",)}, UsageError),
        ({"version": "1" * 32}, FormatError),
        ({"signing_keys": (b"\x02" * 33,)}, UsageError),
        ({"secure_version": 3}, UsageError),
    ],
)
def test_what_cannot_be_built_is_refused_before_anything_runs(
    idf: Path, tmp_path: Path, firmware: Path, changes: dict[str, Any], error: type[HarnessError]
) -> None:
    with pytest.raises(error) as caught:
        build(tmp_path, firmware, **changes)
    assert caught.value.todo
    assert calls(idf) == []


def test_a_build_that_takes_too_long_is_ended(idf: Path, tmp_path: Path) -> None:
    (idf / "mode").write_text("hangs")
    found, log = find_esp_idf(), tmp_path / "log"
    began = time.monotonic()
    with pytest.raises(LabError, match="was not done after"):
        found.run(["-B", "x"], folder=tmp_path, log=log, timeout_s=0.5)
    assert time.monotonic() - began < 60


def test_its_children_end_when_the_caller_is_interrupted(idf: Path, tmp_path: Path) -> None:
    (idf / "mode").write_text("hangs")
    found = find_esp_idf()

    def interrupt(_line: str) -> None:
        raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        found.run(["-B", "x"], folder=tmp_path, log=tmp_path / "log", timeout_s=120, on_line=interrupt)
    assert time.monotonic() - began < 60


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
def test_what_it_started_ends_with_a_harness_that_is_killed(idf: Path, tmp_path: Path) -> None:
    """ninja and compilers would go on for minutes, into the folder of the next build."""
    (idf / "mode").write_text("hangs-below")
    script = """
import sys
from pathlib import Path
from harness.build.esp_idf import find_esp_idf
folder = Path(sys.argv[1])
find_esp_idf().run(["-B", "x"], folder=folder, log=folder / "log", timeout_s=60, on_line=lambda s: print(s, flush=True))
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as harness:
        assert harness.stdout is not None
        told = next(line for line in harness.stdout if "idf.py and ninja" in line)
        pids = [int(word) for word in told.split()[-2:]]
        harness.kill()
    assert all(is_gone(pid) for pid in pids)


def is_gone(pid: int) -> bool:
    """Whether a process ends by itself; one that waits for its exit status to be collected has ended."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
        if not shown.strip() or shown.lstrip().startswith("Z"):
            return True
        time.sleep(0.05)
    return False


def test_only_the_first_version_of_a_source_is_compiled(idf: Path, tmp_path: Path) -> None:
    with_key(idf, "1.0.0")
    source = TargetFirmware(C3, ("profile.open",), (KEY,), tmp_path / "builds")
    assert source.first("1.0.0").version == "1.0.0"
    assert [source.release(version).version for version in ("2.1.0", "3.0.0")] == ["2.1.0", "3.0.0"]
    assert len(calls(idf)) == 1


OUTPUTS = [
    (
        ["[1/2] Building C object x_error.c.obj", "FAILED: x", "a.c:1:2: fatal error: x.h: No such file"],
        "a.c:1:2: fatal",
    ),
    (
        ["ninja: error: loading 'build.ninja'", "a.c:1:2: error: first", "b.c:3:4: error: second"],
        "a.c:1:2: error: first",
    ),
    (
        ["CMake Error at main/CMakeLists.txt:3 (idf_component_register):", "  no key at k.pem"],
        "no key at k.pem",
    ),
    (
        ["/ld: x.o: in function `f':", "x.c:(.text+0x1): undefined reference to `g'"],
        "undefined reference to `g'",
    ),
    (["[5/6] Linking", "Error: app partition is too small for binary"], "too small"),
    (["ld: region `iram0_0_seg' overflowed by 12 bytes"], "overflowed"),
    (["something else went wrong"], "something else"),
    ([], "it said nothing"),
]


@pytest.mark.parametrize(("lines", "expected"), OUTPUTS)
def test_the_message_that_explains_a_failure_is_found(lines: list[str], expected: str) -> None:
    assert expected in first_failure(lines)


def test_progress_leaves_out_the_build_inside_the_build() -> None:
    reader = ProgressReader()
    lines = ["[1/800] a", "[1/110] inside", "noise", "[2/801] b", "[3/801] c"]
    assert [(p.done, p.total, p.step) for p in map(reader.read, lines) if p] == [
        (1, 800, "a"),
        (2, 801, "b"),
        (3, 801, "c"),
    ]


def test_the_companion_builds_with_a_real_esp_idf(tmp_path: Path) -> None:
    if not os.environ.get("HARNESS_TEST_ESP_IDF"):
        pytest.skip("HARNESS_TEST_ESP_IDF does not ask for a build with ESP-IDF, which takes minutes")
    made = build_target(
        C3,
        version="1.0.0",
        fragments=("profile.release", "lock.none", "net.openeth", "test"),
        idf=find_esp_idf(),
        work=tmp_path,
        firmware=firmware_dir(),
    )
    app = read_app_dir(made.dir)
    assert (app.kind, app.project, app.version, app.encryption) == ("target", "companion", "1.0.0", "release")


def test_a_found_esp_idf_can_be_asked_directly(idf: Path) -> None:
    assert find_esp_idf().command("--version")[1:] == [str(idf / "tools" / "idf.py"), "--version"]
