"""Base of the messages: strict and bounded fields, and errors that survive the wire."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from paraglider.config.diagnostics import ConfigError
from paraglider.config.model import Config
from paraglider.daemon.ipc import encode
from paraglider.daemon.messages.base import (
    Acknowledged,
    DnsName,
    FlowMatch,
    Index,
    Mark,
    PlainConfig,
    PortNumber,
    Refusal,
)
from paraglider.errors import OperatorError, ParagliderError, PlatformError
from paraglider.forward.flows import Match
from paraglider.health.results import LONGEST_NAME

NAMES = st.none() | st.text(min_size=1, max_size=20)
NETWORKS = st.ip_addresses().flatmap(
    lambda address: st.integers(0, address.max_prefixlen).map(
        lambda length: ipaddress.ip_network((address, length), strict=False)
    )
)


@settings(max_examples=30)
@given(st.none() | NETWORKS, NAMES, NAMES)
def test_a_flow_match_survives_the_wire(client: Any, backend: str | None, name: str | None) -> None:
    """The match of a request equals the worker's."""
    match = Match(client, backend, name)
    sent = FlowMatch.of(match).model_dump_json()
    assert FlowMatch.model_validate_json(sent).parsed() == match


@pytest.mark.parametrize("client", ["", "nowhere", "192.0.2.0/33", "192.0.2.1:80", "\0"])
def test_a_client_that_is_no_network(client: str) -> None:
    """The requester's mistake, with the remedy."""
    with pytest.raises(OperatorError) as error:
        FlowMatch(client=client).parsed()
    assert error.value.remedy


@pytest.mark.parametrize(
    "fields",
    [{"client": 7}, {"backend": ["b"]}, {"service": "x" * (LONGEST_NAME + 1)}, {"port": "80"}],
)
def test_fields_of_a_flow_match_are_strict(fields: dict[str, Any]) -> None:
    """Other types, unbounded names and unknown fields are invalid."""
    with pytest.raises(ValidationError):
        FlowMatch.model_validate(fields)


def test_a_message_never_changes() -> None:
    """One object is sent to several processes."""
    match = FlowMatch(service="web")
    with pytest.raises(ValidationError):
        setattr(match, "service", "other")  # noqa: B010 - mypy forbids it too


def test_an_error_does_not_repeat_what_came() -> None:
    """Errors are logged, and the log must not have values of a process."""
    with pytest.raises(ValidationError) as error:
        Refusal.model_validate({"error": "no", "fault": "secret-1", "lines": ["secret-2", 3]})
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "lowest", "highest"),
    [(Index, 0, 2**63 - 1), (Mark, 0, 2**32 - 1), (PortNumber, 0, 65535)],
    ids=["index", "mark", "port"],
)
def test_bounds_of_numbers(kind: Any, lowest: int, highest: int) -> None:
    """Both ends are valid, and nothing beyond them."""
    adapter = TypeAdapter[int](kind)
    assert [adapter.validate_python(n) for n in (lowest, highest)] == [lowest, highest]
    for number in (lowest - 1, highest + 1):
        with pytest.raises(ValidationError):
            adapter.validate_python(number)


@pytest.mark.parametrize("server", ["", "192.0.2.53:53", "[2001:db8::53]:5353"])
def test_a_name_and_its_server(server: str) -> None:
    """The server is an endpoint, or empty for that of the host."""
    adapter = TypeAdapter(DnsName)
    name = DnsName("_web._tcp.example", server, 6)
    assert adapter.validate_json(adapter.dump_json(name)) == name


@pytest.mark.parametrize(
    "name",
    [
        ["n", "192.0.2.53", 4],
        ["n", "example:53", 4],
        ["n", "192.0.2.53:65536", 4],
        ["n", "", 5],
        ["n", "", "4"],
        ["n", ""],
        ["n" * (LONGEST_NAME + 1), "", 4],
    ],
)
def test_what_is_no_name(name: list[Any]) -> None:
    """A server without a port, a name for a server, another family, too few or too long fields."""
    with pytest.raises(ValidationError):
        TypeAdapter(DnsName).validate_python(name)


@pytest.mark.parametrize("plain", [None, 7, "services", [], {"services": 1}, {"unknown": {}}])
def test_what_is_no_configuration(plain: Any) -> None:
    """It is invalid, without another exception."""
    with pytest.raises(ValidationError):
        TypeAdapter[Config](PlainConfig).validate_python(plain)


def test_refusals() -> None:
    """An error is the same at the other end; the lines of a file's mistakes go along."""
    for error in (OperatorError("no", "do"), PlatformError("none")):
        found = Refusal.of(error).to_error()
        assert (type(found), found.what, found.remedy) == (type(error), error.what, error.remedy)
    assert Refusal.of(ConfigError(["f:1:1: no"])).lines == ("f:1:1: no",)


@settings(max_examples=30)
@given(st.text(), st.text(), st.sampled_from((OperatorError, PlatformError)))
def test_any_error_survives_the_wire(what: str, remedy: str, kind: type[ParagliderError]) -> None:
    """With its kind, which is the requester's exit code."""
    sent = encode(Refusal.of(kind(what, remedy)))
    found = Refusal.model_validate_json(sent).to_error()
    assert (type(found), found.what, found.remedy) == (kind, what, remedy)


def test_the_type_is_fixed() -> None:
    """No message passes for another."""
    with pytest.raises(ValidationError):
        Acknowledged.model_validate({"type": "refusal"})
