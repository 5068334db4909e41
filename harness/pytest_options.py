"""The command line and the markers of the pytest plugin, and the check of what was said there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.chips import TWINS
from harness.deadline import TODO, Deadline, deadline_in
from harness.embedded import fixtures as embedded
from harness.embedded.turn import INI, scope_named
from harness.errors import HarnessError, UsageError
from harness.provision.profile import Profile
from harness.rack import workers
from harness.rack.registration import check_rack_options, inventory_of, twin_chip
from harness.rack.run import LEASE_WAIT_S
from harness.rack.spread import EACH, LOAD
from harness.scope import profile_named
from harness.subset import FULL

DEADLINE = pytest.StashKey[Deadline | None]()

MARKERS = (
    "profiles(*names, full=(), secure_boot=None): security profiles this test is for; default: release. Each stands for "
    "its encryption, with secure boot and without, unless secure_boot says which; those in full need --full or --profile",
    "needs(*capabilities): what the board must be able to do: power, network, burnable, uart-download, flash-log, …",
    "chips(*names): the chips this test is for; default: every chip",
    "full: not in the default subset; --full runs it",
    "in_turn: rows that differ little from chip to chip: in the default subset each runs on one of the throwaway twins",
    "source(*cases): the public cases that this comes from, e.g. 'esp-idf #6172'; kept in the JUnit report",
    embedded.MARKER_HELP,
    "consumes(**amounts): what one run uses up for good (secure_version, digest_slots, revocations, device_keys); on "
    "physical boards only with --consume NAME and a budget in the board's entry",
)


@dataclass(frozen=True, slots=True)
class Option:
    """An option of pytest's command line.

    `metavar` None: a flag, or one of `choices`, whose first is the default. `many`: may be repeated.
    """

    name: str
    metavar: str | None
    help: str
    many: bool = False
    choices: tuple[str, ...] = ()

    def add_to(self, group: pytest.OptionGroup) -> None:
        """Left out it is False, the first choice, an empty list, or None."""
        if self.choices:
            group.addoption(self.name, choices=self.choices, default=self.choices[0], help=self.help)
        elif self.metavar is None:
            group.addoption(self.name, action="store_true", default=False, help=self.help)
        elif self.many:
            group.addoption(self.name, action="append", default=[], metavar=self.metavar, help=self.help)
        else:
            group.addoption(self.name, default=None, metavar=self.metavar, help=self.help)


OPTIONS = (
    Option(
        "--board",
        "NAME",
        "board or tag of boards.yaml, may be repeated; default: throwaway twins",
        many=True,
    ),
    Option(
        "--rack",
        None,
        "run on every board of boards.yaml (of --board and --chip, if given) that a test's demands fit; "
        "with pytest-xdist, -n auto starts one worker per board",
    ),
    Option(
        "--lease-wait",
        "SECONDS",
        "how long to wait for a board that another job has, when nothing else is left to do; default: "
        f"{LEASE_WAIT_S:g} with --rack, else 0",
    ),
    Option(
        "--allow-busy",
        None,
        "a --rack run may succeed without boards that another job kept, if other boards of the chip ran "
        "the tests",
    ),
    Option(
        "--rack-strict",
        None,
        "a --rack run is no success (exit status 6) if a test that was selected fits no board",
    ),
    Option(
        "--rack-dist",
        None,
        "each (default): with --rack a test runs on every board that it fits; load: once per chip and "
        "profile, on one of them, and the tests are spread over the boards that are free and healthy",
        choices=(EACH, LOAD),
    ),
    Option(
        "--boards",
        "FILE",
        "the boards.yaml to use; default: the one in the root folder",
    ),
    Option(
        "--profile",
        "P",
        f"only these security profiles: {', '.join(profile.value for profile in Profile)}",
        many=True,
    ),
    Option(
        "--chip",
        "CHIP",
        f"chips of the throwaway twins: {', '.join(TWINS)}",
        many=True,
    ),
    Option(
        "--burn",
        "NAME",
        "allow this run to burn eFuses of the board NAME, as far as its burn_up_to says",
        many=True,
    ),
    Option(
        "--consume",
        "NAME",
        "allow this run scenarios that use something of the board NAME up for good, within its budget",
        many=True,
    ),
    Option(
        f"--{FULL}",
        None,
        "every scenario on the twins of all chips and in every profile where it makes sense; default: "
        "a subset of a few minutes, which says what it leaves out",
    ),
    Option(
        "--accept-unknown-burns",
        "NAME",
        "allow the board NAME firmware without an sdkconfig, which may burn any eFuse by itself",
        many=True,
    ),
    Option(
        "--app",
        "DIR",
        "flash this build (of `harness build`, or an ESP-IDF build folder), may be repeated: of several "
        "the one for the board's chip and profile is taken",
        many=True,
    ),
    Option(
        "--fragment",
        "NAME",
        "sdkconfig fragment that the companion firmware is built with besides, e.g. rollback.anti",
        many=True,
    ),
    Option(
        "--idf",
        "DIR",
        "ESP-IDF to build the companion firmware with; default: IDF_PATH",
    ),
    Option(
        "--time-left",
        "SECONDS",
        "this run may be killed after so long (a CI job's time-out): begin no eFuse burn that may not be "
        "over by then; HARNESS_DEADLINE says the same in seconds since 1970",
    ),
    Option(
        "--vault-key-file",
        "FILE",
        "key file of the vault of physical boards",
    ),
    Option(
        "--harness-out",
        "DIR",
        "folder for the run's record, report and logs; default: one per run under HARNESS_HOME/artefacts",
    ),
)


def add_options(parser: pytest.Parser) -> None:
    """Options of the harness; `pytest --help` shows them as a group."""
    group = parser.getgroup("harness", "ESP32 secure-OTA harness")
    for option in OPTIONS:
        option.add_to(group)
    parser.addini(INI, embedded.INI_HELP, default="function")


def check_options(config: pytest.Config) -> None:
    """What was said on the command line is checked before anything is collected: one sentence, exit code 4."""
    try:
        for word in config.getoption("--profile"):
            profile_named(word)
        for word in config.getoption("--chip"):
            twin_chip(word)
        for folder in config.getoption("--app"):
            from harness.build.app_dir import read_app_dir

            read_app_dir(Path(folder))
        if config.getoption("--boards") or config.getoption("--board"):
            inventory_of(config).select(config.getoption("--board"))
        for option in ("--burn", "--consume", "--accept-unknown-burns"):
            if config.getoption(option):
                inventory_of(config).require_named(config.getoption(option), option)
        config.stash[DEADLINE] = _deadline(config)
        scope_named(str(config.getini(INI)))
        check_rack_options(config)
    except HarnessError as error:
        raise pytest.UsageError(str(error)) from error


def _deadline(config: pytest.Config) -> Deadline | None:
    """Counted from the start of the controller, which hands it to its workers among its options."""
    told = workers.told(config).get(workers.DEADLINE)
    if told is not None:
        return Deadline(told, "--time-left or HARNESS_DEADLINE")
    option = config.getoption("--time-left")
    try:
        found = deadline_in(float(option) if option is not None else None)
    except ValueError as error:
        raise UsageError(f"--time-left is '{option}', not a number of seconds", todo=TODO) from error
    return found
