"""Who gets which tests: a board's go to one worker, which has one board at a time; boards that are held come last."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

from harness.rack.layout import Layout
from harness.rack.scheduler import BoardScheduling


class FakeWorker:
    """A worker of pytest-xdist as the scheduler sees it."""

    def __init__(self, name: str) -> None:
        self.gateway = SimpleNamespace(id=name)
        self.shutting_down = False
        self.queue: list[int] = []

    def send_runtest_some(self, indices: Sequence[int]) -> None:
        assert not self.shutting_down
        self.queue += indices

    def shutdown(self) -> None:
        self.shutting_down = True


class Run:
    """Two boards of three tests each, `a` (0, 1, 2) and `b` (3, 4, 5), and `free` tests of none; 99 stands between."""

    def __init__(
        self, workers: int, *, free: int = 0, lease_wait_s: float = 60.0, boards: bool = True
    ) -> None:
        self.held: set[str] = set()
        units = {"a": [0, 1, 2], "b": [3, 4, 5]} if boards else {}
        self.ids = [f"test_{number}" for number in range(sum(map(len, units.values())) + free)]
        self.between = len(self.ids)
        layout = Layout(units, list(units))
        self.scheduling = BoardScheduling(
            SimpleNamespace(),  # type: ignore[arg-type]
            workers,
            layout=lambda: layout,
            is_held=self.held.__contains__,
            lease_wait_s=lease_wait_s,
        )
        self.workers = [self.new_worker(f"gw{number}") for number in range(workers)]

    def new_worker(self, name: str) -> FakeWorker:
        worker = FakeWorker(name)
        self.scheduling.add_node(worker)
        return worker

    def start(self, *workers: FakeWorker) -> None:
        for worker in workers or self.workers:
            self.scheduling.add_node_collection(worker, self.ids)
        self.scheduling.schedule()

    def end(self, worker: FakeWorker, *tests: int) -> None:
        """The worker ends `tests`, which are the next that it was sent."""
        for test in tests:
            assert worker.queue.pop(0) == test
            self.scheduling.mark_test_complete(worker, test)

    def give_back(self, worker: FakeWorker) -> None:
        """The worker finds the board of its next test taken."""
        self.scheduling.remove_pending_tests_from_node(worker, worker.queue[:1])
        while worker.queue[0] != self.between:
            self.end(worker, worker.queue[0])

    def pass_between(self, worker: FakeWorker) -> None:
        assert worker.queue[0] == self.between
        self.end(worker, self.between)


def test_each_board_goes_to_one_worker_and_tests_of_none_fill_the_gaps() -> None:
    run = Run(2, free=4)
    run.start()
    first, second = run.workers
    assert first.queue == [0, 1, 2, run.between]
    assert second.queue == [3, 4, 5, run.between]
    run.end(first, 0, 1)
    assert first.queue == [2, run.between], "nothing is sent before the board is done with"
    run.end(first, 2)
    assert first.queue == [run.between, 6, 7, 8]
    run.pass_between(first)
    run.end(first, 6, 7)
    run.end(second, 3, 4, 5)
    run.end(first, 8)
    assert first.shutting_down
    assert second.shutting_down
    run.end(first, 9)
    run.pass_between(second)
    assert run.scheduling.tests_finished


def test_one_worker_takes_one_board_after_the_other() -> None:
    run = Run(1)
    run.start()
    (worker,) = run.workers
    run.end(worker, 0, 1, 2)
    assert worker.queue == [run.between, 3, 4, 5, run.between]
    assert not run.scheduling.tests_finished
    run.pass_between(worker)
    run.end(worker, 3, 4, 5)
    assert worker.shutting_down
    assert run.scheduling.tests_finished


def test_a_run_without_boards_is_given_out_many_tests_at_a_time_and_fewer_towards_its_end() -> None:
    run = Run(2, free=80, boards=False)
    run.start()
    first, second = run.workers
    assert (len(first.queue), len(second.queue)) == (10, 8)
    sent = 0
    while not run.scheduling.tests_finished:
        worker = max(run.workers, key=lambda each: len(each.queue))
        before = len(worker.queue)
        run.end(worker, worker.queue[0])
        sent += len(worker.queue) >= before
    for worker in run.workers:
        run.end(worker, *worker.queue)
    assert sent < 30, "a message for nearly every test"
    assert not run.scheduling.has_pending


def test_workers_without_work_are_sent_home() -> None:
    run = Run(4)
    run.start()
    assert [worker.shutting_down for worker in run.workers] == [False, False, True, True]
    assert run.scheduling.nodes == run.workers[:2]


def test_a_board_that_somebody_holds_is_passed_over_and_taken_once_it_is_free() -> None:
    run = Run(1)
    run.held.add("a")
    run.start()
    (worker,) = run.workers
    assert worker.queue[0] == 3
    run.held.clear()
    run.end(worker, 3, 4, 5)
    run.pass_between(worker)
    assert worker.queue[0] == 0


def test_a_board_that_is_given_back_goes_to_the_end_and_loses_no_test() -> None:
    run = Run(1)
    run.start()
    (worker,) = run.workers
    run.give_back(worker)
    run.pass_between(worker)
    assert worker.queue == [3, 4, 5, run.between]
    run.end(worker, 3, 4, 5)
    run.pass_between(worker)
    assert worker.queue == [0, 1, 2, run.between]
    run.end(worker, 0)
    run.give_back(worker)
    run.pass_between(worker)
    assert worker.queue == [1, 2, run.between], "what has run is not run again"


def test_two_boards_that_are_held_are_waited_for_in_turn() -> None:
    run = Run(1)
    run.held |= {"a", "b"}
    run.start()
    (worker,) = run.workers
    for first in (0, 3, 0, 3):
        assert worker.queue[0] == first
        run.give_back(worker)
        run.pass_between(worker)


def test_a_board_that_is_waited_for_in_vain_gets_a_last_try() -> None:
    run = Run(1, lease_wait_s=0.0)
    run.held.add("a")
    run.start()
    (worker,) = run.workers
    run.end(worker, 3, 4, 5)
    run.pass_between(worker)
    run.give_back(worker)
    run.pass_between(worker)
    assert worker.queue == [run.between, run.between, 0, 1, 2, run.between]
    run.pass_between(worker)
    run.pass_between(worker)
    run.end(worker, 0, 1, 2)
    assert worker.shutting_down
    assert run.scheduling.tests_finished


def test_what_a_dead_worker_had_goes_on_in_another_but_for_the_test_that_it_died_in() -> None:
    run = Run(1)
    run.start()
    (worker,) = run.workers
    run.end(worker, 0)
    assert run.scheduling.remove_node(worker) == "test_1"
    assert not run.scheduling.tests_finished
    clone = run.new_worker("gw1")
    run.start(clone)
    assert clone.queue == [2, run.between]
    run.end(clone, 2)
    run.pass_between(clone)
    assert clone.queue == [3, 4, 5, run.between]


def test_a_worker_that_dies_between_two_boards_takes_no_test_with_it() -> None:
    run = Run(2)
    run.start()
    first, second = run.workers
    run.end(first, 0, 1, 2)
    assert first.shutting_down
    assert run.scheduling.remove_node(first) is None
    assert run.scheduling.remove_node(second) == "test_3"


def test_a_worker_that_dies_among_tests_of_no_board_leaves_them_in_order() -> None:
    run = Run(3, free=5)
    run.start()
    third = run.workers[2]
    assert third.queue == [6, 7, 8]
    assert run.scheduling.remove_node(third) == "test_6"
    clone = run.new_worker("gw3")
    run.start(clone)
    assert clone.queue == [7, 8, 9]


def test_a_replacement_that_collects_something_else_gets_nothing() -> None:
    run = Run(2)
    run.start()
    run.scheduling.remove_node(run.workers[0])
    clone = run.new_worker("gw2")
    run.scheduling.add_node_collection(clone, ["another"])
    run.scheduling.schedule()
    assert clone.queue == []
