"""Processes that were taken over: whatever they send, the hub goes on, and what it shows is sound.

Messages of every kind and for every handler, with fields that are missing, of another type, huge,
or somebody else's, through the channel as they would come.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paraglider.config.diagnostics import Marks
from paraglider.config.load import LoadedConfig
from paraglider.config.model import BackendSource, Config
from paraglider.core.pool import State
from paraglider.core.strategies import STRATEGIES
from paraglider.daemon.controller.controller import Controller
from paraglider.daemon.controller.handlers import HANDLERS
from paraglider.daemon.http.metrics import render
from paraglider.daemon.inputs.config_watcher import ConfigWatcher
from paraglider.daemon.processes.channel import Channel, ChannelError, Message
from paraglider.daemon.processes.child import Child
from paraglider.daemon.processes.counters import Counters
from paraglider.daemon.processes.manager import Children
from paraglider.daemon.processes.spec import Spec
from paraglider.daemon.settings import Read
from paraglider.daemon.web.token import digest
from paraglider.daemon.workers.worker import WorkerSpec

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
KINDS = (
    *HANDLERS,
    *("report", "verdict", "joined", "left", "answer", "failed", "changed", "targets", "states"),
    *(
        "config",
        "news",
        "hints",
        "check-failed",
        "check-passed",
        "set-maint",
        "set-drain",
        "ready",
        "maint",
    ),
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
    *("re", "id", "service", "backend", "passed", "detail", "duration", "at", "event"),
    *("held_until", "address", "name", "records", "ttl", "why", "file", "state", "weight", "all"),
    *("client", "limit", "flows", "killed", "more", "token", "error", "match"),
)
ONE = st.builds(
    lambda do, fields: {"do": do, **fields},
    st.one_of(st.sampled_from(KINDS), SCALARS),
    st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=12),
)
#: one by itself, or some as the monitor sends them
MESSAGES = st.one_of(
    ONE, st.builds(lambda news: {"do": "news", "news": news}, st.lists(ONE, max_size=3))
)
ROLES = ("checker", "scout", "api", "stats", "worker", "proxy worker", "tracker")


class Plain(Spec):
    """A process of any role."""

    role: ClassVar[str]


def process(role: str, index: int) -> Child:
    """One of ``role`` that serves."""
    if role == "worker":
        return Child(WorkerSpec(index, 0, CONFIG, 1, 1, counters=Counters()), pid=1)
    kind = type("One", (Plain,), {"role": role})
    return Child(kind(index), pid=1)


class Everybody:
    """The processes of every role; what they are sent is encoded as it would be."""

    def __init__(self) -> None:
        self.all = [process(role, index) for index, role in enumerate(ROLES)]

    def __iter__(self) -> Any:
        return iter(self.all)

    def send(self, child: Child, message: Message) -> None:
        """See ``Children``."""
        json.dumps(message, allow_nan=False)

    def wake(self, child: Child) -> None:
        """See ``Children``."""

    def dismiss(self, child: Child) -> None:
        """See ``Children``."""


class World:
    """A hub whose processes are all taken over."""

    def __init__(self, directory: Path) -> None:
        path = directory / "file"
        path.touch()
        self.hub = Controller(
            CONFIG,
            STRATEGIES,
            token=digest(TOKEN),
            read=lambda: Read(LoadedConfig(CONFIG, Marks(), "file"), CONFIG, (), {}),
            file=ConfigWatcher(path),
            named={"dns": BackendSource(dns="_web._tcp.example")},
        )
        self.children = Everybody()
        self.hub.attach(cast(Children, self.children))

    def hear(self, role: str, message: Message) -> None:
        """``message`` comes through a channel; what is none ends its sender before that."""
        ours, theirs = Channel.pair()
        try:
            theirs.send(message)
            heard = ours.receive()
        except (ChannelError, UnicodeEncodeError):
            return
        finally:
            ours.close()
            theirs.close()
        (child,) = (child for child in self.children if child.spec.role == role)
        for one in heard:
            self.hub.heard(child, one)

    def shown(self) -> Message:
        """All that can be shown, as it is sent to browsers and Prometheus."""
        replies: list[Message] = []
        self.hub.desk.take({"do": "status"}, replies.append)
        found: Message = replies[0]["ok"]
        json.dumps(found, allow_nan=False)
        assert render(found)
        return found


@pytest.mark.parametrize("role", ROLES)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(messages=st.lists(MESSAGES, min_size=1, max_size=4))
def test_no_message_raises_or_spoils_what_is_shown(
    role: str, messages: list[Message], tmp_path: Path
) -> None:
    """And the hub's own turn goes on as before."""
    world = World(tmp_path)
    for message in messages:
        world.hear(role, message)
    world.hub.look(time.monotonic())
    found = world.shown()
    assert not [c for c in found["health"]["conditions"] if c["source"] == "supervisor"]
    assert_own_subject(role, world)


def assert_own_subject(role: str, world: World) -> None:
    """What a process of ``role`` cannot change is as it was."""
    states = {m.state for m in world.hub.pools}
    weights = {m.weight for m in world.hub.pools}
    names = {s.name: [b.name for b in s.backends] for s in world.hub.wanted.services}
    here = ["10.0.0.1", "10.0.0.2"]
    if role != "api":  # which has the operator's word
        assert states <= {State.READY, State.DOWN} | ({State.DRAIN} if role == "scout" else set())
    if role != "checker" and role != "api":
        assert State.DOWN not in states
    if role not in ("api", "scout"):
        assert weights == {1}
    if role not in ("checker", "scout"):
        assert names == {"web": here, "own": here, "dns": here}
    if role == "scout":
        assert (names["web"], names["own"]) == (here, here)
