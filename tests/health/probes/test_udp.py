"""Tests of ``paraglider.health.probes.udp``: against real sockets of this host."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paraglider.health.codes import Code
from paraglider.health.probes.base import CheckResult
from paraglider.health.probes.udp import Udp

#: each example is a check of its own, which shares nothing with the others
ANSWERS = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
STEPS = [{"send": r"ping\x00", "expect": r"^pong\xff$"}]


def echo(data: bytes) -> Iterable[bytes]:
    """What a good server answers."""
    return [data.replace(b"ping\0", b"pong\xff")]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_answered(probing_udp: Callable[..., CheckResult], address: str) -> None:
    """A datagram with the bytes of the escapes is answered as expected."""
    found = probing_udp(Udp(), echo, address=address, type="udp", steps=STEPS, timeout=30)
    assert (found.code, found.detail) == (Code.L7OK, r"received 'pong\xff'")


@pytest.mark.parametrize(
    ("answers", "code", "detail"),
    [
        ([b"no"], Code.L7RSP, r"step 1: 'no' does not match '^pong\\xff$'"),
        ([b""], Code.L7RSP, r"step 1: '' does not match '^pong\\xff$'"),
        ([], Code.L7TOUT, "step 1 timed out after 0.3 s"),
        (
            [b"x" * 60000] * 50,
            Code.L7RSP,
            f"step 1: '{'x' * 60}'... does not match '^pong\\\\xff$'",
        ),
        ([b"pong\xff"] * 50, Code.L7OK, r"received 'pong\xff'"),
    ],
)
def test_answers(
    probing_udp: Callable[..., CheckResult], answers: list[bytes], code: Code, detail: str
) -> None:
    """The first datagram decides, however many follow; silence runs into the time."""
    seconds = 0.3 if code is Code.L7TOUT else 30
    found = probing_udp(Udp(), lambda _: answers, type="udp", steps=STEPS, timeout=seconds)
    assert (found.code, found.detail) == (code, detail)


def test_several_steps(probing_udp: Callable[..., CheckResult]) -> None:
    """Each step has its answer, and the check says which failed."""
    steps = [{"send": "a", "expect": "^a$"}, {"send": "b"}, {"expect": "^b$"}]
    found = probing_udp(Udp(), lambda data: [data], type="udp", steps=steps, timeout=30)
    assert found.code is Code.L7OK
    found = probing_udp(Udp(), lambda _: [b"a"], type="udp", steps=steps, timeout=30)
    assert (found.code, found.detail) == (Code.L7RSP, "step 3: 'a' does not match '^b$'")


def test_closed(probing: Callable[..., CheckResult]) -> None:
    """A port that nobody has is refused at once."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    found = probing(Udp(), port=port, type="udp", steps=STEPS, timeout=30)
    assert (found.code, found.detail) == (Code.L4CON, "step 1: connection refused")


@ANSWERS
@given(answer=st.binary(max_size=300))
def test_any_answer(probing_udp: Callable[..., CheckResult], answer: bytes) -> None:
    """Whatever comes is the answer, or another one: nothing else happens."""
    steps = [{"send": "?", "expect": "^ok"}]
    found = probing_udp(Udp(), lambda _: [answer], type="udp", steps=steps, timeout=60)
    assert found.code is (Code.L7OK if answer.startswith(b"ok") else Code.L7RSP)
    assert found.detail.isprintable()
