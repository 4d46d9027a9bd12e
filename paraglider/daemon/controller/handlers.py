"""The supervisor's answers to the control socket (``messages.FromHttp``).

    show      services, backends, processes, health, or all of it at one instant
    flows     live flows, listed by the processes that carry them
    kill      end flows
    set       set a backend's state or weight
    carrier   have BPF carry flows, or the workers alone
    node      drain this balancer, or end that
    announce  tell which VIPs to announce, from now on
    reload    reload the configuration file

Lives here: ``Handlers``, which replies to each request once: immediately, or when the processes
involved have answered.
Rules: the process that sends the requests has no privileges and is not trusted: names are validated
here. A reply is a ``Result`` or a ``Refusal``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any, Final, Protocol

from paraglider.config.wording import did_you_mean
from paraglider.daemon.conditions.health import of_all, of_node, of_vip
from paraglider.daemon.controller import views
from paraglider.daemon.controller.views import Instant, Viewable
from paraglider.daemon.inputs.reload import ReloadOutcome
from paraglider.daemon.inputs.reload_queue import Done
from paraglider.daemon.ipc import Answers, Broadcasts
from paraglider.daemon.messages import (
    AnnounceRequest,
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
)
from paraglider.daemon.processes.faults import Faults
from paraglider.daemon.stats.traffic import Samples, samples
from paraglider.daemon.store.backends import SETTABLE
from paraglider.errors import OperatorError, ParagliderError, PlatformError
from paraglider.forward.flows import Match
from paraglider.netfilter.queue.proc import QueueStatus, queue_status

Reply = Callable[[Message], None]

#: in place of a service's name: all services
EVERY: Final = "*"
#: deadline, in seconds, of requests that walk over all flows
LONG: Final = 15.0


class RequestController(Viewable, Protocol):
    """What the handlers need of the controller: what can be shown and changed."""

    requests: Broadcasts

    def carriers(self) -> list[int]:
        """The numbers of the running processes that carry flows."""

    def when_read(self, done: Callable[[], object]) -> None:
        """Call ``done`` when the kernel's counters are recent."""

    def when_applied(self, done: Callable[[], object]) -> None:
        """Call ``done`` when the workers have applied all changes so far."""

    def request_reload(self, requested_by: str, done: Done, *, force: bool = False) -> None:
        """Reload the file; ``force``: even if that ends live flows. ``done`` is called with the
        changes, or with the reason why there are none.
        """


class Handlers:
    """Handles the requests to ``controller``."""

    def __init__(self, controller: RequestController) -> None:
        self._controller = controller
        self._faults = Faults()

    def handle(self, request: Message, reply: Reply) -> None:
        """Answer ``request`` by calling ``reply`` once, now or later."""

        def handle() -> None:
            if isinstance(request, ShowRequest):
                self._show(request, reply)
            elif isinstance(request, FlowsRequest):
                self._flows(request, reply)
            elif isinstance(request, KillRequest):
                self._kill(request, reply)
            elif isinstance(request, SetRequest):
                self._set(request, reply)
            elif isinstance(request, ReloadRequest):
                self._reload(request, reply)
            elif isinstance(request, CarrierRequest):
                self._carrier(request, reply)
            elif isinstance(request, NodeRequest):
                self._node(request, reply)
            elif isinstance(request, AnnounceRequest):
                self._controller.vips.subscribe()
                reply(Result(value=None))
            else:
                raise OperatorError("there is no such request")

        self._try(handle, reply)

    def _try(self, step: Callable[[], object], reply: Reply) -> None:
        """Run ``step``; reply with the error if it fails."""
        try:
            step()
        except ParagliderError as error:
            reply(Refusal.of(error))
        except Exception as error:  # noqa: BLE001 - every request gets an answer
            self._faults.note("a request", error)
            reply(Refusal.of(PlatformError("internal error", "the log has its traceback")))

    def _show(self, request: ShowRequest, reply: Reply) -> None:
        """Show what is requested; the kernel's counters are read first if they are too old."""
        if request.service is not None:
            self._controller.store.pools.require(request.service)

        def show() -> None:
            reply(Result(value=self._view(request)))

        if request.view in ("workers", "health", "node"):
            show()
        else:
            self._controller.when_read(lambda: self._try(show, reply))

    def _view(self, request: ShowRequest) -> Any:
        controller = self._controller
        store = controller.store
        if request.view == "services":
            traffic = controller.traffic(self._samples())
            return views.services(store.config, store.pools, traffic, controller.carrier)
        if request.view == "backends":
            rows = views.backends(
                store.config, store.pools, controller.traffic(self._samples()), _now()
            )
            return [row for row in rows if request.service in (None, row["service"])]
        if request.view == "workers":
            children = controller.processes()
            return views.processes(
                children, self._samples(), _queues(), _now(), switch=controller.carrier
            )
        if request.view == "carrier":
            return views.carrier(controller, self._samples())
        if request.view == "health":
            return self._health(request)
        if request.view == "node":
            return views.node(store.node, _now())
        return views.status(controller, self._samples(), _queues(), _now())

    def _health(self, request: ShowRequest) -> Any:
        """The health that is requested; raises ``OperatorError``."""
        controller, at = self._controller, _now()
        parts = controller.conditions, controller.store
        controller.assess()
        if request.vip is None:
            return views.health((of_all if request.of is None else of_node)(*parts), at)
        if request.of is not None:
            raise OperatorError("health of a VIP or of the balancer?", "ask for one of them")
        try:
            vip = ip_address(request.vip)
        except ValueError:
            raise OperatorError(f"{request.vip!r} is no address", "give that of a VIP") from None
        return views.health(of_vip(*parts, vip, request.when, at.now), at)

    def _flows(self, request: FlowsRequest, reply: Reply) -> None:
        """List flows of all processes that carry flows."""
        limit = request.limit

        def done(answers: Answers) -> None:
            lists = [answer for answer in answers.values() if isinstance(answer, FlowList)]
            found = [flow for each in lists for flow in each.flows]
            more = any(each.more for each in lists) or len(found) > limit
            reply(Result(value={"flows": found[:limit], "more": more}))

        match = FlowMatch.of(self._match(request))
        self._walk(ListFlows(match=match, limit=limit), done)

    def _kill(self, request: KillRequest, reply: Reply) -> None:
        """End flows; all of them only with ``all``."""
        match = self._match(request)
        if match == Match() and not request.all:
            raise OperatorError(
                "which flows are meant?", "name a client, a backend or a service, or say all"
            )

        def done(answers: Answers) -> None:
            killed = (a.killed for a in answers.values() if isinstance(a, KilledFlows))
            reply(Result(value={"killed": sum(killed)}))

        self._walk(KillFlows(match=FlowMatch.of(match)), done)

    def _set(self, request: SetRequest, reply: Reply) -> None:
        """Set the state, the weight, or both, of one backend, or of one in every service."""
        pools, whole = self._controller.store.pools, request.service == EVERY
        if whole:
            members = pools.everywhere(request.backend)
        else:
            members = [pools.find(request.service, request.backend)]
        state, weight = request.state, request.weight
        if state is None and weight is None:
            raise OperatorError("nothing is to be set", "give a state, a weight, or both")
        if state is not None and state not in SETTABLE:
            remedy = f"{did_you_mean(state, SETTABLE)}write {' or '.join(SETTABLE)}"
            raise OperatorError(f"there is no state {state!r}", remedy)
        now = time.monotonic()
        for member in members:
            if weight is not None:
                self._controller.store.set_weight(member, weight)
            if state is not None:
                event = SETTABLE[state]
                self._controller.store.move(member, event, "set by the operator", now)
        rows = [views.changed(member) for member in members]
        answer = {"backends": rows} if whole else rows[0]
        self._controller.when_applied(lambda: reply(Result(value=answer)))

    def _reload(self, request: ReloadRequest, reply: Reply) -> None:
        """Reload the file; answered when the processes with flows have applied it."""

        def done(outcome: ReloadOutcome | ParagliderError) -> None:
            if isinstance(outcome, ParagliderError):
                reply(Refusal.of(outcome))
                return
            answer = {"changed": list(outcome.words), "restart": list(outcome.restart)}
            self._controller.when_applied(lambda: reply(Result(value=answer)))

        self._controller.request_reload("the control socket", done, force=request.force)

    def _carrier(self, request: CarrierRequest, reply: Reply) -> None:
        """Switch the carrier; the answer is what carries now."""

        def done(error: ParagliderError | None) -> None:
            if error is not None:
                reply(Refusal.of(error))
                return
            reply(Result(value=views.carrier(self._controller, self._samples())))

        self._controller.carrier.switch(request.state == "on", done)

    def _node(self, request: NodeRequest, reply: Reply) -> None:
        """Drain this balancer or end that; the answer is its state then."""
        node = self._controller.store.node
        if request.state == "drain":
            node.drain(keep=not request.until_restart)
        else:
            node.ready()
        reply(Result(value=views.node(node, _now())))

    def _samples(self) -> Samples:
        """The counters of the workers."""
        return samples(self._controller.processes())

    def _walk(self, message: Message, done: Callable[[Answers], None]) -> None:
        until = time.monotonic() + LONG
        self._controller.requests.request(self._controller.carriers(), message, until, done)

    def _match(self, request: FlowsRequest | KillRequest) -> Match:
        match = request.match.parsed()
        if match.service is not None:
            self._controller.store.pools.require(match.service)
        return match


def _now() -> Instant:
    return Instant(time.monotonic(), time.time())


def _queues() -> Mapping[int, QueueStatus]:
    """The kernel's counters of the queues; empty if there are none."""
    try:
        return queue_status()
    except PlatformError:
        return {}
