"""Two thousand backends that accept and say nothing: each check ends in its time, by its code."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Any

import pytest
from waiting import TIMEOUT, descriptors

from paraglider.config.health import AgentCheck, Check
from paraglider.health.checker import AT_ONCE, Checker
from paraglider.health.results import AgentReport, CheckReport
from paraglider.health.targets import Target

LOCAL = ipaddress.ip_address("127.0.0.1")
BACKENDS = 2000
STEPS = ({"send": "?", "expect": "!"},)
CHECKS: tuple[dict[str, Any], ...] = (
    {"type": "tcp", "steps": STEPS},
    {"type": "udp", "steps": STEPS},
    {"type": "dns", "parameters": {"name": "a"}},
    {"type": "dns", "parameters": {"name": "a", "transport": "tcp"}},
    {"type": "redis", "parameters": {"password": "a"}},
    {"type": "postgresql", "parameters": {"user": "a"}},
)


@pytest.mark.timeout(600)
def test_two_thousand_backends_that_hang() -> None:
    """All fail by the time that they have, however many wait for a slot; agents change nothing; no
    descriptor stays open.
    """
    assert BACKENDS > AT_ONCE
    before = descriptors()
    with (
        socket.create_server(("127.0.0.1", 0), backlog=4096) as silent,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf,
    ):
        port = silent.getsockname()[1]
        deaf.bind(("127.0.0.1", port))
        codes, said = asyncio.run(_codes(port))
    assert len(codes) == BACKENDS
    assert {code[2:] for code in codes.values()} == {"TOUT"}
    # a busy machine may take the time for the connection alone
    assert sum(code == "L7TOUT" for code in codes.values()) > BACKENDS / 2
    assert all(report[2:4] != (True, None) and report.weight is None for report in said)
    assert descriptors() == before


async def _codes(port: int) -> tuple[dict[str, str], list[AgentReport]]:
    """The first code of each backend, and what agents were heard to say."""
    codes: dict[str, str] = {}
    agents: list[AgentReport] = []
    every = asyncio.Event()

    def heard(news: object) -> None:
        if isinstance(news, CheckReport):
            codes.setdefault(news.backend, news.code)
        elif isinstance(news, AgentReport):
            agents.append(news)
        if len(codes) == BACKENDS:
            every.set()

    checks = [Check.model_validate({"interval": 3600, "timeout": 1, **each}) for each in CHECKS]
    agent = AgentCheck(port=port, interval=3600, timeout=1)
    checker = Checker(heard, chance=lambda: 0.0)  # all at once
    await checker.start()
    try:
        checker.update(
            Target(
                "web",
                f"b{n}",
                LOCAL,
                port,
                checks[n % len(checks)],
                agent=agent if n < 100 else None,
            )
            for n in range(BACKENDS)
        )
        async with asyncio.timeout(TIMEOUT):
            await every.wait()
    finally:
        await checker.close()
    return codes, agents
