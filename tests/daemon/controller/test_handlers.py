"""The hub's answers to the control socket: every value is looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from paraglider.config.diagnostics import ConfigError
from paraglider.config.model import Config
from paraglider.core.pool import Event, State
from paraglider.daemon.conditions.table import Condition, Conditions
from paraglider.daemon.controller.handlers import HANDLERS, Handlers, refusal
from paraglider.daemon.controller.views import Loaded
from paraglider.daemon.inputs.reload import ReloadOutcome
from paraglider.daemon.inputs.reload_queue import Done
from paraglider.daemon.processes.broadcast import MOST, Broadcasts
from paraglider.daemon.processes.child import Child
from paraglider.daemon.processes.spec import Spec
from paraglider.daemon.stats.traffic import Samples, Traffic
from paraglider.daemon.store.backends import BackendRecord, BackendTable
from paraglider.errors import OperatorError, PlatformError

CONFIG = Config.model_validate(
    {
        "services": [
            {
                "name": "web",
                "vip": "192.0.2.1/24",
                "protocol": "tcp",
                "ports": 80,
                "backends": ["10.0.0.1", {"address": "10.0.0.2", "port": 8080}],
            }
        ]
    }
)


class Controller:
    """What the desk needs of one: two workers, numbers 4 and 7, to which nothing is sent."""

    def __init__(self) -> None:
        self.config = CONFIG
        self.pools = BackendTable(CONFIG, 0.0)
        self.started = 0.0
        self.loaded = Loaded(success=True, at=0.0)
        self.sent: list[tuple[int, dict[str, Any]]] = []
        self.questions = Broadcasts(lambda index, message: self.sent.append((index, message)))
        self.refusal: OperatorError | None = None
        self.forced = False
        self.waiting: list[Callable[[], object]] = []
        self.conditions = Conditions()

    def assess(self) -> None:
        """See ``Viewable``."""
        self.conditions.put("processes", {"api": Condition("unhealthy", "does not serve")})

    def processes(self) -> list[Child]:
        """See ``desk.State``."""
        return [Child(Spec(0))]

    def traffic(self, samples: Samples) -> Traffic:
        """See ``desk.State``."""
        return Traffic(samples)

    def carriers(self) -> list[int]:
        """See ``desk.State``."""
        return [4, 7]

    def move(self, member: BackendRecord, event: Event, why: str) -> None:
        """See ``desk.State``."""
        self.pools.apply(member, event, why, 1.0)

    def weigh(self, member: BackendRecord, weight: int) -> None:
        """See ``desk.State``."""
        self.pools.set_weight(member, weight)

    def when_read(self, done: Callable[[], object]) -> None:
        """See ``handlers.State``."""
        done()

    def when_applied(self, done: Callable[[], object]) -> None:
        """See ``handlers.State``."""
        self.waiting.append(done)

    def ask_reload(self, said_by: str, done: Done, *, force: bool = False) -> None:
        """See ``desk.State``."""
        self.forced = force
        done(
            self.refusal
            or ReloadOutcome(CONFIG, ("service web: strategy rr → wrr",), ("user takes a restart",))
        )

    def apply(self) -> None:
        """The workers have applied all changes."""
        while self.waiting:
            self.waiting.pop(0)()

    def answer(self, **answers: Any) -> None:
        """Both workers answer what they were asked last."""
        for index, message in self.sent[-2:]:
            self.questions.answer(index, {"re": message["id"], **answers})


class Asked:
    """A desk, and its replies so far."""

    def __init__(self) -> None:
        self.hub = Controller()
        self.replies: list[dict[str, Any]] = []
        self._desk = Handlers(self.hub)

    def ask(self, **request: Any) -> list[dict[str, Any]]:
        """The replies so far, after another request."""
        self._desk.take(request, self.replies.append)
        return self.replies


@pytest.fixture
def asked() -> Asked:
    """A desk of its own."""
    return Asked()


def test_what_there_is(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """Services, backends and processes are answered at once."""
    monkeypatch.setattr("paraglider.daemon.controller.handlers.queue_status", dict)
    monkeypatch.setattr(Spec, "role", "api", raising=False)
    for do in ("services", "backends", "workers", "health"):
        asked.ask(do=do)
    services, backends, workers, health = (reply["ok"] for reply in asked.replies)
    assert [row["service"] for row in services] == ["web"]
    assert [row["backend"] for row in backends] == ["10.0.0.1", "10.0.0.2:8080"]
    assert [row["up"] for row in workers] == [False]
    assert (health["healthy"], health["status"]) == (False, "unhealthy")
    assert health["problems"] == ["api: does not serve"]


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({}, "no such request"),
        ({"do": "nosuch"}, "no such request"),
        ({"do": ["set"]}, "no such request"),
        ({"do": {}}, "no such request"),
        ({"do": "backends", "service": "wbe"}, "no service called `wbe`; did you mean web"),
        ({"do": "backends", "service": 5}, "`service` is no text"),
        ({"do": "flows", "limit": 0}, "limit 0 is none; write 1 to 1000"),
        ({"do": "flows", "limit": "5"}, "limit '5' is none"),
        ({"do": "flows", "limit": [1]}, "limit"),
        ({"do": "flows", "client": "here"}, "no address and no network"),
        ({"do": "flows", "client": ["192.0.2.1"]}, "`client` is no text"),
        ({"do": "flows", "service": "nosuch"}, "no service called `nosuch`"),
        ({"do": "kill"}, "which flows are meant"),
        ({"do": "kill", "all": "yes"}, "which flows are meant"),
        ({"do": "set"}, "no service called"),
        ({"do": "set", "service": {}, "backend": "10.0.0.1"}, "`service` is no text"),
        ({"do": "set", "service": "web", "backend": "10.0.0.1"}, "nothing is to be set"),
    ],
)
def test_what_is_wrong_is_told(asked: Asked, request_: dict[str, Any], words: str) -> None:
    """Once, as the operator's mistake, and no worker hears of it."""
    (reply,) = asked.ask(**request_)
    assert reply["fault"] == "operator"
    assert words in f"{reply['error']}; {reply['remedy']}"
    assert asked.hub.sent == []


@pytest.mark.parametrize(
    "change",
    [
        {"weight": -1, "state": "drain"},
        {"weight": 70_000},
        {"weight": 1.5},
        {"weight": True},
        {"weight": "3"},
        {"state": "down"},
        {"state": ["drain"]},
        {"state": "nosuch", "weight": 3},
    ],
)
def test_a_change_that_is_wrong_in_part_changes_nothing(asked: Asked, change: Any) -> None:
    """Neither the state nor the weight."""
    (reply,) = asked.ask(do="set", service="web", backend="10.0.0.1", **change)
    assert reply["fault"] == "operator"
    assert asked.hub.pools.states()["web"]["10.0.0.1"] == ("ready", 1)


def test_set_is_answered_when_the_workers_know(asked: Asked) -> None:
    """The table changes at once, the answer waits for those who carry flows."""
    change = {"state": "drain", "weight": 5}
    assert asked.ask(do="set", service="web", backend="10.0.0.2:8080", **change) == []
    assert asked.hub.pools.find("web", "10.0.0.2:8080").state is State.DRAIN
    asked.hub.apply()
    assert asked.replies == [{"ok": {"service": "web", "backend": "10.0.0.2:8080", **change}}]


def test_flows_of_all_workers(asked: Asked) -> None:
    """One list, no longer than was asked for; a worker that answers nonsense adds nothing."""
    asked.ask(do="flows", limit=3, backend="10.0.0.1")
    assert asked.hub.sent[0][1]["match"] == {"backend": "10.0.0.1"}
    asked.hub.answer(flows=[{"n": 1}, {"n": 2}], more=False)
    asked.ask(do="flows", limit=3)
    asked.hub.answer(flows="none", more=False)
    assert asked.replies == [
        {"ok": {"flows": [{"n": 1}, {"n": 2}, {"n": 1}], "more": True}},
        {"ok": {"flows": [], "more": False}},
    ]


def test_the_killed_are_added_up(asked: Asked) -> None:
    """Over all workers that answered, as numbers and nothing else."""
    asked.ask(do="kill", all=True)
    asked.hub.answer(killed=4)
    asked.ask(do="kill", service="web")
    asked.hub.answer(killed="many")
    assert asked.replies == [{"ok": {"killed": 8}}, {"ok": {"killed": 0}}]


def test_reload(asked: Asked) -> None:
    """What changed and what takes a restart, in words; a bad file's lines where it is bad."""
    assert asked.ask(do="reload") == []
    asked.hub.apply()
    words = {"changed": ["service web: strategy rr → wrr"], "restart": ["user takes a restart"]}
    assert asked.replies == [{"ok": words}]
    asked.hub.refusal = OperatorError("no", "do so")
    assert asked.ask(do="reload")[1] == {"error": "no", "remedy": "do so", "fault": "operator"}


def test_only_who_says_so_has_flows_end(asked: Asked) -> None:
    """`force` is true or false, and false where nothing is said."""
    for words, forced in (({}, False), ({"force": True}, True), ({"force": False}, False)):
        asked.ask(do="reload", **words)
        assert asked.hub.forced is forced
    assert "force" in asked.ask(do="reload", force="yes")[-1]["error"]


def test_too_much_at_a_time(asked: Asked) -> None:
    """The request that is too many is told so, as the platform's fault, and the rest goes on."""
    for _ in range(MOST):
        asked.ask(do="kill", all=True)
    (reply,) = asked.ask(do="kill", all=True)
    assert (reply["fault"], reply["error"]) == ("platform", "too many questions at a time")
    asked.hub.answer(killed=1)
    assert asked.replies[1:] == [{"ok": {"killed": 2}}]


def test_whose_fault_it_was() -> None:
    """The status that a client gets goes by it."""
    assert refusal(PlatformError("a", "b")) == {"error": "a", "remedy": "b", "fault": "platform"}
    assert refusal(OperatorError("a"))["fault"] == "operator"
    assert issubclass(ConfigError, OperatorError)


def test_every_request_is_the_desks() -> None:
    """What may be asked is this list and nothing else."""
    wanted = {"services", "backends", "workers", "health", "status"}
    assert set(HANDLERS) == wanted | {"flows", "kill", "set", "reload"}
