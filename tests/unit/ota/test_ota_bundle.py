"""Bundles: written whole, read back with every hash checked."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_releases import ALL_CHIPS, MAC, PRIVATE_KEY, TABLE, flash_key, recipe, release

from harness.chips import Chip, chip_named
from harness.errors import FormatError, HarnessError, LabError, UsageError
from harness.formats.ota_package import key_id_of
from harness.formats.partition_table import PartitionTable
from harness.ota import bundle as bundles
from harness.ota.bundle import Bundle, make_bundle, read_bundle, write_bundle
from harness.ota.release import make_body, signer

each_chip = pytest.mark.parametrize("chip", ALL_CHIPS, ids=lambda chip: chip.name)
FILES = {"manifest.json", "image.bin", "ota_0.bin", "ota_0.pkg", "ota_1.bin", "ota_1.pkg"}


def _bundle(chip: Chip, version: str = "1.1.0", *, enciphered: bool = True) -> Bundle:
    key = flash_key(chip) if enciphered else None
    return make_bundle(
        release(chip, version), chip=chip, mac=MAC.upper(), key=key, table=TABLE, sign=signer(PRIVATE_KEY)
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    target = tmp_path / "bundle"
    write_bundle(_bundle(chip_named("esp32c3")), target)
    return target


@each_chip
@pytest.mark.parametrize("enciphered", [True, False])
def test_a_bundle_comes_back_as_it_was_written(chip: Chip, enciphered: bool, tmp_path: Path) -> None:
    made = _bundle(chip, enciphered=enciphered)
    write_bundle(made, tmp_path / "new" / "bundle")
    assert read_bundle(tmp_path / "new" / "bundle") == made
    assert {path.name for path in (tmp_path / "new" / "bundle").iterdir()} == FILES
    assert made.key_id == (key_id_of(flash_key(chip)).hex() if enciphered else None)


@each_chip
def test_each_slot_has_its_own_ciphertext_ready_to_be_flashed(chip: Chip, tmp_path: Path) -> None:
    write_bundle(_bundle(chip), tmp_path / "b")
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert [slot["label"] for slot in manifest["slots"]] == ["ota_0", "ota_1"]
    for entry in manifest["slots"]:
        slot = TABLE.find(entry["label"])
        body = (tmp_path / "b" / entry["body"]["file"]).read_bytes()
        assert body == make_body(release(chip), chip=chip, key=flash_key(chip), slot=slot)
        assert (entry["offset"], entry["size_bytes"]) == (slot.offset, slot.size)
    assert flash_key(chip).hex() not in (tmp_path / "b" / "manifest.json").read_text()


def test_a_slot_is_found_by_label_offset_or_partition() -> None:
    made = _bundle(chip_named("esp32"))
    slot = TABLE.find("ota_1")
    assert made.for_slot("ota_1") is made.for_slot(slot.offset) is made.for_slot(slot) is made.slots[1]
    with pytest.raises(UsageError, match=r"no update for slot 'ota_7'.*\n.*ota_0, ota_1"):
        made.for_slot("ota_7")


def test_a_table_without_ota_slots_is_refused() -> None:
    table = PartitionTable(tuple(p for p in TABLE.partitions if not p.is_ota_slot))
    chip = chip_named("esp32")
    with pytest.raises(UsageError, match="no OTA slot"):
        make_bundle(
            release(chip), chip=chip, mac=MAC, key=flash_key(chip), table=table, sign=signer(PRIVATE_KEY)
        )


# ---- writing ----------------------------------------------------------------------------------------------


def test_a_newer_bundle_replaces_the_older_one_and_leaves_nothing_beside_it(folder: Path) -> None:
    newer = _bundle(chip_named("esp32c3"), "1.2.0")
    write_bundle(newer, folder)
    assert read_bundle(folder).release.version == "1.2.0"
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]


def test_a_folder_with_something_else_in_it_is_left_alone(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"notes\.txt"):
        write_bundle(_bundle(chip_named("esp32")), folder)
    assert (folder / "notes.txt").read_text() == "mine"
    assert read_bundle(folder).chip.name == "esp32c3"


def test_a_file_in_the_place_of_the_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("mine")
    with pytest.raises(UsageError, match="is a file"):
        write_bundle(_bundle(chip_named("esp32")), tmp_path / "b")


@pytest.mark.parametrize("failing", ["_write_synced", "_sync_folder"])
def test_a_full_disk_leaves_the_old_bundle_and_no_rest(
    folder: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundles, failing, no_space)
    with pytest.raises(LabError, match="No space left"):
        write_bundle(_bundle(chip_named("esp32c3"), "1.2.0"), folder)
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]
    assert read_bundle(folder).release.version in ("1.1.0", "1.2.0")


def test_a_bundle_that_cannot_take_its_place_leaves_the_old_one_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def fail_for_the_new_one(self: Path, target: Path) -> Path:
        if self.name.endswith(".new"):
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_new_one)
    with pytest.raises(LabError, match="Permission denied"):
        write_bundle(_bundle(chip_named("esp32c3"), "1.2.0"), folder)
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]
    assert read_bundle(folder).release.version == "1.1.0"


def test_a_bundle_is_not_there_before_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    write = bundles._write_synced

    def watch(path: Path, data: bytes) -> None:
        seen.append((tmp_path / "b").exists())
        write(path, data)

    monkeypatch.setattr(bundles, "_write_synced", watch)
    write_bundle(_bundle(chip_named("esp32")), tmp_path / "b")
    assert seen == [False] * len(FILES)


# ---- reading ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(UsageError, match=name):
        read_bundle(folder)


@pytest.mark.parametrize("name", sorted(FILES - {"manifest.json"}))
@pytest.mark.parametrize(
    "damage",
    [lambda d: d[:-1], lambda d: d + b"\xff", lambda d: bytes([d[0] ^ 1]) + d[1:], lambda _: b""],
    ids=["cut", "longer", "flipped", "empty"],
)
def test_a_file_that_was_changed_is_named(folder: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    (folder / name).write_bytes(damage((folder / name).read_bytes()))
    with pytest.raises(FormatError, match=f"{name} is not the file"):
        read_bundle(folder)


def _set(*keys: object, to: object) -> Callable[[Any], Any]:
    def edit(manifest: Any) -> Any:
        place = manifest
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = to
        return manifest

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_set("format", to=2), "format is 2"),
        (_set("format", to=True), "'format'"),
        (_set("chip", to="esp8266"), "esp8266"),
        (_set("chip", to="esp32"), "disagree about chip"),
        (_set("mac", to="7c:df:a1:00:11:23"), "disagree about mac"),
        (_set("mac", to=5), "'mac'"),
        (_set("key_id", to="00" * 8), "disagree about key_id"),
        (_set("key_id", to=None), "disagree about cipher"),
        (_set("version", to="1.1.1"), "disagree about version"),
        (_set("secure_version", to=4), "disagree about secure_version"),
        (_set("project", to="else"), "disagree about project"),
        (_set("image", to=None), "'image'"),
        (_set("image", "file", to="../../etc/passwd"), "not the name of a file"),
        (_set("image", "file", to="/etc/passwd"), "not the name of a file"),
        (_set("image", "file", to="ota_0.bin"), "not the file"),
        (_set("image", "size_bytes", to=-1), "size_bytes"),
        (_set("image", "size_bytes", to=10**40), "size_bytes"),
        (_set("image", "sha256", to="00" * 32), "not the file"),
        (_set("slots", to=[]), "slots"),
        (_set("slots", to=[1]), "slots"),
        (_set("slots", to={}), "slots"),
        (_set("slots", 0, "offset", to=0x120000), "disagree about offset"),
        (_set("slots", 0, "size_bytes", to=1), "disagree about size_bytes"),
        (_set("slots", 0, "index", to=1), "order of index"),
        (_set("slots", 0, "label", to=None), "'label'"),
        (lambda m: [m], "not a JSON object"),
        (lambda _: {}, "'format'"),
    ],
)
def test_a_manifest_that_does_not_agree_is_refused_with_the_field(
    folder: Path, edit: Callable[[Any], Any], message: str
) -> None:
    file = folder / "manifest.json"
    file.write_text(json.dumps(edit(json.loads(file.read_text()))))
    with pytest.raises(UsageError, match=message):
        read_bundle(folder)


def test_a_body_of_another_version_beside_the_package_is_noticed(folder: Path, tmp_path: Path) -> None:
    write_bundle(_bundle(chip_named("esp32c3"), "1.2.0"), tmp_path / "other")
    manifest = json.loads((folder / "manifest.json").read_text())
    other = json.loads((tmp_path / "other" / "manifest.json").read_text())
    (folder / "ota_0.bin").write_bytes((tmp_path / "other" / "ota_0.bin").read_bytes())
    manifest["slots"][0]["body"] = other["slots"][0]["body"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(FormatError, match="not the body of its package"):
        read_bundle(folder)


def _rewrite(folder: Path, entry: dict[str, Any], data: bytes) -> None:
    """Put `data` into a file of the bundle and make the manifest agree, as somebody who tampers would."""
    (folder / entry["file"]).write_bytes(data)
    entry["size_bytes"], entry["sha256"] = len(data), hashlib.sha256(data).hexdigest()


def test_a_package_whose_body_is_not_the_one_it_was_made_for_is_noticed(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    slot = manifest["slots"][0]
    package = (folder / "ota_0.pkg").read_bytes()
    _rewrite(folder, slot["package"], package[:-1] + b"\x00")
    _rewrite(folder, slot["body"], package[256:-1] + b"\x00")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(FormatError, match=r"ota_0\.pkg: .*SHA-256 of the body"):
        read_bundle(folder)


def test_an_image_that_the_packages_were_not_made_of_is_noticed(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    _rewrite(folder, manifest["image"], release(chip_named("esp32c3"), size_bytes=6000).image)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(FormatError, match="disagree about image"):
        read_bundle(folder)


@pytest.mark.parametrize("text", ["", "{", "null", "\x00", "[" * 100_000, '{"format": 1' + "0" * 5000 + "}"])
def test_a_manifest_that_is_no_json_is_one_error(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(FormatError):
        read_bundle(folder)


def test_a_folder_that_is_no_bundle_is_one_error(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UsageError, match="cannot be read"):
            read_bundle(place)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_PLACES: list[tuple[object, ...]] = [("chip",), ("mac",), ("key_id",), ("image",), ("slots",), ("format",)]
_PLACES += [
    ("image", "file"),
    ("image", "size_bytes"),
    ("image", "sha256"),
    ("slots", 0),
    ("slots", 1, "body"),
]
_PLACES += [("slots", 0, "package", "file"), ("slots", 0, "offset"), ("slots", 1, "index")]


@settings(max_examples=120, deadline=None)
@given(place=st.sampled_from(_PLACES), value=_JSON)
def test_any_value_in_the_manifest_gives_the_bundle_or_one_of_our_errors(
    tmp_path_factory: pytest.TempPathFactory, place: tuple[object, ...], value: object
) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzzed-bundle"
    if not folder.exists():
        write_bundle(_bundle(chip_named("esp32c3")), folder)
        (folder / "manifest.json").rename(folder.parent / "fuzzed-manifest.json")
    manifest = json.loads((folder.parent / "fuzzed-manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(_set(*place, to=value)(manifest)))
    with contextlib.suppress(HarnessError):
        assert read_bundle(folder).release.version == "1.1.0"


def test_the_recipe_and_the_bundle_make_the_same_body() -> None:
    made = recipe(chip_named("esp32"))
    update = _bundle(chip_named("esp32")).for_slot(made.slot)
    assert update.body == made.body()
    assert replace(update, package=b"").body == b""
