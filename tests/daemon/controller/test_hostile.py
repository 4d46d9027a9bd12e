"""Compromised processes: with any messages, the controller continues as before.

Messages of every type, with missing, mistyped, huge or another role's fields, through the endpoint.
"""

from __future__ import annotations

import json
import math
import os
import socket
import time
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stand_ins import RecordedProcesses, in_steps

from paraglider.config.diagnostics import Marks
from paraglider.config.load import LoadedConfig
from paraglider.config.model import BackendSource, Config
from paraglider.core.pool import State
from paraglider.core.strategies import STRATEGIES
from paraglider.daemon.control.connections import ControlConnections
from paraglider.daemon.control.listening import ControlSocket
from paraglider.daemon.controller.controller import Controller
from paraglider.daemon.http.metrics import render
from paraglider.daemon.ipc import EndpointError, IpcEndpoint, Kind
from paraglider.daemon.messages import (
    FROM_ROLE,
    TO_ROLE,
    Message,
    Result,
    ShowRequest,
    from_processes,
)
from paraglider.daemon.processes.child import Child
from paraglider.daemon.processes.manager import ProcessManager
from paraglider.daemon.processes.spec import Spec
from paraglider.daemon.settings import Read
from paraglider.daemon.shared_memory.counters import Counters
from paraglider.daemon.web.token import digest
from paraglider.daemon.workers.worker import WorkerSpec
from paraglider.host.file_watch import FilePoller

COMMON = {"vip": "192.0.2.1/24", "protocol": "tcp", "backends": ["10.0.0.1", "10.0.0.2"]}
CONFIG = Config.model_validate(
    {
        "failover": {"enabled": True},
        "services": [
            {"name": "web", "ports": 80, "check": {"type": "tcp"}, **COMMON},
            {"name": "own", "ports": 81, **COMMON},
            {"name": "dns", "ports": 82, **COMMON},
        ],
    }
)
TOKEN = "the token that nobody has guessed"

#: what stands in a message: right, nearly right, and what no one expects
WORDS = (
    "web",
    "own",
    "dns",
    "10.0.0.1",
    "10.0.0.2",
    "10.0.0.77",
    "_web._tcp.example",
    "",
    "\0\n\x1b[2J",
)
TYPES = tuple(
    each.model_fields["type"].default
    for each in vars(from_processes).values()
    if isinstance(each, type) and issubclass(each, Message) and "type" in each.model_fields
)
KINDS = (
    *(*TYPES, "acknowledged", "refusal", "set-targets", "control", "stats", "status"),
    *("check-failed", "check-passed", "set-maint", "set-drain", "ready", "maint", "drain"),
)
NUMBERS = (
    0,
    1,
    -1,
    6,
    80,
    65536,
    2**31,
    2**63 - 1,
    2**64 - 1,
    -(2**63),
    10**400,
    1e308,
    -1e308,
    0.5,
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(WORDS + KINDS + ("\ud800", "x" * 5000)),
    st.sampled_from((*NUMBERS, math.nan, math.inf, -math.inf)),
    st.text(max_size=5),
)
DEEP: Any = json.loads("[" * 200 + "]" * 200)
NAME = {"name": "_web._tcp.example", "server": "", "family": 4}
RECORDS = st.lists(
    st.one_of(
        st.lists(SCALARS, max_size=4),
        st.tuples(st.sampled_from(("10.0.0.1", "10.0.0.9")), st.just(82), st.just(1)).map(list),
        SCALARS,
    ),
    max_size=3,
)
VALUES = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=3),
    st.dictionaries(st.sampled_from(("name", "server", "family", "flows")), SCALARS, max_size=3),
    st.just(NAME),
    RECORDS,
    st.just(DEEP),
)
FIELDS = (
    *("listener", "view", "service", "backend", "reports", "changes", "hosts", "name", "records"),
    *("ttl", "why", "file", "state", "weight", "all", "force", "limit", "flows", "killed", "more"),
    *("token", "error", "match", "found", "families", "marks", "done", "connection"),
    "services",
)
NAMES = (st.sampled_from(("web", "own", "mail")), st.sampled_from(("10.0.0.1", "10.0.0.77")))
TIMES = (st.sampled_from((0.0, 1.5, -1.0, 1e300)), st.sampled_from((0.0, 7.5, math.nan)))
CODES = st.sampled_from(("L4OK", "L4CON", "L9"))
REPORTS = st.tuples(
    *NAMES, st.sampled_from((True, False, None)), CODES, st.text(max_size=3), *TIMES
).map(list)
CHANGES = st.tuples(
    *NAMES,
    st.sampled_from(("check-failed", "check-passed", "set-maint")),
    *(st.text(max_size=3), *TIMES),
).map(list)
GOOD = st.one_of(
    st.builds(
        lambda reports, changes: {"type": "health-news", "reports": reports, "changes": changes},
        *(st.lists(REPORTS, max_size=3), st.lists(CHANGES, max_size=3)),
    ),
    st.builds(
        lambda records: {"type": "dns-answer", "name": NAME, "records": records, "ttl": 5.0},
        RECORDS,
    ),
    st.builds(
        lambda listener, connection, state, weight, token: {
            "type": "set",
            "listener": listener,
            "connection": connection,
            "service": "web",
            "backend": "10.0.0.1",
            "state": state,
            "weight": weight,
            "token": token,
        },
        st.sampled_from(("control", "stats")),
        st.sampled_from((0, 1)),
        st.sampled_from(("drain", "maint", "ready", "down", None)),
        st.sampled_from((None, 0, 3, 70_000, -1)),
        st.sampled_from((None, "guess")),
    ),
)
MESSAGES = st.one_of(
    GOOD,
    st.builds(
        lambda do, fields: {"type": do, **fields},
        st.one_of(st.sampled_from(KINDS), SCALARS),
        st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=12),
    ),
)
ROLES = tuple(FROM_ROLE)


class Plain(Spec):
    """A process of any role."""

    role: ClassVar[str]


def process(role: str, index: int) -> Child:
    """A running process of ``role``."""
    if role == "worker":
        return Child(WorkerSpec(index, 0, CONFIG, 1, 1, counters=Counters()), pid=1)
    kind = type("One", (Plain,), {"role": role})
    return Child(kind(index), pid=1)


class Unwatched:
    """A loop that watches nothing."""

    def watch(self, what: object, ready: object) -> None:
        """See ``Loop``."""

    def forget(self, what: object) -> None:
        """See ``Loop``."""


class Everybody(RecordedProcesses):
    """The processes of every role; messages to them are encoded as usual."""

    def __init__(self) -> None:
        super().__init__(*(process(role, index) for index, role in enumerate(ROLES)))
        self.sent: list[bytes] = []
        self.loop = Unwatched()

    def received(self, child: Child, message: Message, body: bytes, number: int) -> None:
        """Record it."""
        self.sent.append(body)


class World:
    """A controller whose processes are all taken over."""

    def __init__(self, directory: Path) -> None:
        path = directory / "file"
        path.touch()
        self.socket = ControlSocket(str(directory / "control"))
        self.control = ControlConnections(self.socket.listening, os.geteuid())
        self.controller = Controller(
            CONFIG,
            STRATEGIES,
            token=digest(TOKEN),
            read=in_steps(lambda: Read(LoadedConfig(CONFIG, Marks(), "file"), CONFIG, (), {})),
            file=FilePoller([path]),
            named={"dns": BackendSource(dns="_web._tcp.example")},
            control=self.control,
        )
        self.children = Everybody()
        self.controller.attach(cast(ProcessManager, self.children))
        # A client that asks for the health: http has its connection, number 1.
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.socket.path))
            client.sendall(b"GET /v1/health HTTP/1.1\r\n\r\n")
            self.control._accept()

    def close(self) -> None:
        """The end."""
        self.control.close()
        self.socket.close()

    def receive(self, role: str, plain: Any, kind: Kind, number: int) -> None:
        """``plain`` arrives at an endpoint; an invalid message ends its sender."""
        ours, theirs = IpcEndpoint.pair(FROM_ROLE[role], TO_ROLE[role])
        try:
            theirs.send(json.dumps(plain).encode(), kind, number)
            received = ours.receive()
        except EndpointError:
            return
        finally:
            ours.close()
            theirs.close()
        (child,) = (child for child in self.children if child.spec.role == role)
        for frame in received:
            self.controller.on_message(child, frame)

    def shown(self) -> dict[str, Any]:
        """All views, as sent to browsers and Prometheus."""
        replies: list[Message] = []
        self.controller.handlers.handle(
            ShowRequest(listener="control", view="status"), replies.append
        )
        assert isinstance(replies[0], Result)
        found: dict[str, Any] = replies[0].value
        json.dumps(found, allow_nan=False)
        assert render(found)
        return found


@pytest.mark.parametrize("role", ROLES)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    messages=st.lists(
        st.tuples(MESSAGES, st.sampled_from(Kind), st.integers(0, 3)), min_size=1, max_size=4
    )
)
def test_no_message_raises_or_spoils_what_is_shown(
    role: str, messages: list[tuple[Any, Kind, int]], tmp_path: Path
) -> None:
    """And the controller's next turn works as before."""
    world = World(tmp_path)
    try:
        for message, kind, number in messages:
            world.receive(role, message, kind, number)
        world.controller.turn(time.monotonic())
        found = world.shown()
        assert not [c for c in found["health"]["conditions"] if c["source"] == "supervisor"]
        assert_own_subject(role, world)
    finally:
        world.close()


@pytest.mark.parametrize(
    "message",
    [
        {"type": "kill", "all": True},
        {"type": "kill", "match": {"service": "web"}},
        {"type": "set", "service": "web", "backend": "10.0.0.1", "state": "maint"},
        {"type": "reload", "force": True},
        {"type": "flows"},
        {"type": "show", "view": "status"},
    ],
)
def test_http_does_only_what_a_client_asked_for(message: dict[str, Any], tmp_path: Path) -> None:
    """Neither by the number of the client's connection nor by another, nor without one."""
    world = World(tmp_path)
    try:
        for connection in (1, 0, 2):
            forged = {"listener": "control", "connection": connection, **message}
            world.receive("http", forged, Kind.REQUEST, 7)
        assert [json.loads(body)["type"] for body in world.children.sent] == ["refusal"] * 3
        assert_own_subject("http", world)
    finally:
        world.close()


def test_http_does_what_a_client_asked_for_once(tmp_path: Path) -> None:
    """The answer is the client's."""
    world = World(tmp_path)
    asked = {"type": "show", "listener": "control", "connection": 1, "view": "health"}
    try:
        for _ in range(2):
            world.receive("http", asked, Kind.REQUEST, 7)
        assert [json.loads(body)["type"] for body in world.children.sent] == ["result", "refusal"]
    finally:
        world.close()


def assert_own_subject(role: str, world: World) -> None:
    """What a process of ``role`` cannot change is as it was."""
    states = {m.state for m in world.controller.store.pools}
    weights = {m.weight for m in world.controller.store.pools}
    if role != "worker":
        assert world.controller.carrier.unplaced == frozenset()
    names = {s.name: [b.name for b in s.backends] for s in world.controller.store.wanted.services}
    here = ["10.0.0.1", "10.0.0.2"]
    assert states <= {State.READY, State.DOWN} | ({State.DRAIN} if role == "monitor" else set())
    if role != "monitor":  # http changes nothing: no client of the control socket asked for it
        assert State.DOWN not in states
        assert weights == {1}
    if role != "monitor":
        assert names == {"web": here, "own": here, "dns": here}
    if role == "monitor":
        assert (names["web"], names["own"]) == (here, here)
