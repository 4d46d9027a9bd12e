"""Messages of processes: bounded and strict; texts are truncated, everything else is invalid."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from paraglider.core.pool import Event
from paraglider.daemon.ipc import encode
from paraglider.daemon.messages import FROM_ROLE, MOST_LISTED, MOST_RECORDS
from paraglider.daemon.messages.base import DnsName
from paraglider.daemon.messages.from_processes import (
    MOST_CONDITIONS,
    ConnectionCounts,
    DnsUpdate,
    FlowList,
    HealthNews,
    HostConditions,
)
from paraglider.health.codes import Code
from paraglider.health.results import CheckReport, DiscoveredHost, HealthChange
from paraglider.host.dns_records import Record

REPORT = ["web", "10.0.0.1", True, "L7OK", "status 200", 0.01, 5.0]


@pytest.mark.parametrize(
    "body",
    [
        *("", "{", "[1]", '"text"', "[" * 100_000, "9" * 5000, "{} {}", "{}", '{"type": 1}'),
        '{"type": "set-states", "states": {}}',
        '{"type": "health-news", "reports": [], "more": 1}',
        '{"type": "dns-failure", "name": ["n", "", 5], "why": ""}',
        '{"type": "dns-failure", "name": ["n", "nowhere", 4], "why": ""}',
        '{"type": "dns-answer", "name": ["n", "", 4], "records": [["::1", 65536, 1]], "ttl": 1}',
        '{"type": "dns-answer", "name": ["n", "", 4], "records": [["x", 1, 1]], "ttl": 1}',
        '{"type": "dns-answer", "name": ["n", "", 4], "records": [], "ttl": NaN}',
        '{"type": "dns-answer", "name": ["n", "", 4], "records": [], "ttl": -1}',
        '{"type": "file-changed", "file": "\\ud800"}',
        json.dumps({"type": "file-changed", "file": "x" * 5000}),
        *(
            json.dumps({"type": "health-news", "reports": [[*REPORT[:at], bad, *REPORT[at + 1 :]]]})
            for at, bad in (
                *(
                    (0, None),
                    (0, "x" * 5000),
                    (1, 7),
                    (2, "yes"),
                    (2, 1),
                    (3, "L9OK"),
                    (4, []),
                    (5, -1.0),
                ),
                *((5, 1e9), (5, float("nan")), (6, float("inf")), (6, "5"), (6, 10**400)),
            )
        ),
        '{"type": "health-news", "changes": [["web", "b", "set-maint", "", 1, 0]]}',
        '{"type": "health-news", "hosts": [[true, "10.0.0.256", "", 1]]}',
    ],
)
def test_what_a_process_must_not_send(body: str) -> None:
    """Other types, values out of bounds, another direction: only a ValidationError."""
    with pytest.raises(ValidationError):
        FROM_ROLE["monitor"].validate_json(body)


def test_lines_are_printable_and_short() -> None:
    """Texts are truncated, without control characters."""
    said = HealthNews(
        reports=(CheckReport("web", "b", False, Code.L7RSP, "\x1b[2J" + "x" * 999, 0.0, 0.0),)
    )
    (report,) = FROM_ROLE["monitor"].validate_json(encode(said)).reports
    assert report.detail == " [2J" + "x" * 296


def test_conditions_are_cut_to_the_bounds() -> None:
    """With any number of conditions the message is valid."""
    found = {f"{number} {'x' * 2000}": ("degraded", "y" * 2000) for number in range(999)}
    said = HostConditions.of(found)  # type: ignore[arg-type]
    assert FROM_ROLE["host helper"].validate_json(encode(said)) == said


def test_batches_are_arrays() -> None:
    """Arrays without keys, which would double the size."""
    said = HealthNews(reports=(CheckReport("web", "b", True, Code.L4OK, "ok", 0.5, 1.0),))
    row = ["web", "b", True, Code.L4OK, "ok", 0.5, 1.0, ""]
    assert json.loads(encode(said))["reports"] == [row]


NAMES = st.text(max_size=20)
LINES = st.text(st.characters(categories=("L", "N", "P")), max_size=300)
SECONDS = st.floats(0.0, 1e10)
REPORTS = st.builds(
    CheckReport,
    NAMES,
    NAMES,
    st.none() | st.booleans(),
    st.sampled_from(Code),
    LINES,
    st.floats(0.0, 86400.0),
    SECONDS,
)
CHANGES = st.builds(
    HealthChange,
    NAMES,
    NAMES,
    st.sampled_from((Event.CHECK_PASSED, Event.CHECK_FAILED)),
    LINES,
    SECONDS,
    SECONDS,
)
HOSTS = st.builds(DiscoveredHost, st.booleans(), st.ip_addresses(), LINES, SECONDS)


@settings(max_examples=30)
@given(st.lists(REPORTS, max_size=3), st.lists(CHANGES, max_size=3), st.lists(HOSTS, max_size=3))
def test_health_survives_the_wire(reports: Any, changes: Any, hosts: Any) -> None:
    """Every field within its bounds, floats to the last bit."""
    said = HealthNews(reports=tuple(reports), changes=tuple(changes), hosts=tuple(hosts))
    assert FROM_ROLE["monitor"].validate_json(encode(said)) == said


@settings(max_examples=30)
@given(st.dictionaries(st.integers(0, 2**32 - 1), st.integers(0, 2**63 - 1)))
def test_counts_by_mark_survive_the_wire(marks: dict[int, int]) -> None:
    """Though keys of JSON are text."""
    said = ConnectionCounts(marks=marks)
    assert FROM_ROLE["host helper"].validate_json(encode(said)) == said


def test_lists_end_at_their_bounds() -> None:
    """The maximum is valid, one more is not."""
    record = Record(ipaddress.ip_address("10.0.0.1"), 80, 1)
    name = DnsName("n", "", 4)
    FlowList(flows=({},) * MOST_LISTED, more=True)
    DnsUpdate(name=name, records=(record,) * MOST_RECORDS, ttl=0.0)
    HostConditions(found={str(n): ("degraded", "") for n in range(MOST_CONDITIONS)})
    with pytest.raises(ValidationError):
        FlowList(flows=({},) * (MOST_LISTED + 1), more=True)
    with pytest.raises(ValidationError):
        DnsUpdate(name=name, records=(record,) * (MOST_RECORDS + 1), ttl=0.0)
    with pytest.raises(ValidationError):
        HostConditions(found={str(n): ("degraded", "") for n in range(MOST_CONDITIONS + 1)})


@pytest.mark.parametrize(
    ("role", "body"),
    [
        ("worker", {"type": "killed-flows", "killed": -1}),
        ("worker", {"type": "killed-flows", "killed": 2**63}),
        ("worker", {"type": "killed-flows", "killed": True}),
        ("worker", {"type": "killed-flows", "killed": "1"}),
        ("worker", {"type": "flow-list", "flows": [{"client": "x" * 4097}], "more": False}),
        ("worker", {"type": "flow-list", "flows": [{"packets": 10**400}], "more": False}),
        *(
            ("worker", {"type": "flow-list", "flows": [{"packets": number}], "more": False})
            for number in (2**64, 2**65, -(2**63) - 1)
        ),
        ("worker", {"type": "flow-list", "flows": [{"client": ["nested"]}], "more": False}),
        ("host helper", {"type": "connection-counts", "marks": {"4294967296": 1}}),
        ("host helper", {"type": "connection-counts", "marks": {"-1": 1}}),
        ("host helper", {"type": "connection-counts", "marks": {"x": 1}}),
        ("host helper", {"type": "connection-counts", "marks": {"1": -1}}),
        ("host helper", {"type": "tables-restored", "families": [5]}),
        ("host helper", {"type": "tables-restored", "families": [8]}),
        ("host helper", {"type": "host-conditions", "found": {"x": ["fatal", ""]}}),
        ("host helper", {"type": "host-conditions", "found": {"x" * 1001: ["degraded", ""]}}),
        ("host helper", {"type": "host-conditions", "found": {"x": ["degraded", "x" * 1001]}}),
        ("host helper", {"type": "reading", "carried": {"4": {"1": {"requests": [1]}}}}),
        ("host helper", {"type": "reading", "fill": [1, 2]}),
        ("http", {"type": "show", "listener": "control", "view": "secrets"}),
        ("http", {"type": "show", "listener": "root", "view": "health"}),
        ("http", {"type": "show", "view": "health"}),
        ("http", {"type": "flows", "listener": "control", "limit": 0}),
        ("http", {"type": "flows", "listener": "control", "limit": MOST_LISTED + 1}),
        ("http", {"type": "flows", "listener": "control", "limit": 1.0}),
        ("http", {"type": "kill", "listener": "control", "all": "yes"}),
        ("http", {"type": "kill", "listener": "control", "match": {"everything": True}}),
        ("http", {"type": "set", "listener": "stats", "service": "web"}),
        ("http", {"type": "set", "listener": "stats", "service": "s", "backend": "x" * 4097}),
        (
            "http",
            {
                "type": "set",
                "listener": "stats",
                "service": "s",
                "backend": "b",
                "weight": 2**63,
            },
        ),
        ("http", {"type": "reload", "listener": "control", "force": 1}),
    ],
    ids=str,
)
def test_values_out_of_bounds(role: str, body: dict[str, Any]) -> None:
    """One field that is too large, too long, of another type, or missing."""
    with pytest.raises(ValidationError):
        FROM_ROLE[role].validate_json(json.dumps(body))
