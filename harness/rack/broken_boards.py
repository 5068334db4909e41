"""What becomes of tests whose board is latched broken: they are skipped with the reason, and the run says so at its end.

A run in which no test got to a board because of that has proven nothing, and must not look as if it had: it ends with 5,
pytest's own "no tests ran" and the harness's "not proven". One in which a board that somebody named got none ends with 6.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from harness.errors import LinkError
from harness.rack.health import mend_command
from harness.rack.watch import BoardWatch

BOARDS_NOT_RUN = 6
"""Exit status: no test failed, but not all ran that should. pytest itself has 0 to 5."""
NOTHING_TESTED = pytest.ExitCode.NO_TESTS_COLLECTED


class BoardFate:
    """Whether the tests of one open board of a session may still have it."""

    def __init__(self, name: str, watch: BoardWatch | None) -> None:
        """`watch`: None for a throwaway twin, of which nothing is kept: each of its tests fails for itself."""
        self.name = name
        self.watch = watch
        self.skips: str | None = watch.refusal if watch is not None else None
        """Why its tests are skipped from now on; None: they are not."""

    def failed(self, error: BaseException, *, answers: bool = True) -> None:
        """The board was not prepared, or did not come back; this test fails with `error`, and those after it skip."""
        if self.watch is not None and self.watch.failed(error, answers=answers):
            self.skips = self.watch.refusal

    def ready(self) -> None:
        """It was prepared."""
        if self.watch is not None:
            self.watch.ready()

    def skip_if_broken(self) -> None:
        """Skips the test that asks for the board."""
        if self.skips is not None:
            pytest.skip(self.skips)


class BrokenBoards:
    """A plugin that counts such tests, in whichever worker they were to run."""

    def __init__(self) -> None:
        self._skipped: Counter[str] = Counter()
        self._ran: Counter[str] = Counter()

    @property
    def untested(self) -> list[str]:
        """Boards of which no test ran for being latched."""
        return [name for name in sorted(self._skipped) if not self._ran[name]]

    @property
    def problems(self) -> list[str]:
        """What a run without ``--rack`` did not do although every board of it was named; none: nothing is missing."""
        if not self._ran:
            return []
        return [f"no test ran on board {name}: it is latched broken" for name in self.untested]

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
        """In the worker: what the controller has to know goes with the report."""
        outcome = yield
        fate = getattr(getattr(item, "funcargs", {}).get("_bench"), "fate", None)
        if isinstance(fate, BoardFate):
            report = outcome.get_result()
            report.harness_board = fate.name
            report.harness_latched = report.skipped and fate.skips is not None
            if call.excinfo is not None and isinstance(call.excinfo.value, LinkError):
                fate.failed(call.excinfo.value)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """In the controller, or where there is no other."""
        name = getattr(report, "harness_board", None)
        if name is not None and getattr(report, "harness_latched", False):
            self._skipped[name] += 1
        elif name is not None and (report.failed or report.when == "call"):
            self._ran[name] += 1

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """After everybody else has had a word in it."""
        if self._skipped and not self._ran and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = NOTHING_TESTED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """How many tests did not get to their board, and how that is mended."""
        for name, count in sorted(self._skipped.items()):
            tests = "1 test was" if count == 1 else f"{count} tests were"
            terminalreporter.write_line(
                f"board {name} is latched broken: {tests} skipped; to clear that: {mend_command(name)}"
            )
        # A run over the rack counts what ran nowhere, with an exit code of its own.
        if terminalreporter.config.getoption("--rack"):
            return
        if self._skipped and not self._ran:
            terminalreporter.write_line(
                f"no test got to a board: exit code {int(NOTHING_TESTED)}, not proven"
            )
        elif self.untested:
            terminalreporter.write_line(f"not run: {'; '.join(self.problems)}", red=True)
