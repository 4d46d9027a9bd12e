"""The hub's answers to the control socket: what is asked, what is looked up or done.

    services, backends, workers, health      what there is, as ``views`` has it
    status                                   all of that at one instant
    flows                                    some flows, listed by those who carry them
    kill                                     flows are ended
    set                                      a backend's state or weight
    reload                                   the file is read again

Lives here: ``Handlers``, which takes a request and replies once, now or when the processes that
it has to ask have answered.
Rules: the process that hands the requests on has no rights, and is not believed: every value is
looked at here. A reply is {"ok": …} or {"error": what, "remedy": …, "fault": whose}.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from paraglider.config.diagnostics import ConfigError
from paraglider.core.pool import Event
from paraglider.daemon.controller import views
from paraglider.daemon.controller.views import Instant, Viewable
from paraglider.daemon.inputs.reload import ReloadOutcome
from paraglider.daemon.inputs.reload_queue import Done
from paraglider.daemon.processes.broadcast import Answers, Broadcasts
from paraglider.daemon.processes.channel import Message
from paraglider.daemon.processes.faults import Faults
from paraglider.daemon.stats.traffic import Samples, samples
from paraglider.daemon.store.backends import SETTABLE, BackendRecord
from paraglider.daemon.workers.commands import MOST_LISTED
from paraglider.errors import OperatorError, ParagliderError, PlatformError
from paraglider.forward.flows import Match
from paraglider.netfilter.queue.proc import QueueStatus, queue_status

Reply = Callable[[Message], None]
Handler = Callable[["Handlers", Message, Reply], None]

#: seconds for what comes with the next tick
SOON: Final = 2.0
#: seconds for a walk over all flows
LONG: Final = 15.0


class State(Viewable, Protocol):
    """What the desk needs of the hub: all that can be shown, and what changes it."""

    questions: Broadcasts

    def carriers(self) -> list[int]:
        """The numbers of those that have flows, as far as they serve."""

    def move(self, member: BackendRecord, event: Event, why: str) -> None:
        """Move ``member``; tells everybody."""

    def weigh(self, member: BackendRecord, weight: int) -> None:
        """Give ``member`` another weight; tells everybody."""

    def when_read(self, done: Callable[[], object]) -> None:
        """Call ``done`` when the kernel's counters have been read of late."""

    def when_applied(self, done: Callable[[], object]) -> None:
        """Call ``done`` when the workers have applied all changes so far."""

    def ask_reload(self, said_by: str, done: Done, *, force: bool = False) -> None:
        """Go on with the file as it is now, and where live flows would end only with ``force``;
        tell ``done`` what has changed, or why nothing.
        """


class Handlers:
    """Answers for ``hub``."""

    def __init__(self, hub: State) -> None:
        self._hub = hub
        self._faults = Faults()

    def take(self, request: Message, reply: Reply) -> None:
        """Answer ``request`` by calling ``reply`` once, now or later."""
        wanted = request.get("do")
        handler = HANDLERS.get(wanted) if isinstance(wanted, str) else None

        def handle() -> None:
            if handler is None:
                raise OperatorError("there is no such request")
            handler(self, request, reply)

        self._try(handle, reply)

    def services(self, request: Message, reply: Reply) -> None:
        """Every service with the sums of its backends."""
        hub = self._hub
        self._show(
            reply, lambda: views.services(hub.config, hub.pools, hub.traffic(self._samples()))
        )

    def backends(self, request: Message, reply: Reply) -> None:
        """Every backend, or those of one service."""
        wanted = _text(request, "service")
        if wanted is not None:
            self._hub.pools.require(wanted)

        hub = self._hub

        def rows() -> list[dict[str, Any]]:
            every = views.backends(hub.config, hub.pools, hub.traffic(self._samples()), _now())
            return [row for row in every if wanted in (None, row["service"])]

        self._show(reply, rows)

    def workers(self, request: Message, reply: Reply) -> None:
        """Every process."""
        reply({"ok": views.processes(self._hub.processes(), self._samples(), _queues(), _now())})

    def health(self, request: Message, reply: Reply) -> None:
        """Whether all is well."""
        self._hub.assess()
        reply({"ok": views.health(self._hub.conditions, _now())})

    def status(self, request: Message, reply: Reply) -> None:
        """Services, backends, processes and health at one instant."""
        self._show(reply, lambda: views.status(self._hub, self._samples(), _queues(), _now()))

    def _show(self, reply: Reply, view: Callable[[], Any]) -> None:
        """Reply with ``view``, as soon as the kernel's counters are new enough."""
        self._hub.when_read(lambda: self._try(lambda: reply({"ok": view()}), reply))

    def _try(self, step: Callable[[], object], reply: Reply) -> None:
        """Do ``step``, or reply why it failed."""
        try:
            step()
        except ParagliderError as error:
            reply(refusal(error))
        except Exception as error:  # noqa: BLE001 - whoever asks is to have an answer
            self._faults.note("a request", error)
            reply(refusal(PlatformError("internal error", "the log has its traceback")))

    def flows(self, request: Message, reply: Reply) -> None:
        """Some flows, from every process that carries any."""
        limit = request.get("limit", MOST_LISTED)
        if not isinstance(limit, int) or not 1 <= limit <= MOST_LISTED:
            raise OperatorError(f"limit {limit!r} is none", f"write 1 to {MOST_LISTED}")

        def done(answers: Answers) -> None:
            found = [flow for answer in answers.values() for flow in _flows(answer)]
            more = any(answer.get("more") for answer in answers.values()) or len(found) > limit
            reply({"ok": {"flows": found[:limit], "more": more}})

        self._walk({"do": "flows", "match": self._match(request).words(), "limit": limit}, done)

    def kill(self, request: Message, reply: Reply) -> None:
        """End flows; all of them only when that is said."""
        match = self._match(request)
        if match == Match() and request.get("all") is not True:
            raise OperatorError(
                "which flows are meant?", "name a client, a backend or a service, or say all"
            )

        def done(answers: Answers) -> None:
            counts = (answer.get("killed") for answer in answers.values())
            reply({"ok": {"killed": sum(n for n in counts if isinstance(n, int))}})

        self._walk({"do": "kill", "match": match.words()}, done)

    def set(self, request: Message, reply: Reply) -> None:
        """Another state, another weight, or both, for one backend."""
        service, backend = _text(request, "service"), _text(request, "backend")
        member = self._hub.pools.find(service or "", backend or "")
        state, weight = _text(request, "state"), request.get("weight")
        if state is None and weight is None:
            raise OperatorError("nothing is to be set", "give a state, a weight, or both")
        if state is not None and state not in SETTABLE:
            raise OperatorError(f"there is no state {state!r}", f"write {' or '.join(SETTABLE)}")
        if weight is not None:
            if not isinstance(weight, int) or isinstance(weight, bool):
                raise OperatorError(f"weight {weight!r} is no whole number", "write 0 or more")
            self._hub.weigh(member, weight)
        if state is not None:
            self._hub.move(member, SETTABLE[state], "set by the operator")
        answer = {
            "service": member.service,
            "backend": member.backend,
            "state": member.state.value,
            "weight": member.weight,
        }
        self._hub.when_applied(lambda: reply({"ok": answer}))

    def reload(self, request: Message, reply: Reply) -> None:
        """Read the file again; said when those who carry flows have taken it over."""
        force = request.get("force", False)
        if not isinstance(force, bool):
            raise OperatorError(f"`force` is {force!r}", "write true or false")

        def done(outcome: ReloadOutcome | ParagliderError) -> None:
            if isinstance(outcome, ParagliderError):
                reply(refusal(outcome))
                return
            answer = {"changed": list(outcome.words), "restart": list(outcome.restart)}
            self._hub.when_applied(lambda: reply({"ok": answer}))

        self._hub.ask_reload("the control socket", done, force=force)

    def _samples(self) -> Samples:
        """What the workers have counted so far."""
        return samples(self._hub.processes())

    def _walk(self, message: Message, done: Callable[[Answers], None]) -> None:
        until = time.monotonic() + LONG
        self._hub.questions.ask(self._hub.carriers(), message, until, done)

    def _match(self, request: Message) -> Match:
        match = Match.of(request)
        if match.service is not None:
            self._hub.pools.require(match.service)
        return match


def refusal(error: ParagliderError) -> Message:
    """The reply that says ``error``."""
    fault = "operator" if isinstance(error, OperatorError) else "platform"
    said = {"error": error.what, "remedy": error.remedy, "fault": fault}
    return {**said, "lines": list(error.lines)} if isinstance(error, ConfigError) else said


def _flows(answer: Message) -> list[Message]:
    """The flows that a process lists: objects of plain values, whatever else it says."""
    listed = answer.get("flows")
    return [
        flow
        for flow in (listed if isinstance(listed, list) else ())
        if isinstance(flow, dict)
        and not any(isinstance(value, dict | list) for value in flow.values())
    ]


def _now() -> Instant:
    return Instant(time.monotonic(), time.time())


def _queues() -> Mapping[int, QueueStatus]:
    """What the kernel says of the queues; nothing where it has none."""
    try:
        return queue_status()
    except PlatformError:
        return {}


def _text(request: Mapping[str, Any], name: str) -> str | None:
    value = request.get(name)
    if value is None or isinstance(value, str):
        return value
    raise OperatorError(f"`{name}` is no text")


HANDLERS: Final[dict[str, Handler]] = {
    "services": Handlers.services,
    "backends": Handlers.backends,
    "workers": Handlers.workers,
    "health": Handlers.health,
    "status": Handlers.status,
    "flows": Handlers.flows,
    "kill": Handlers.kill,
    "set": Handlers.set,
    "reload": Handlers.reload,
}
