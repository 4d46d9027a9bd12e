"""The supervisor's answers to the control socket: every name is validated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.core.pool import State
from paraglider.daemon.conditions.carrier import CarrierSwitch, Switched
from paraglider.daemon.conditions.table import Condition, Conditions
from paraglider.daemon.controller.handlers import Handlers
from paraglider.daemon.controller.views import Loaded
from paraglider.daemon.inputs.reload import ReloadOutcome
from paraglider.daemon.inputs.reload_queue import Done
from paraglider.daemon.ipc import MOST_REQUESTS, Broadcasts
from paraglider.daemon.messages import (
    TO_ROLE,
    Acknowledged,
    AnnounceRequest,
    CarrierDevices,
    CarrierRequest,
    FlowList,
    FlowMatch,
    FlowsRequest,
    KilledFlows,
    KillFlows,
    KillRequest,
    ListFlows,
    Message,
    NodeRequest,
    Refusal,
    ReloadRequest,
    Result,
    SetRequest,
    ShowRequest,
    VipNews,
)
from paraglider.daemon.processes.child import Child
from paraglider.daemon.processes.spec import Spec
from paraglider.daemon.reconcile.announcing import AnnounceReconciler, VipTable
from paraglider.daemon.stats.traffic import Samples, TrafficCounters
from paraglider.daemon.store.store import Store
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
    """A controller with two workers, numbers 4 and 7, to which nothing is sent."""

    def __init__(self) -> None:
        self.store = Store(CONFIG, 0.0)
        self.started = 0.0
        self.loaded = Loaded(success=True, at=0.0)
        self.sent: list[tuple[int, int, Message]] = []
        self.requests = Broadcasts(self.send)
        self.refusal: OperatorError | None = None
        self.forced = False
        self.waiting: list[Callable[[], object]] = []
        self.conditions = Conditions()
        self.sent_vips: list[Message] = []
        self.child = Child(Spec(3), pid=1)
        self.vips = AnnounceReconciler(
            *(VipTable(self.store, self.conditions), self.assess, lambda: self.child),
            send=lambda _, message: self.sent_vips.append(message),
        )
        self.carrier = CarrierSwitch("")
        self.attaching: list[Switched] = []
        self.applying: list[Callable[[], object]] = []
        self.carrier.connect(
            lambda _, then: self.attaching.append(then), lambda _, then: self.applying.append(then)
        )

    def send(self, index: int, message: Message | bytes, number: int) -> None:
        """See ``Broadcasts``."""
        self.sent.append((index, number, TO_ROLE["worker"].validate_json(message)))

    def assess(self) -> None:
        """See ``Viewable``."""
        self.conditions.report("processes", {"http": Condition("unhealthy", "does not serve")})

    def processes(self) -> list[Child]:
        """See ``handlers.RequestController``."""
        return [Child(Spec(0))]

    def traffic(self, samples: Samples) -> TrafficCounters:
        """See ``handlers.RequestController``."""
        return TrafficCounters(samples)

    def carriers(self) -> list[int]:
        """See ``handlers.RequestController``."""
        return [4, 7]

    def when_read(self, done: Callable[[], object]) -> None:
        """See ``handlers.RequestController``."""
        done()

    def when_applied(self, done: Callable[[], object]) -> None:
        """See ``handlers.RequestController``."""
        self.waiting.append(done)

    def request_reload(self, requested_by: str, done: Done, *, force: bool = False) -> None:
        """See ``handlers.RequestController``."""
        self.forced = force
        done(
            self.refusal
            or ReloadOutcome(CONFIG, ("service web: strategy rr → wrr",), ("user takes a restart",))
        )

    def apply(self) -> None:
        """The workers have applied all changes."""
        while self.waiting:
            self.waiting.pop(0)()

    def answer(self, message: Message) -> None:
        """Both workers answer their last request."""
        for index, number, _ in self.sent[-2:]:
            self.requests.on_answer(index, number, message)


class Asked:
    """A handlers, and its replies so far."""

    def __init__(self) -> None:
        self.controller = Controller()
        self.replies: list[Message] = []
        self._handlers = Handlers(self.controller)

    def ask(self, request: Message) -> list[Message]:
        """The replies so far, after another request."""
        self._handlers.handle(request, self.replies.append)
        return self.replies


@pytest.fixture
def asked() -> Asked:
    """Handlers of the test."""
    return Asked()


def show(view: Any, service: str | None = None) -> ShowRequest:
    """A request to show something."""
    return ShowRequest(listener="control", view=view, service=service)


def flows(limit: int = 3, **match: str) -> FlowsRequest:
    """A request to list flows."""
    return FlowsRequest(listener="control", match=FlowMatch(**match), limit=limit)


def kill(everything: bool = False, **match: str) -> KillRequest:
    """A request to end flows."""
    return KillRequest(listener="control", match=FlowMatch(**match), all=everything)


def change(service: str, backend: str, **what: Any) -> SetRequest:
    """A request to change a backend."""
    return SetRequest(listener="control", service=service, backend=backend, **what)


def test_what_there_is(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """Services, backends and processes are answered at once."""
    monkeypatch.setattr("paraglider.daemon.controller.handlers.queue_status", dict)
    monkeypatch.setattr(Spec, "role", "http", raising=False)
    for view in ("services", "backends", "workers", "health"):
        asked.ask(show(view))
    values = [reply.value for reply in asked.replies if isinstance(reply, Result)]
    services, backends, workers, health = values
    assert [row["service"] for row in services] == ["web"]
    assert [row["backend"] for row in backends] == ["10.0.0.1", "10.0.0.2:8080"]
    assert [row["up"] for row in workers] == [False]
    assert (health["healthy"], health["status"]) == (False, "unhealthy")
    assert health["problems"] == ["http: does not serve"]


def test_health_of_all_of_the_balancer_and_of_a_vip(asked: Asked) -> None:
    """Each by its own words; the process that does not serve concerns all of them."""
    asked.controller.conditions.report("services", {"service web": Condition("degraded", "few")})
    for more in ({}, {"of": "node"}, {"vip": "192.0.2.1"}, {"vip": "192.0.2.1", "when": "all"}):
        asked.ask(ShowRequest(listener="control", view="health", **more))
    values = [reply.value for reply in asked.replies if isinstance(reply, Result)]
    assert [value["problems"] for value in values] == [
        ["http: does not serve", "service web: few"],
        *([["http: does not serve"]] * 3),
    ]
    assert {(value["status"], value["announce"]) for value in values} == {("unhealthy", False)}


def test_the_balancer_is_drained_and_ready_again(asked: Asked) -> None:
    """At once; the answer is its state, as it is shown."""

    def node(state: Any, **more: bool) -> Any:
        (*_, reply) = asked.ask(NodeRequest(listener="control", state=state, **more))
        (*_, shown) = asked.ask(show("node"))
        assert isinstance(reply, Result)
        assert isinstance(shown, Result)
        timeless = [{**each.value, "seconds": None} for each in (reply, shown)]
        assert timeless[0] == timeless[1]
        return reply.value["state"], reply.value["kept"]

    assert node("drain", until_restart=True) == ("drain", False)
    assert asked.controller.store.node.draining
    assert node("drain") == ("drain", False)  # there is no file
    assert node("ready") == ("ready", True)
    assert not asked.controller.store.node.draining


def test_a_client_that_asks_what_to_announce(asked: Asked) -> None:
    """Is told from the next turn on."""
    asked.controller.vips.reconcile(1.0)
    assert asked.controller.sent_vips == []
    assert asked.ask(AnnounceRequest(listener="control")) == [Result(value=None)]
    asked.controller.vips.reconcile(2.0)
    assert asked.controller.sent_vips == [VipNews(loads=1)]


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (ShowRequest(listener="control", view="health", vip="web"), "'web' is no address; give"),
        (ShowRequest(listener="control", view="health", vip="192.0.2.9"), "there are: 192.0.2.1"),
        (
            ShowRequest(listener="control", view="health", vip="192.0.2.1", of="node"),
            "of a VIP or of the balancer",
        ),
        (Acknowledged(), "no such request"),
        (show("backends", "wbe"), "no service called `wbe`; did you mean web"),
        (flows(client="here"), "no address and no network"),
        (flows(service="nosuch"), "no service called `nosuch`"),
        (kill(), "which flows are meant"),
        (change("", ""), "no service called"),
        (change("web", "10.0.0.1"), "nothing is to be set"),
    ],
)
def test_mistakes_are_answered(asked: Asked, request_: Message, words: str) -> None:
    """Once, as the operator's mistake, and no worker gets a request."""
    (reply,) = asked.ask(request_)
    assert isinstance(reply, Refusal)
    assert reply.fault == "operator"
    assert words in f"{reply.error}; {reply.remedy}"
    assert asked.controller.sent == []


@pytest.mark.parametrize(
    "what",
    [
        {"weight": -1, "state": "drain"},
        {"weight": 70_000},
        {"state": "down"},
        {"state": "nosuch", "weight": 3},
    ],
)
def test_a_change_that_is_wrong_in_part_changes_nothing(asked: Asked, what: Any) -> None:
    """Neither the state nor the weight changes."""
    (reply,) = asked.ask(change("web", "10.0.0.1", **what))
    assert isinstance(reply, Refusal)
    assert reply.fault == "operator"
    assert asked.controller.store.pools.states()["web"]["10.0.0.1"] == ("ready", 1)


def test_set_is_answered_when_the_workers_know(asked: Asked) -> None:
    """The table changes at once, the answer waits for the processes with flows."""
    what = {"state": "drain", "weight": 5}
    assert asked.ask(change("web", "10.0.0.2:8080", **what)) == []
    assert asked.controller.store.pools.find("web", "10.0.0.2:8080").state is State.DRAIN
    asked.controller.apply()
    assert asked.replies == [Result(value={"service": "web", "backend": "10.0.0.2:8080", **what})]


def test_set_in_all_services(asked: Asked) -> None:
    """The answer has each backend that was set; one mistake changes none."""
    assert asked.ask(change("*", "10.0.0.2", state="drain")) == []
    asked.controller.apply()
    row = {"service": "web", "backend": "10.0.0.2:8080", "state": "drain", "weight": 1}
    assert asked.replies == [Result(value={"backends": [row]})]
    asked.replies.clear()
    for where, what in (("10.0.0.2", {"weight": -1}), ("10.0.0.9", {"state": "ready"})):
        (reply,) = asked.ask(change("*", where, **what))
        assert isinstance(reply, Refusal)
        asked.replies.clear()
    assert asked.controller.store.pools.states()["web"]["10.0.0.2:8080"] == ("drain", 1)


def test_flows_of_all_workers(asked: Asked) -> None:
    """One list, limited to the requested length; an invalid answer of a worker adds nothing."""
    asked.ask(flows(backend="10.0.0.1"))
    match = FlowMatch(backend="10.0.0.1")
    assert asked.controller.sent[0][2] == ListFlows(match=match, limit=3)
    asked.controller.answer(FlowList(flows=({"n": 1}, {"n": 2}), more=False))
    asked.ask(flows())
    asked.controller.answer(Acknowledged())
    assert asked.replies == [
        Result(value={"flows": [{"n": 1}, {"n": 2}, {"n": 1}], "more": True}),
        Result(value={"flows": [], "more": False}),
    ]


def test_the_killed_are_added_up(asked: Asked) -> None:
    """Over all workers that answered."""
    asked.ask(kill(everything=True))
    assert asked.controller.sent[0][2] == KillFlows(match=FlowMatch())
    asked.controller.answer(KilledFlows(killed=4))
    asked.ask(kill(service="web"))
    asked.controller.answer(Acknowledged())
    assert asked.replies == [Result(value={"killed": 8}), Result(value={"killed": 0})]


def test_reload(asked: Asked) -> None:
    """The changes and those that need a restart, as text; for an invalid file its lines."""
    assert asked.ask(ReloadRequest(listener="control")) == []
    asked.controller.apply()
    words = {"changed": ["service web: strategy rr → wrr"], "restart": ["user takes a restart"]}
    assert asked.replies == [Result(value=words)]
    asked.controller.refusal = OperatorError("no", "do so")
    refused = asked.ask(ReloadRequest(listener="control"))[1]
    assert refused == Refusal(error="no", remedy="do so", fault="operator")


def test_the_carrier_is_switched_and_then_shown(asked: Asked) -> None:
    """The answer is what carries then; a refusal of the host is passed on."""
    off, on = (CarrierRequest(listener="control", state=state) for state in ("off", "on"))
    assert asked.ask(off) == []
    asked.controller.attaching.pop()(CarrierDevices(devices=()))
    assert asked.replies == []  # the workers have not applied it
    asked.controller.applying.pop()()
    (reply,) = asked.replies
    assert isinstance(reply, Result)
    assert (reply.value["carrier"], reply.value["on"]) == ("worker", False)
    assert reply == asked.ask(show("carrier"))[1]
    asked.ask(on)
    asked.controller.attaching.pop()(PlatformError("no such device"))
    assert asked.replies[2] == Refusal(error="no such device", fault="platform")
    asked.controller.carrier = CarrierSwitch("no libbpf")
    refused = asked.ask(on)[3]
    assert isinstance(refused, Refusal)
    assert (refused.fault, refused.error) == ("operator", "BPF carries no flow here: no libbpf")


def test_flows_end_only_with_force(asked: Asked) -> None:
    """`force` is false by default."""
    for force in (True, False):
        asked.ask(ReloadRequest(listener="control", force=force))
        assert asked.controller.forced is force
    assert ReloadRequest(listener="control").force is False


def test_too_much_at_a_time(asked: Asked) -> None:
    """A request above the limit is refused as the platform's fault, and the others continue."""
    for _ in range(MOST_REQUESTS):
        asked.ask(kill(everything=True))
    (reply,) = asked.ask(kill(everything=True))
    assert isinstance(reply, Refusal)
    assert (reply.fault, reply.error) == ("platform", "too many requests at a time")
    asked.controller.answer(KilledFlows(killed=1))
    assert asked.replies[1:] == [Result(value={"killed": 2})]
