"""Every message is equal after the wire, and valid only from and to its own roles."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from paraglider.config.health import Check, Expect, Failover
from paraglider.config.model import Config
from paraglider.config.types import StatusRange
from paraglider.core.pool import Event
from paraglider.daemon.ipc import encode
from paraglider.daemon.messages import (
    FROM_ROLE,
    MOST_LISTED,
    TO_ROLE,
    Acknowledged,
    AnnounceRequest,
    ApplyConfig,
    ApplyHost,
    CarrierDevices,
    CarrierReading,
    CarrierRequest,
    CheckSooner,
    ConnectionCounts,
    CountConnections,
    DnsFailure,
    DnsName,
    DnsUpdate,
    FileChanged,
    FlowList,
    FlowMatch,
    FlowsRequest,
    ForgetConnections,
    HealthNews,
    HostAddresses,
    HostChanged,
    HostConditions,
    KilledFlows,
    KillFlows,
    KillRequest,
    ListFlows,
    LoadRules,
    Message,
    NodeRequest,
    Reading,
    ReadTables,
    Refusal,
    ReloadRequest,
    Result,
    SetCarrier,
    SetRequest,
    SetSources,
    SetStates,
    SetTargets,
    ShowRequest,
    SlotCount,
    SuspendPolicies,
    SwitchCarrier,
    TablesRestored,
    UnplacedServices,
    VipNews,
    WriteCounters,
    base,
    from_processes,
    to_processes,
)
from paraglider.health.codes import Code
from paraglider.health.results import CheckReport, DiscoveredHost, HealthChange
from paraglider.health.targets import Scope, Target
from paraglider.host.dns_records import Record
from paraglider.netfilter.connections import Fill
from paraglider.netfilter.nfnetlink import CounterValue

FOUR, SIX = ipaddress.ip_address("10.0.0.1"), ipaddress.ip_address("fd00:10::1")
CHECK = Check(type="https", host="a", timeout=0.5, expect=Expect(status=(StatusRange(200, 204),)))
SCOPE = Scope(Failover(check_cycle=0.5), (FOUR,), "eth1", (SIX,), frozenset((FOUR, SIX)))
TARGETS = (
    Target("web", "10.0.0.1:80", FOUR, 80, CHECK),
    Target("web", "fd00:10::1", SIX, 0, None, False, True),
    Target("web", "10.0.0.1:81", FOUR, 81, CHECK),
)
NAME = DnsName("_web._tcp.example", "[::1]:53", 4)
CONFIG = Config.model_validate(
    {
        "network": {"private": {"interface": "eth1", "gateway": ["10.0.0.254/8"]}},
        "services": [
            {
                "name": "web",
                "vip": "192.0.2.1/24",
                "protocol": "tcp",
                "ports": "80-90",
                "seed": 2**64 - 1,
                "check": {"type": "http", "port": 80},
                "backends": ["10.0.0.1", {"address": "10.0.0.2", "weight": 3}],
            }
        ],
    }
)
STATES = {"web": {"10.0.0.1": ("ready", 1), "10.0.0.2": ("down", 3)}}
MATCH = FlowMatch(client="192.0.2.0/24", backend="10.0.0.1", service="web")
FLOW = {"client": "192.0.2.9:5", "packets": 2**63, "age": 0.5, "bytes": None, "up": True}

READING = Reading(
    tables={4: {"unanswered": 3}, 6: None},
    carried={4: {0x5200_0000: {"requests": CounterValue(3, 300)}}},
    refused={4: {"tcp": 1}},
    fill=Fill(5, 100, 0),
    errors={6: "no table"},
    carrier=CarrierReading(
        devices=("eth0",),
        slots={"00ff00ff00ff00ff": SlotCount(1, 2**63 - 1, 0, 0)},
        reasons={"carried": 1},
    ),
)

SENT: dict[str, tuple[Message, ...]] = {
    "to worker": (
        SetStates(states=STATES),
        ApplyConfig(config=CONFIG, states=STATES),
        SuspendPolicies(services=("web",)),
        SetCarrier(on=False),
        ListFlows(match=MATCH, limit=MOST_LISTED),
        KillFlows(match=FlowMatch()),
        WriteCounters(),
    ),
    "from worker": (
        FlowList(flows=(FLOW, {}), more=True),
        KilledFlows(killed=7),
        UnplacedServices(services=("web",)),
        Acknowledged(),
        Refusal(error="no", fault="platform"),
    ),
    "to monitor": (
        SetTargets.of(TARGETS, SCOPE),
        SetTargets.of((), gone=[("web", "10.0.0.1")], whole=False),
        CheckSooner(backends=(("web", "10.0.0.1"),)),
        SetSources(names=(NAME,), files=("/etc/backends",)),
    ),
    "from monitor": (
        HealthNews(
            reports=(
                CheckReport("web", "10.0.0.1", True, Code.L7OK, "status 200", 0.01, 5.0),
                CheckReport("web", "10.0.0.2", None, Code.SOCKERR, "no socket", 0.01, 5.0),
            ),
            changes=(HealthChange("web", "10.0.0.1", Event.CHECK_FAILED, "refused", 6.0, 66.0),),
            hosts=(DiscoveredHost(True, FOUR, "answers", 7.0),),
        ),
        DnsUpdate(name=NAME, records=(Record(FOUR, 8080, 1), Record(SIX, 0, 65535)), ttl=30.0),
        DnsFailure(name=NAME, why="no such name"),
        FileChanged(file="/etc/backends"),
    ),
    "to host helper": (
        ApplyHost(config=CONFIG),
        LoadRules(text="flush chain"),
        ForgetConnections(marks=(1,), passing=(2,), datagrams=(("192.0.2.1", 53, 54),)),
        CountConnections(),
        ReadTables(families=(4, 6)),
        SwitchCarrier(on=True),
    ),
    "from host helper": (
        HostConditions.of({"address 192.0.2.1/24": ("unhealthy", "missing")}),
        HostAddresses(
            interfaces=("eth0", "eth1"),
            addresses={"eth1": tuple(map(ipaddress.ip_interface, ("10.0.0.2/8", "fd00::2/64")))},
        ),
        TablesRestored(families=(4, 6)),
        HostChanged(done=("address",)),
        ConnectionCounts(marks={0x5200_0000: 3}),
        READING,
        Reading(),
        CarrierDevices(devices=("eth0", "eth1")),
        Acknowledged(),
        Refusal(error="no", remedy="do", fault="operator"),
    ),
    "from http": (
        ShowRequest(listener="control", view="backends", service="web"),
        ShowRequest(listener="control", view="health", vip="192.0.2.1", when="all"),
        ShowRequest(listener="control", view="health", of="node"),
        FlowsRequest(listener="control", match=MATCH, limit=1),
        KillRequest(listener="control", all=True),
        SetRequest(listener="stats", service="web", backend="b", weight=0, token="t"),
        ReloadRequest(listener="control", force=True),
        CarrierRequest(listener="control", state="off"),
        NodeRequest(listener="control", state="drain", until_restart=True),
        AnnounceRequest(listener="control", connection=3),
    ),
    "to http": (
        VipNews(loads=2, vips={"192.0.2.1": (False, "unhealthy", "no backend")}),
        VipNews(),
        Result(value={"rows": [1, None, "x"]}),
        Refusal(error="no", fault="operator", lines=("f:1:1: no",)),
    ),
}


@pytest.mark.parametrize(
    ("side", "message"),
    [(side, message) for side, some in SENT.items() for message in some],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_sent_is_received(side: str, message: Message) -> None:
    """Each message is equal after the wire, and invalid in the other direction."""
    direction, _, role = side.partition(" ")
    there, back = (TO_ROLE, FROM_ROLE) if direction == "to" else (FROM_ROLE, TO_ROLE)
    assert there[role].validate_json(encode(message)) == message
    with pytest.raises(ValidationError):
        back[role].validate_json(encode(message))


def test_every_message_is_tested() -> None:
    """The table above has all that the module defines."""
    defined = {
        each
        for module in (base, to_processes, from_processes)
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, Message) and "type" in each.model_fields
    }
    assert defined == {type(message) for some in SENT.values() for message in some}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(
    st.sampled_from(sorted(FROM_ROLE)),
    st.sampled_from(sorted({m.type for some in SENT.values() for m in some})),  # type: ignore[attr-defined]
    st.dictionaries(
        st.sampled_from(("reports", "changes", "name", "records", "flows", "found", "match")),
        VALUES,
    ),
)
def test_whatever_comes(role: str, kind: str, fields: dict[str, Any]) -> None:
    """A message or a ValidationError, and no other exception."""
    body = json.dumps({"type": kind, **fields})
    try:
        found = FROM_ROLE[role].validate_json(body)
    except ValidationError:
        return
    assert isinstance(found, Message)
