"""Suites written for pytest-embedded run on harness boards as they are, and a `dut` lasts as long as its fixtures do."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.chips import CHIPS
from harness.dut import REFUSED, DutSerial
from harness.embedded.app import HarnessApp, sdkconfig_values
from harness.embedded.chips import chips_of, is_for_this_chip
from harness.embedded.fixtures import SECOND_USERS, _require_one_user, ignored_options
from harness.embedded.turn import SCOPES, scope_of, turn_of, widest
from harness.errors import NotApplicableError, UsageError

SUITES = Path(__file__).parents[2] / "data" / "embedded_suites"
AS_ON_A_CHIP = """
from harness.report.flash_watch import FlashWatch

# Of a chip the report learns otadata by asking the firmware, whose answers stand in the log that a dut reads.
FlashWatch.sees_otadata = False
"""


def test_suites_of_both_kinds_run_unmodified_with_the_services_of_their_project(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, own_home: Path
) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(own_home))
    shutil.copytree(SUITES, pytester.path, dirs_exist_ok=True)
    pytester.makeconftest(AS_ON_A_CHIP)
    result = pytester.runpytest_subprocess(
        "-rs", "-p", "no:cacheprovider", "--junitxml=out.xml", "--port", "COM5"
    )
    # Those for linux are dropped, that of a chip without a board and the one with a Unity menu are skipped.
    result.assert_outcomes(passed=15, skipped=2, deselected=4)
    said = result.stdout.str()
    assert "the test is for another chip, and no board of this run is one" in said
    assert "'run_all_single_board_cases' is not for boards of the harness" in said
    assert "harness: --port: no effect on harness boards" in said
    assert 'name="version" value="1.0.0"' in (pytester.path / "out.xml").read_text()


# --- how long it goes on ---


def item(marker: str | None = None, ini: str = "", chains: dict[str, list[Any]] | None = None) -> pytest.Item:
    """A test in a class in a module, as far as scopes go."""
    parents = {pytest.Class: SimpleNamespace(nodeid="m.py::C"), pytest.Module: SimpleNamespace(nodeid="m.py")}
    made = SimpleNamespace(
        nodeid="m.py::C::t",
        config=SimpleNamespace(getini=lambda _name: ini),
        get_closest_marker=lambda _name: SimpleNamespace(args=(marker,)) if marker else None,
        getparent=parents.get,
        _fixtureinfo=SimpleNamespace(name2fixturedefs=chains or {}),
    )
    return cast(pytest.Item, made)


def fixture(scope: str, *needs: str, module: str = "conftest") -> Any:
    return SimpleNamespace(scope=scope, argnames=needs, func=SimpleNamespace(__module__=module))


PLUGINS = [
    fixture("function", module="pytest_embedded.plugin"),
    fixture("session", module="harness.embedded.fixtures"),
]


@pytest.mark.parametrize(
    ("made", "scope"),
    [
        (item(chains={"dut": PLUGINS}), "function"),
        (item(chains={"dut": [*PLUGINS, fixture("class", "dut")]}), "class"),
        (item(chains={"dut": PLUGINS, "ip": [fixture("module", "dut")]}), "module"),
        (item(chains={"dut": PLUGINS, "tmp": [fixture("session", "other")]}), "function"),
        (item(marker="class", chains={"dut": PLUGINS}), "class"),
        (item(ini="module", chains={"dut": PLUGINS}), "module"),
        (item(ini="class", marker="session", chains={"dut": [fixture("module", "dut")]}), "session"),
    ],
    ids=range(7),
)
def test_a_dut_goes_on_as_long_as_the_widest_that_uses_it(made: pytest.Item, scope: str) -> None:
    assert scope_of(made) == scope
    expected = {
        "function": "function m.py::C::t",
        "class": "class m.py::C",
        "module": "module m.py",
        "session": "session",
    }
    assert turn_of(made) == expected[scope]


def test_a_scope_that_pytest_has_not_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no scope 'klass'"):
        scope_of(item(marker="klass"))
    assert widest([]) == "function"
    assert widest(SCOPES) == "session"


# --- for which chips ---


def marked(*found: Any) -> Any:
    return SimpleNamespace(
        iter_markers=lambda name=None: [mark for mark in found if name in (None, mark.name)]
    )


def named(name: str, *args: Any) -> Any:
    """A marker; of those that this project has not, pytest makes none."""
    return SimpleNamespace(name=name, args=args, kwargs={"indirect": True})


def by(names: Any, values: list[Any]) -> Any:
    return named("parametrize", names, values)


@pytest.mark.parametrize(
    ("marks", "option", "chips"),
    [
        ([], None, None),
        ([], "auto", None),
        ([], "esp32", {"esp32"}),
        ([by("target", ["esp32", "esp32c3", "esp32c61"])], None, {"esp32", "esp32c3"}),
        ([by("target", ["esp32", "esp32c3"])], "esp32c3", {"esp32c3"}),
        ([by("target", ["linux"])], None, set()),
        ([by("config, target", [("a", "esp32"), pytest.param("b", "esp32s3")])], None, {"esp32", "esp32s3"}),
        ([by(["config"], [("a",)])], None, None),
        ([by("target", [pytest.param("esp32", marks=pytest.mark.skip)])], None, {"esp32"}),
        ([by("target", ["esp32|esp32c3"])], None, {"esp32", "esp32c3"}),
        ([named("esp32c3"), named("esp32"), named("generic")], None, {"esp32", "esp32c3"}),
        ([named("supported_targets")], None, set(CHIPS)),
        ([by("target", ["supported_targets"])], None, set(CHIPS)),
        ([named("esp32c61")], None, set()),
    ],
    ids=range(14),
)
def test_a_test_says_for_which_chips_it_is(
    marks: list[Any], option: str | None, chips: set[str] | None
) -> None:
    assert chips_of(marked(*marks), option) == chips


def test_of_the_product_of_targets_and_boards_only_the_diagonal_stays() -> None:
    def one(target: object) -> Any:
        return SimpleNamespace(callspec=SimpleNamespace(params={"target": target} if target else {}))

    assert is_for_this_chip(one("esp32"), "esp32")
    assert not is_for_this_chip(one("esp32c3"), "esp32")
    assert is_for_this_chip(one(None), "esp32")
    assert is_for_this_chip(SimpleNamespace(), "esp32")  # type: ignore[arg-type]


# --- what it refuses ---


def asks(services: str = "", count: int = 1, **params: object) -> pytest.FixtureRequest:
    options = {"embedded_services": services, "count": count}
    made = SimpleNamespace(
        node=SimpleNamespace(callspec=SimpleNamespace(params=params)),
        config=SimpleNamespace(getoption=lambda name, default=None: options.get(name, default)),
    )
    return cast(pytest.FixtureRequest, made)


@pytest.mark.parametrize("services", ["", "esp,idf", "serial", "esp, idf", "arduino,esp"])
def test_services_that_a_harness_board_stands_for_are_not_in_the_way(services: str) -> None:
    _require_one_user(asks(services))


@pytest.mark.parametrize("service", sorted(SECOND_USERS))
def test_a_service_that_would_use_the_board_a_second_time_is_refused_with_the_reason(service: str) -> None:
    for request in (asks(f"esp,{service}"), asks(embedded_services=f"idf|{service}")):
        with pytest.raises(UsageError, match=f"--embedded-services {service} cannot be beside") as caught:
            _require_one_user(request)
        assert "-p no:" in str(caught.value)


def test_several_boards_in_one_test_are_refused() -> None:
    for request in (asks(count=2), asks(count="2")):
        with pytest.raises(UsageError, match="2 boards at once"):
            _require_one_user(request)


def test_options_that_choose_a_port_are_named_since_they_have_no_effect() -> None:
    options = {"port": "COM5", "erase_all": "y"}
    config = cast(pytest.Config, SimpleNamespace(getoption=lambda name, _default=None: options.get(name)))
    assert ignored_options(config) is not None
    assert "--port, --erase-all" in str(ignored_options(config))
    options.clear()
    assert ignored_options(config) is None


@pytest.mark.parametrize("what", sorted(set(REFUSED) - {"run_all_single_board_cases"}))
def test_what_would_go_round_the_harness_is_not_applicable_and_says_what_there_is(what: str) -> None:
    serial = DutSerial(SimpleNamespace(port="COM5", baudrate=115200), lambda: None, "esp32")
    assert (serial.port, serial.baud, serial.target) == ("COM5", 115200, "esp32")
    with pytest.raises(NotApplicableError, match=f"'{what}' is not for boards"):
        getattr(serial, what)("anything", at=1)
    with pytest.raises(AttributeError, match="no 'invent'"):
        _ = serial.invent


# --- the build ---


def test_an_sdkconfig_has_the_types_of_esp_idfs_json() -> None:
    options = {
        "CONFIG_A": "y",
        "CONFIG_B": "n",
        "CONFIG_C": "0x8000",
        "CONFIG_D": '"x y"',
        "CONFIG_E": "v5",
        "CONFIG_F": "10",
    }
    assert sdkconfig_values(options) == {"A": True, "B": False, "C": 0x8000, "D": "x y", "E": "v5", "F": 10}


def test_without_a_known_build_an_app_is_still_of_a_chip() -> None:
    app = HarnessApp(None, "esp32c3")
    assert (app.target, app.sdkconfig, app.elf_file, app.is_riscv32) == ("esp32c3", {}, None, True)
