"""The doctor on the machine, its ports, its state folder and its vault."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from bench_facts import BRIDGE, HOST, MODEM, attached

from harness.doctor.finding import Finding, Level, Report, lines_of
from harness.doctor.host import Tool, check_host, existing_part, probe_host, probe_idf
from harness.doctor.serial_ports import Access, check_ports, complaint_on, probe_access, probe_services
from harness.doctor.state_folder import (
    CopyPlace,
    FolderFacts,
    VaultFacts,
    check_home,
    check_vault,
    probe_home,
    probe_vault,
)
from harness.home import Home
from harness.vault import KeyFile, Vault

MISSING = Tool(None, "not on PATH", "install it so")


def wrong(findings: list[Finding]) -> list[str]:
    return [finding.text for finding in findings if finding.level is Level.WRONG]


def test_on_a_machine_that_has_everything_nothing_is_wrong() -> None:
    assert wrong(check_host(HOST, {"twin", "serial"}, power_by_hub=True)) == []


@pytest.mark.parametrize(
    ("facts", "links", "hub", "said", "todo"),
    [
        (replace(HOST, python=(3, 9, 2)), {"serial"}, False, "Python 3.9.2 is too old", "3.10"),
        (replace(HOST, esptool=None), {"serial"}, False, "esptool is not installed", "esptool>=5.6,<6"),
        (replace(HOST, esptool="5.5.0"), {"serial"}, False, "esptool 5.5.0", "esptool>=5.6,<6"),
        (replace(HOST, esptool="6.0.1"), {"serial"}, False, "esptool 6.0.1", "esptool>=5.6,<6"),
        (replace(HOST, compiler=MISSING), {"twin"}, False, "C compiler: not on PATH", "install it so"),
        (replace(HOST, uhubctl=MISSING), {"serial"}, True, "uhubctl: not on PATH", "install it so"),
        (replace(HOST, idf=Tool(None, "no tools/idf.py")), {"twin"}, False, "no tools/idf.py", "IDF_PATH"),
        (replace(HOST, free_bytes={"/h": 1 << 20}), {"twin"}, False, "0.0 GiB free for /h", "make room"),
    ],
)
def test_what_is_wrong_with_the_machine_is_said_with_what_mends_it(
    facts: object, links: set[str], hub: bool, said: str, todo: str
) -> None:
    found = [f for f in check_host(facts, links, power_by_hub=hub) if f.level is Level.WRONG]  # type: ignore[arg-type]
    assert len(found) == 1
    assert said in found[0].text
    assert todo in (found[0].todo or "")


@pytest.mark.parametrize(
    "facts",
    [
        replace(HOST, compiler=MISSING),
        replace(HOST, uhubctl=MISSING),
        replace(HOST, espemu=MISSING),
        replace(HOST, idf=Tool(None)),
        replace(HOST, qemu={"a": MISSING, "b": MISSING}),
        replace(HOST, free_bytes={"/h": 1 << 30}),
        replace(HOST, esptool="5.10.0"),
    ],
)
def test_what_no_board_needs_is_a_note_at_most(facts: object) -> None:
    assert wrong(check_host(facts, {"serial"})) == []  # type: ignore[arg-type]


def test_this_machine_can_be_looked_at(tmp_path: Path) -> None:
    facts = probe_host([tmp_path / "not" / "there"])
    assert facts.esptool is not None
    assert facts.free_bytes[str(tmp_path / "not" / "there")] > 0
    assert existing_part(tmp_path / "not" / "there") == tmp_path


def test_an_idf_path_that_is_none_is_a_problem_and_none_at_all_is_not(tmp_path: Path) -> None:
    assert probe_idf(None).problem is None
    assert "is not an ESP-IDF" in (probe_idf(str(tmp_path)).problem or "")


def test_a_finding_that_is_wrong_must_say_what_to_do() -> None:
    with pytest.raises(ValueError, match="must say what to do"):
        Finding("host", Level.WRONG, "broken")


def test_a_report_counts_what_is_wrong_and_prints_what_mends_it() -> None:
    bad = Finding("host", Level.WRONG, "broken\nbadly", "mend it")
    report = Report((Finding("host", Level.GOOD, "fine"), bad))
    assert not report.ok
    assert report.last_line().startswith("1 thing is wrong")
    assert lines_of([bad]) == ["  ✗ broken", "    badly", "      → mend it"]
    assert report.to_json()["findings"][1] == {
        "area": "host",
        "level": "wrong",
        "text": "broken\nbadly",
        "todo": "mend it",
    }


# --- ports ---

FORBIDDEN = Access(BRIDGE.device, True, False, "dialout", group_may=True)


@pytest.mark.parametrize(
    ("access", "todo"),
    [
        (FORBIDDEN, "sudo usermod -aG dialout"),
        (replace(FORBIDDEN, group="uucp"), "sudo usermod -aG uucp"),
        (replace(FORBIDDEN, member=True), "log out and in again"),
        (replace(FORBIDDEN, group="root"), "udev rule"),
        (replace(FORBIDDEN, group_may=False), "udev rule"),
        (Access(BRIDGE.device, exists=False), "plug the board in"),
        (Access(BRIDGE.device, True, True, character_device=False), "correct the port"),
    ],
)
def test_a_port_that_this_user_cannot_open_comes_with_the_command_that_mends_it(
    access: Access, todo: str
) -> None:
    found = check_ports([attached()], lambda _device: access)
    assert [finding.level for finding in found] == [Level.WRONG]
    assert todo in (found[0].todo or "")


def test_ports_that_lead_to_no_board_are_not_complained_about() -> None:
    found = check_ports([attached(MODEM)], lambda _device: FORBIDDEN)
    assert wrong(found) == []
    assert "no board is plugged in by USB (1 other" in found[0].text


def test_a_held_port_and_a_meddling_service_are_notes() -> None:
    allowed = Access(BRIDGE.device, exists=True, allowed=True)
    found = check_ports(
        [attached(holder="process 7 (minicom)")], lambda _device: allowed, services=("ModemManager",)
    )
    assert [finding.level for finding in found] == [Level.NOTE, Level.NOTE]
    assert "held by process 7 (minicom)" in found[0].text
    assert "ModemManager" in found[1].text


def test_access_is_read_from_the_device_file(tmp_path: Path) -> None:
    assert not probe_access(str(tmp_path / "ttyUSB9")).exists
    assert complaint_on(probe_access("COM5")) is None
    assert complaint_on(probe_access("/dev/null")) is None


def test_services_are_found_by_their_process_names(tmp_path: Path) -> None:
    for number, name in ((1, "init"), (7, "ModemManager")):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "comm").write_text(f"{name}\n")
    assert probe_services(tmp_path) == ("ModemManager",)


# --- state folder ---

HOME = FolderFacts(Path("/h"), True, True, True, True, (), "ext4")


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (replace(HOME, is_folder=False), "is no folder"),
        (replace(HOME, writable=False), "may not be written to"),
        (replace(HOME, exists=False, writable=False), "cannot be made"),
        (replace(HOME, private=False), "others may write to it"),
        (replace(HOME, open_parts=(Path("/h/vault"),)), "others may look into /h/vault"),
    ],
)
def test_a_state_folder_that_is_of_no_use_is_wrong(facts: FolderFacts, said: str) -> None:
    (text,) = wrong(check_home(facts))
    assert said in text


def test_a_state_folder_that_does_not_last_is_a_note_and_a_good_one_is_good() -> None:
    assert [f.level for f in check_home(replace(HOME, file_system="tmpfs"))] == [Level.NOTE]
    assert [f.level for f in check_home(HOME)] == [Level.GOOD]


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_a_part_of_the_state_folder_that_others_may_enter_is_found(tmp_path: Path) -> None:
    (tmp_path / "vault").mkdir(mode=0o700)
    (tmp_path / "twins").mkdir()
    (tmp_path / "twins").chmod(0o755)
    assert probe_home(Home(tmp_path)).open_parts == (tmp_path / "twins",)


def test_looking_at_a_state_folder_does_not_make_it(tmp_path: Path) -> None:
    facts = probe_home(Home(tmp_path / "new"))
    assert facts.writable
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("target", ["home", "nowhere"], ids=["circle", "dangling"])
def test_a_state_folder_that_leads_nowhere_is_wrong(tmp_path: Path, target: str) -> None:
    (tmp_path / "home").symlink_to(target)
    assert "is no folder" in check_home(probe_home(Home(tmp_path / "home")))[0].text


# --- vault ---

VAULT = VaultFacts(
    Path("/h/vault"), True, 2, (), (CopyPlace(Path("/usb"), there=True, elsewhere=True),), "ext4", opened=True
)


@pytest.mark.parametrize(
    ("facts", "burns", "said"),
    [
        (replace(VAULT, exists=False), True, ["not made yet"]),
        (replace(VAULT, exists=False), False, []),
        (VAULT, True, []),
        (replace(VAULT, opened=False), True, []),
        (replace(VAULT, file_system="overlay"), True, ["lies on overlay"]),
        (replace(VAULT, copies=()), False, ["no copy of the vault"]),
        (replace(VAULT, copies=(), keys=0), False, []),
        (replace(VAULT, copies=(CopyPlace(Path("/usb"), False, False),)), True, ["no copy of the vault"]),
        (replace(VAULT, copies=(CopyPlace(Path("/h/c"), True, False),)), True, ["no copy of the vault"]),
        (replace(VAULT, problems=("a", "b")), True, ["a", "b"]),
    ],
)
def test_a_vault_is_judged_by_what_may_happen_to_its_keys(
    facts: VaultFacts, burns: bool, said: list[str]
) -> None:
    found = wrong(check_vault(facts, burns=burns))
    assert len(found) == len(said)
    assert all(text in complaint for text, complaint in zip(said, found, strict=True))


def test_a_vault_is_looked_at_from_outside_without_its_secret_and_opened_with_it(tmp_path: Path) -> None:
    secret = KeyFile.create(tmp_path / "key")
    Vault.open(tmp_path / "vault", secret, create=True)
    outside = probe_vault(tmp_path / "vault", None)
    assert (outside.exists, outside.opened, outside.problems) == (True, False, ())
    assert probe_vault(tmp_path / "vault", lambda _place: secret).opened
    other = KeyFile.create(tmp_path / "other")
    assert probe_vault(tmp_path / "vault", lambda _place: other).problems
    assert not probe_vault(tmp_path / "nowhere", None).exists


def test_a_folder_that_holds_something_else_is_no_vault(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"")
    assert "no vault" in probe_vault(tmp_path, None).problems[0]
