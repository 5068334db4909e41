"""The native build: images that a chip would accept, the same bytes each time, and errors that tell what to do."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from harness.build import compiler, native
from harness.build.artefacts import Artefacts
from harness.build.native import build_native, firmware_dir
from harness.build.store import install_program
from harness.chips import CHIPS, chip_named
from harness.errors import FormatError, HarnessError, LabError, UsageError
from harness.formats.app_image import parse_app_image
from harness.formats.bootloader_config import BootloaderConfig
from harness.formats.native_payload import native_program

KEY = ec.derive_private_key(99, ec.SECP256R1()).public_key()
POINT = KEY.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
FRAGMENTS = ("profile.release", "lock.none", "test")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.getbasetemp()
    return (base.parent if base.name.startswith("popen-") else base) / "native-builds"


def build(work: Path, **changes: Any) -> Artefacts:
    wanted: dict[str, Any] = {
        "chip": chip_named("esp32c3"),
        "version": "1.0.0",
        "fragments": FRAGMENTS,
        "signing_keys": (POINT,),
        "store": work / "store",
        "work": work,
        **changes,
    }
    return build_native(wanted.pop("chip"), **wanted)


@pytest.mark.parametrize("chip", CHIPS.values(), ids=lambda chip: chip.name)
def test_the_app_is_a_real_image_that_carries_its_program(work: Path, chip: Any) -> None:
    made = build(work, chip=chip, version="1.2.3", secure_version=5)
    image = parse_app_image(made.app.read_bytes())
    assert (image.chip_id, image.checksum_ok, image.hash_ok) == (chip.chip_id, True, True)
    assert image.segments[0].load_address == chip.drom_base + 0x20
    description = image.description
    assert description is not None
    assert (description.version, description.project_name, description.secure_version) == (
        "1.2.3",
        "companion",
        5,
    )
    program = native_program(image)
    assert program is not None
    assert description.elf_sha256 == hashlib.sha256(program).digest()
    assert (made.kind, made.version, made.secure_version) == ("native", "1.2.3", 5)


def test_the_program_is_in_the_store_for_its_owner_only(work: Path) -> None:
    program = native_program(parse_app_image(build(work).app.read_bytes()))
    assert program is not None
    path = work / "store" / hashlib.sha256(program).hexdigest()
    assert path.read_bytes() == program
    assert path.stat().st_mode & 0o777 == 0o700
    assert (work / "store").stat().st_mode & 0o777 == 0o700


def test_the_bootloader_carries_the_configuration_of_the_build(work: Path) -> None:
    made = build(work)
    image = parse_app_image(made.bootloader.read_bytes())
    config = BootloaderConfig.from_segment_data(image.segments[0].data)
    assert config is not None
    assert (config.table_offset, config.rollback, config.flash_encryption) == (0x10000, True, "release")
    assert image.segments[0].load_address == made.chip.bootloader_load_address
    assert [slot.offset for slot in made.partition_table.ota_slots] == [0x20000, 0x1A0000]


def test_a_build_for_secure_boot_can_be_signed_and_verifies_what_it_starts(work: Path) -> None:
    made = build(work, fragments=("profile.release", "boot.sbv2", "scheme.rsa3072", "lock.none"))
    # Filled to whole pages, as ESP-IDF's build leaves an app that is to be signed.
    assert made.app.stat().st_size % 0x10000 == 0
    assert parse_app_image(made.app.read_bytes()).is_intact
    config = BootloaderConfig.from_segment_data(
        parse_app_image(made.bootloader.read_bytes()).segments[0].data
    )
    assert config is not None
    assert (config.secure_boot, config.secure_boot_scheme) == (True, "rsa3072")
    assert made.sdkconfig["CONFIG_SECURE_BOOT_BUILD_SIGNED_BINARIES"] == "n"


def test_a_layout_is_a_table_and_the_place_that_the_bootloader_looks_for_it(work: Path) -> None:
    made = build(work, fragments=("profile.open", "layout.table-0x8000"))
    config = BootloaderConfig.from_segment_data(
        parse_app_image(made.bootloader.read_bytes()).segments[0].data
    )
    assert config is not None
    assert (made.table_offset, config.table_offset) == (0x8000, 0x8000)
    assert [slot.offset for slot in made.partition_table.ota_slots] == [0x10000, 0x190000]


def test_the_bootloader_fits_before_the_partition_table(work: Path) -> None:
    for chip in CHIPS.values():
        made = build(work, chip=chip)
        assert chip.bootloader_offset + made.bootloader.stat().st_size <= made.table_offset


def test_a_second_build_of_the_same_is_the_same_and_compiles_nothing(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build(work)
    monkeypatch.setattr(compiler.Compiler, "_make", lambda *_: pytest.fail("something was compiled"))
    assert build(work) == first


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is compiled and linked from now on."""
    steps: list[str] = []
    original = compiler.Compiler._make

    def note(self: compiler.Compiler, target: Path, arguments: list[str], what: str) -> None:
        steps.append(what)
        original(self, target, arguments, what)

    monkeypatch.setattr(compiler.Compiler, "_make", note)
    return steps


def test_another_version_compiles_one_source_and_links(work: Path, made: list[str]) -> None:
    build(work)
    made.clear()
    build(work, version="7.7.7")
    assert made == ["compiling native/src/app_desc.c", "linking companion"]


def test_another_profile_compiles_only_what_can_tell(work: Path, made: list[str]) -> None:
    build(work)
    made.clear()
    build(work, version="7.7.8", fragments=("profile.development", *FRAGMENTS[1:]))
    assert "compiling native/src/app_desc.c" in made
    assert len(made) < 6, made


def test_where_the_sources_lie_does_not_change_the_images(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of objects that were compiled for other builds, as far as they are the same.
    build(work, chip=chip_named("esp32"))
    here = build(work)
    copy = tmp_path / "somewhere" / "firmware"
    shutil.copytree(firmware_dir(), copy)
    monkeypatch.setattr(native, "firmware_dir", lambda: copy)
    there = build(tmp_path / "other work")
    assert there.sha256 == here.sha256


@pytest.mark.usefixtures("sanitizers_link")
@pytest.mark.parametrize("named", ["address,undefined", "thread"])
def test_with_sanitizers_the_program_still_fits_a_slot_and_the_plain_one_is_what_it_was(
    work: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    plain = build(work)
    monkeypatch.setenv("HARNESS_SANITIZE", named)
    made = build(work)
    library = {"address,undefined": b"__asan_init", "thread": b"__tsan_init"}[named]
    assert library in made.app.read_bytes()
    assert b"src/panic.c" not in plain.app.read_bytes()
    assert made.app.stat().st_size < made.partition_table.ota_slots[0].size
    monkeypatch.delenv("HARNESS_SANITIZE")
    assert build(work).sha256 == plain.sha256


@pytest.mark.parametrize("named", ["memory", "address,thread", "address undefined", "address,leak"])
def test_sanitizers_that_there_are_not_or_that_exclude_each_other_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.setenv("HARNESS_SANITIZE", named)
    with pytest.raises(UsageError, match=f"HARNESS_SANITIZE is '{named}'"):
        build(tmp_path)


def test_two_processes_can_build_at_once(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from harness.build.native import build_native\n"
        "from harness.chips import chip_named\n"
        "work = Path(sys.argv[1])\n"
        "made = build_native(chip_named('esp32'), version='1.0.0', store=work / 'store', work=work)\n"
        "print(made.dir)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "work")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=300)[0].strip() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert said[0] == said[1]
    assert Artefacts.read(Path(said[0])).version == "1.0.0"
    assert not list((tmp_path / "work").rglob(".making-*"))


@pytest.mark.parametrize("version", ['1.0 "quoted" \\n', "1.0-ü", "v" * 31])
def test_any_text_that_fits_can_be_a_version(work: Path, version: str) -> None:
    description = parse_app_image(build(work, version=version).app.read_bytes()).description
    assert description is not None
    assert description.version == version


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"version": "v" * 32}, FormatError, "version"),
        ({"project": "p" * 40}, FormatError, "project_name"),
        ({"secure_version": 1 << 32}, FormatError, "secure_version|number"),
        ({"signing_keys": (POINT, POINT, POINT)}, UsageError, "two signing keys"),
        ({"signing_keys": (POINT[:64],)}, UsageError, "64 bytes"),
        ({"fragments": ("profile.nothing",)}, UsageError, "profile.nothing"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_compiled(
    tmp_path: Path, changes: dict[str, Any], error: type[HarnessError], message: str
) -> None:
    with pytest.raises(error, match=message):
        build(tmp_path, **changes)
    assert not (tmp_path / "objects").exists()


@pytest.mark.parametrize("cc", [None, "no-such-compiler -x"], ids=["nothing on the path", "CC names nothing"])
def test_without_a_compiler_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cc: str | None
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    if cc:
        monkeypatch.setenv("CC", cc)
    with pytest.raises(LabError) as caught:
        build(tmp_path / "work")
    assert "compiler" in caught.value.message
    assert caught.value.todo is not None
    assert "everything but the twin's application works without" in caught.value.todo


@pytest.mark.parametrize(
    ("system", "advice"),
    [("Linux", "apt"), ("Darwin", "xcode-select"), ("Windows", "WSL2"), ("Plan9", "install")],
)
def test_the_advice_fits_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str, advice: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(compiler.platform, "system", lambda: system)
    with pytest.raises(LabError) as caught:
        compiler.find_compiler()
    assert advice in str(caught.value)


def test_a_build_failure_is_one_error_with_the_compiler_s_first_error_line_and_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "firmware"
    shutil.copytree(firmware_dir(), copy)
    (copy / "main" / "events.c").write_text("int broken = ;\n")
    monkeypatch.setattr(native, "firmware_dir", lambda: copy)
    log = tmp_path / "log" / "build.log"
    log.parent.mkdir()
    with pytest.raises(LabError, match=r"main/events\.c.*error") as caught:
        build(tmp_path / "work", log=log)
    assert str(log) in str(caught.value)
    assert "int broken" in log.read_text()


def test_a_program_that_does_not_link_is_such_an_error_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "firmware"
    shutil.copytree(firmware_dir(), copy)
    (copy / "native" / "src" / "startup.c").write_text("int nothing;\n")
    monkeypatch.setattr(native, "firmware_dir", lambda: copy)
    with pytest.raises(LabError, match="linking companion failed"):
        build(tmp_path / "work")


def test_installing_a_program_twice_is_harmless_and_mends_a_spoiled_copy(tmp_path: Path) -> None:
    path = install_program(b"program", tmp_path / "store")
    path.write_bytes(b"tampered")
    assert install_program(b"program", tmp_path / "store") == path
    assert path.read_bytes() == b"program"
    assert list((tmp_path / "store").iterdir()) == [path]


@pytest.mark.parametrize("form", ["raw", "pem", "der"])
def test_public_keys_are_embedded_from_any_usual_form(tmp_path: Path, form: str) -> None:
    encodings = {"pem": serialization.Encoding.PEM, "der": serialization.Encoding.DER}
    data = (
        POINT
        if form == "raw"
        else KEY.public_bytes(encodings[form], serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    key, out = tmp_path / "key", tmp_path / "out.c"
    key.write_bytes(data)
    script = firmware_dir() / "components" / "raw_ota" / "embed_public_keys.py"
    subprocess.run([sys.executable, str(script), "--out", str(out), str(key)], check=True)
    text = out.read_text()
    found = bytes(
        int(word, 16)
        for word in text.replace(",", " ").replace("{", " ").replace("}", " ").split()
        if word.startswith("0x")
    )
    assert found == POINT
    assert "raw_ota_public_key_count = 1" in text


@pytest.mark.parametrize("data", [b"", b"-----BEGIN PRIVATE KEY-----\n", b"\x04" * 64, bytes(65)])
def test_what_is_no_public_key_is_refused(tmp_path: Path, data: bytes) -> None:
    key = tmp_path / "key"
    key.write_bytes(data)
    script = firmware_dir() / "components" / "raw_ota" / "embed_public_keys.py"
    command = [sys.executable, str(script), "--out", str(tmp_path / "out.c"), str(key)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "key" in done.stderr
    assert "Traceback" not in done.stderr
