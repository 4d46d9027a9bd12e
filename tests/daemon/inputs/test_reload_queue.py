"""ReloadQueue: one after the other, and everybody hears what became of his."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog

from paraglider.config.model import Config
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
        self.endings: list[tuple[int, bool]] = []
        self.reloads = ReloadQueue(self)
        self.said: list[Any] = []

    def read(self) -> Any:
        """The next file."""
        file = self.files.pop(0)
        if isinstance(file, ParagliderError):
            raise file
        return file

    def flows_of(self, service: str) -> int:
        """As many as were asked for so far."""
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
        """Take it over, if the host is ready."""
        self.endings.append((ending.flows("web"), ending.force))
        if self.adjusting:
            raise HostPendingError
        if self.refusal is not None:
            raise self.refusal
        self.taken.append(found)
        return ReloadOutcome(CONFIG, (str(found),), ())

    def ask(self) -> None:
        """Somebody asks; what he is told is in ``said``."""
        self.reloads.ask("somebody", self.said.append)

    def words(self) -> list[Any]:
        """What everybody was told, in turn."""
        return [x.what if isinstance(x, ParagliderError) else x.words[0] for x in self.said]


def test_at_once() -> None:
    """Where the host need not be changed."""
    controller = Controller()
    controller.files = ["one", OperatorError("line 3"), "two"]
    for _ in range(3):
        controller.ask()
    assert controller.words() == ["one", "line 3", "two"]


def test_the_second_waits_for_the_first() -> None:
    """Its file is read when its turn comes, that of the first only once."""
    controller = Controller()
    controller.adjusting = True
    controller.files = ["one", "two"]
    controller.ask()
    controller.ask()
    controller.reloads.go_on()
    assert controller.words() == []
    assert controller.files == ["two"]
    controller.adjusting = False
    controller.reloads.go_on()
    assert controller.words() == controller.taken == ["one", "two"]
    controller.reloads.go_on()
    assert controller.taken == ["one", "two"]


def test_flows_are_counted_once() -> None:
    """Who has to wait for the host goes on with the numbers by which it was changed."""
    controller = Controller()
    controller.adjusting = True
    controller.files = ["one", "two"]
    controller.reloads.ask("somebody", controller.said.append, force=True)
    controller.ask()
    controller.adjusting = False
    controller.reloads.go_on()
    assert controller.endings == [(1, True), (1, True), (2, False)]


def test_flows_are_counted_anew() -> None:
    """A reload that asks for them waits until the workers have written them, and the next one for
    its own.
    """
    controller = Controller()
    controller.counting = True
    controller.files = ["one", "two"]
    controller.ask()
    controller.ask()
    for name in ("one", "two"):
        controller.reloads.go_on()
        assert name not in controller.words()
        controller.reported()
        controller.reloads.go_on()
        assert controller.words()[-1] == name
    assert controller.endings == [(1, False), (2, False)]


def test_what_the_host_refuses() -> None:
    """Is said to the one who asked, and the next one has his turn."""
    controller = Controller()
    controller.adjusting = True
    controller.files = ["one", "two"]
    controller.ask()
    controller.adjusting = False
    controller.refusal = PlatformError("no room")
    controller.reloads.go_on()
    controller.refusal = None
    controller.ask()
    assert controller.words() == ["no room", "two"]


def test_not_too_many_wait() -> None:
    """Who is one too many is told so."""
    controller = Controller()
    controller.adjusting = True
    controller.files = ["one"]
    for _ in range(MOST + 1):
        controller.ask()
    assert controller.words() == ["too many reloads at a time"]


def test_when_nobody_hears_but_the_log() -> None:
    """A mistake and a file that changes nothing are logged; the end is told."""
    controller, ends = Controller(), list[int]()
    controller.files = [OperatorError("line 3"), "one"]
    with structlog.testing.capture_logs() as logged:
        controller.reloads.attempt("SIGHUP", lambda: ends.append(1))
        controller.adjusting = True
        controller.reloads.attempt("SIGHUP", lambda: ends.append(2))
        assert ends == [1]
        controller.adjusting = False
        controller.reloads.go_on()
    assert ends == [1, 2]
    assert [line["event"] for line in logged] == ["configuration not reloaded, nothing changed"]
