"""A plan as text, as JSON, and as an id that means: these burns, on this board, in this state."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from fuse_bench import MAC, Bench, VirtualBoard, firmware

from harness.chips import ESP32, ESP32C3
from harness.errors import FormatError, RefusedError
from harness.provision import FlashRegion, Lock, Plan, Profile, plan_for
from harness.provision.steps import MakeKey, step_from_fields
from harness.vault import KeyRef, NewerFormatError


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(ESP32C3, tmp_path)


def test_a_plan_reads_like_a_list_of_what_will_be_done(bench):
    bench.vault.make_flash_key(MAC, ESP32C3)
    text = bench.plan(Profile.RELEASE).text()
    lines = text.splitlines()
    assert lines[0].startswith("Plan ")
    assert f"ESP32-C3 {MAC} to release, lock secure-download" in lines[0]
    assert "now: open" in lines[1]
    assert [line.split()[0] for line in lines[2:15]] == [str(number) for number in range(1, 14)]
    marked = [line for line in lines if line[5:6] == "!"]
    assert len(marked) == 5
    assert all("burn" in line or "write-protect" in line for line in marked)
    assert "5 of 13 steps burn eFuses" in text
    assert "the key is not deleted" in text
    assert "do not ship this device" in text
    assert bench.vault.key(MAC).key_id in text


def test_a_final_lock_is_printed_as_final(tmp_path):
    text = Bench(ESP32, tmp_path).plan(Profile.RELEASE, Lock.DOWNLOAD_OFF).text()
    assert "FINAL: burn UART_DOWNLOAD_DIS" in text
    assert text.count("FINAL") == 1
    assert "FINAL" not in Bench(ESP32, tmp_path / "2").plan(Profile.RELEASE).text()


def test_esp32_in_release_says_that_its_uart_stays_open(tmp_path):
    text = Bench(ESP32, tmp_path).plan(Profile.RELEASE).text()
    assert "UART download stays open (UART_DOWNLOAD_DIS is not burned)" in text


def test_json_and_back_is_the_same_plan(bench):
    for profile in Profile:
        plan = bench.plan(profile)
        again = Plan.from_json(plan.to_json())
        assert again == plan
        assert again.text() == plan.text()


def test_stored_plans_hold_no_contents(bench):
    secret = b"license key 0123456789"
    region = FlashRegion("data", 0x80000, secret)
    stored = bench.plan(Profile.RELEASE, regions=(*bench.regions, region)).to_json()
    assert secret.decode() not in stored
    assert secret.hex() not in stored


def test_equal_situations_have_equal_ids_and_any_difference_another(bench):
    state = bench.look()
    base = {"profile": Profile.RELEASE, "lock": Lock.NONE, "regions": bench.regions}
    plan = plan_for(state, **base)
    assert plan.id == plan_for(state, **base).id
    other_mac = dataclasses.replace(state, mac="02:00:00:aa:bb:99")
    burned = dataclasses.replace(state, fuses={**state.fuses, "DIS_PAD_JTAG": 1})
    firmware_changed = (*bench.regions[:3], FlashRegion("app", 0x20000, b"another application"))
    others = [
        plan_for(other_mac, **base),
        plan_for(burned, **base),
        plan_for(state, **{**base, "profile": Profile.DEVELOPMENT}),
        plan_for(state, **{**base, "lock": Lock.SECURE_DOWNLOAD}),
        plan_for(state, **{**base, "regions": firmware_changed}),
        plan_for(state, **{**base, "key": KeyRef(MAC, "esp32c3", "1" * 16)}),
        plan_for(VirtualBoard(ESP32).state(), **{**base, "regions": firmware(ESP32)}),
    ]
    ids = {plan.id, *(other.id for other in others)}
    assert len(ids) == 1 + len(others)
    assert all(len(each) == 16 for each in ids)


def test_a_board_that_has_changed_is_refused_by_name_of_the_change(bench):
    plan = Plan.from_json(bench.plan(Profile.RELEASE).to_json())
    plan.require_unchanged(bench.look())
    bench.board.set_fuses(DIS_PAD_JTAG=1)
    assert plan.changed_since(bench.look()) == ("DIS_PAD_JTAG: 0 -> 1",)
    with pytest.raises(RefusedError, match="DIS_PAD_JTAG: 0 -> 1"):
        bench.carry_out(plan)
    assert bench.vault.key(MAC) is None


def test_an_edited_plan_is_refused(bench):
    fields = json.loads(bench.plan(Profile.RELEASE).to_json())
    for step in fields["steps"]:
        if step["do"] == "burn-fuses":
            step["fuses"] = [["SPI_BOOT_CRYPT_CNT", 1]]
    with pytest.raises(FormatError, match="edited"):
        Plan.from_json(json.dumps(fields))


def test_a_key_from_elsewhere_is_part_of_the_plan_and_one_made_here_is_stored_as_ever():
    made, taken = MakeKey(), MakeKey("file keys/1.bin")
    assert made.to_fields() == {"do": "make-key"}
    assert "make a flash key" in made.text()
    assert "take the flash key for this chip from file keys/1.bin" in taken.text()
    for step in (made, taken):
        assert step_from_fields(json.loads(json.dumps(step.to_fields()))) == step


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{}",
        '{"format": 1}',
        '{"format": 1, "chip": "esp32c3"}',
        "[" * 10000,
        '{"format": 1, "steps": [{"do": "format-disk"}]}',
    ],
)
def test_nonsense_is_no_plan(text):
    with pytest.raises(FormatError):
        Plan.from_json(text)


def test_a_newer_plan_is_refused(bench):
    fields = json.loads(bench.plan(Profile.RELEASE).to_json())
    with pytest.raises(NewerFormatError, match="format 3"):
        Plan.from_json(json.dumps({**fields, "format": 3}))
    with pytest.raises(FormatError, match="older harness"):
        Plan.from_json(json.dumps({**fields, "format": 1}))


def test_every_field_of_a_stored_plan_is_needed(bench):
    fields = json.loads(bench.plan(Profile.RELEASE).to_json())
    for name in fields:
        with pytest.raises(FormatError):
            Plan.from_json(json.dumps({key: value for key, value in fields.items() if key != name}))
