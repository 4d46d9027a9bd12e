"""ReloadQueue: one reload after the other, each with its own answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog

from paraglider.config.model import Config
from paraglider.config.steps import Steps
from paraglider.daemon.inputs.reload import FlowLoss, ReloadOutcome
from paraglider.daemon.inputs.reload_queue import MOST, NONE_ENDS, ReloadQueue
from paraglider.daemon.reconcile.host import HostPendingError
from paraglider.errors import OperatorError, ParagliderError, PlatformError

CONFIG = Config.model_construct(services=())


class Controller:
    """A controller whose host may have to be changed first."""

    def __init__(self) -> None:
        self.files: list[Any] = []
        self.adjusting = self.counting = False
        self.reported: Callable[[], object] = lambda: None
        self.refusal: ParagliderError | None = None
        self.taken: list[Any] = []
        self.flows = 0
        self.steps = 1
        self.endings: list[tuple[int, bool]] = []
        self.reloads = ReloadQueue(self)
        self.said: list[Any] = []

    def read(self) -> Steps[Any]:
        """The next file, in ``steps``."""
        for _ in range(self.steps - 1):
            yield
        file = self.files.pop(0)
        if isinstance(file, ParagliderError):
            raise file
        return file

    def flows_of(self, service: str) -> int:
        """The number of calls so far."""
        self.flows += 1
        return self.flows

    def report(self, then: Callable[[], object]) -> None:
        """At once, or when ``reported`` is called."""
        if self.counting:
            self.reported = then
        else:
            then()

    def reload(
        self, requested_by: str, found: Any = None, ending: FlowLoss = NONE_ENDS
    ) -> ReloadOutcome:
        """Apply it, if the host is ready."""
        self.endings.append((ending.flows("web"), ending.force))
        if self.adjusting:
            raise HostPendingError
        if self.refusal is not None:
            raise self.refusal
        self.taken.append(found)
        return ReloadOutcome(CONFIG, (str(found),), ())

    def ask(self) -> None:
        """Request a reload; its answer is appended to ``said``."""
        self.reloads.request("somebody", self.said.append)

    def words(self) -> list[Any]:
        """All answers, in order."""
        return [x.what if isinstance(x, ParagliderError) else x.words[0] for x in self.said]


def test_at_once() -> None:
    """If the host need not be changed."""
    controller = Controller()
    controller.files = ["one", OperatorError("line 3"), "two"]
    for _ in range(3):
        controller.ask()
    assert controller.words() == ["one", "line 3", "two"]


def test_a_file_is_read_in_steps() -> None:
    """Each takes one call, and the queue says that there are more; then the next file has its
    turn.
    """
    controller = Controller()
    controller.steps = 3
    controller.files = ["one", OperatorError("line 3")]
    controller.ask()
    controller.ask()
    calls = 0
    while controller.reloads.reading:
        assert len(controller.words()) == (calls >= 2)
        controller.reloads.advance()
        calls += 1
    assert controller.words() == ["one", "line 3"]
    assert calls == 4  # beside the first, of the request; the next file begins with the last


def test_the_second_waits_for_the_first() -> None:
    """Its file is read when its turn comes, that of the first only once."""
    controller = Controller()
    controller.adjusting = True
    controller.files = ["one", "two"]
    controller.ask()
    controller.ask()
    controller.reloads.advance()
    assert controller.words() == []
    assert controller.files == ["two"]
    controller.adjusting = False
    controller.reloads.advance()
    assert controller.words() == controller.taken == ["one", "two"]
    controller.reloads.advance()
    assert controller.taken == ["one", "two"]


def test_flows_are_counted_once() -> None:
    """A reload that waits for the host uses the numbers by which the host was changed."""
    controller = Controller()
    controller.adjusting = True
    controller.files = ["one", "two"]
    controller.reloads.request("somebody", controller.said.append, force=True)
    controller.ask()
    controller.adjusting = False
    controller.reloads.advance()
    assert controller.endings == [(1, True), (1, True), (2, False)]


def test_flows_are_counted_for_each_reload() -> None:
    """A reload waits until the workers have written their counts, and the next one for its own."""
    controller = Controller()
    controller.counting = True
    controller.files = ["one", "two"]
    controller.ask()
    controller.ask()
    for name in ("one", "two"):
        controller.reloads.advance()
        assert name not in controller.words()
        controller.reported()
        controller.reloads.advance()
        assert controller.words()[-1] == name
    assert controller.endings == [(1, False), (2, False)]


def test_what_the_host_refuses() -> None:
    """The requester gets the error, and the next reload runs."""
    controller = Controller()
    controller.adjusting = True
    controller.files = ["one", "two"]
    controller.ask()
    controller.adjusting = False
    controller.refusal = PlatformError("no room")
    controller.reloads.advance()
    controller.refusal = None
    controller.ask()
    assert controller.words() == ["no room", "two"]


def test_not_too_many_wait() -> None:
    """A request above the limit is refused."""
    controller = Controller()
    controller.adjusting = True
    controller.files = ["one"]
    for _ in range(MOST + 1):
        controller.ask()
    assert controller.words() == ["too many reloads at a time"]


def test_signals_in_a_storm_are_one_reload() -> None:
    """While the host is changed for one, all that arrive are one more, which reads the file when
    they have arrived; each is told when it is over, and requests find room meanwhile.
    """
    controller, ends = Controller(), list[int]()
    controller.files = ["one", "two", "three", "four"]
    controller.adjusting = True
    for number in range(1000):
        controller.reloads.attempt("SIGHUP", lambda number=number: ends.append(number))
        controller.reloads.attempt("watch")
    controller.ask()
    assert (ends, controller.said, len(controller.files)) == ([], [], 3)
    controller.adjusting = False
    controller.reloads.advance()
    assert controller.taken == ["one", "two", "three", "four"]
    assert ends == [0, *range(1, 1000)]
    assert controller.words() == ["four"]


def test_a_signal_while_a_file_is_read_has_it_read_again() -> None:
    """The file may have changed since the first part of it was read."""
    controller, ends = Controller(), list[int]()
    controller.files, controller.steps = ["one", "two"], 2
    controller.reloads.attempt("SIGHUP", lambda: ends.append(1))
    assert controller.reloads.reading
    for number in (2, 3):
        controller.reloads.attempt("SIGHUP", lambda number=number: ends.append(number))
    for _ in range(4):
        controller.reloads.advance()
    assert (controller.taken, ends) == (["one", "two"], [1, 2, 3])


def test_a_reload_without_a_requester_is_logged() -> None:
    """Without a requester, mistakes and unchanged files are logged, and the end too."""
    controller, ends = Controller(), list[int]()
    controller.files = [OperatorError("line 3"), "one"]
    with structlog.testing.capture_logs() as logged:
        controller.reloads.attempt("SIGHUP", lambda: ends.append(1))
        controller.adjusting = True
        controller.reloads.attempt("SIGHUP", lambda: ends.append(2))
        assert ends == [1]
        controller.adjusting = False
        controller.reloads.advance()
    assert ends == [1, 2]
    assert [line["event"] for line in logged] == ["configuration not reloaded, nothing changed"]
