"""The cost of a set-up, a second one, a reload and an undo is linear in the size of the file.

The cost is the number of function calls, Python's and C's, on a fake host, so it is the same on
every machine. From n to 2n, and from 2n to 4n services a linear cost grows by d and 2d, a quadratic
one by d and nearly 4d.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from paraglider.config.load import parse
from paraglider.config.model import Config
from paraglider.config.types import IPInterface
from paraglider.core.strategies import STRATEGIES
from paraglider.daemon.inputs.reload import Capabilities, compare
from paraglider.daemon.store.store import Desired
from paraglider.host import apply
from paraglider.host.state import StateFile

BOTH = frozenset({4, 6})
FEW = 8
NETWORK = {
    "public": {"interface": "eth0"},
    "private": {"interface": "eth1", "gateway": ["10.0.0.254/8", "fd00:10::fe/64"]},
}


def many_vips(count: int, forward: str) -> list[dict[str, Any]]:
    """Services with a VIP and two backends each, in both families."""
    services = []
    for number in range(count):
        high, low = divmod(number, 125)
        backends = [f"10.0.{high + 1}.{2 * low + 1}", f"10.0.{high + 1}.{2 * low + 2}"]
        vip = f"192.168.{high + 16}.{low + 1}/32"
        if number % 2:
            backends = [
                f"fd00:10::{high + 1}:{2 * low + 1:x}",
                f"fd00:10::{high + 1}:{2 * low + 2:x}",
            ]
            vip = f"2001:db8::{high + 1}:{low + 1:x}/128"
        services.append({"name": f"s{number}", "vip": vip, "backends": backends})
    return [{**s, "protocol": "tcp", "ports": 80, "forward": forward} for s in services]


def many_backends(count: int, forward: str) -> list[dict[str, Any]]:
    """One service."""
    backends = [f"10.0.{number // 250}.{number % 250 + 1}" for number in range(2 * count)]
    one = {"name": "a", "vip": "192.168.0.11/24", "backends": backends, "forward": forward}
    return [{**one, "protocol": "tcp", "ports": 80}]


def many_ports(count: int, forward: str) -> list[dict[str, Any]]:
    """Services that share one VIP and two backends, each with its own port."""
    one = {"vip": "192.168.0.11/24", "forward": forward}
    return [
        {
            **one,
            "name": f"s{n}",
            "backends": ["10.0.0.1", "10.0.0.2"],
            "protocol": "tcp",
            "ports": 1000 + 2 * n,
        }
        for n in range(count)
    ]


class Held(dict[IPInterface, None]):
    """The addresses of an interface, without linear searches."""

    def append(self, address: IPInterface) -> None:
        """As for a list."""
        self[address] = None

    def remove(self, address: IPInterface) -> None:
        """As for a list."""
        del self[address]


def calls(run: Callable[[], object]) -> int:
    """How many functions ``run`` calls."""
    count = 0

    def seen(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(seen)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count


def costs(air: Any, directory: Path, services: list[dict[str, Any]]) -> dict[str, int]:
    """The calls of each step with ``services``; afterwards the host is as it was."""
    content = {"chroot": "/tmp", "user": "root", "network": NETWORK, "services": services}
    text = yaml.safe_dump(content)
    found: dict[str, int] = {}
    read: list[Config] = []
    found["read"] = calls(lambda: read.append(parse(text, "file").config))
    (config,) = read
    state = StateFile(directory, 7)

    def set_up() -> None:
        steps = apply.prepare(config, BOTH, air.host, state)
        apply.set_up(steps, air.host, state, air.say)
        apply.unresolved(config, BOTH, air.host)
        apply.arrived(steps)

    found["set up"] = calls(set_up)
    found["set up again"] = calls(set_up)
    services[0]["backends"].append("10.0.200.1" if "." in services[0]["vip"] else "fd00:10::200")
    other = Config.model_validate({**content, "services": services})
    able = Capabilities(
        frozenset({"worker", "proxy worker", "conntrack counter"}), frozenset(STRATEGIES)
    )
    found["reload"] = calls(
        lambda: Desired(config).replaced(compare(config, other, able).config).config
    )
    found["undo"] = calls(lambda: apply.undo(BOTH, air.host, state, air.say))
    return found


@pytest.mark.parametrize(
    ("many", "forward"),
    [
        *((many_vips, forward) for forward in ("nat", "offload", "dsr", "proxy")),
        *((many_backends, forward) for forward in ("nat", "offload", "dsr")),
        *((many_ports, forward) for forward in ("nat", "proxy")),
    ],
)
def test_the_cost_is_linear(
    air: Any, tmp_path: Path, many: Callable[[int, str], list[dict[str, Any]]], forward: str
) -> None:
    """For every step, and each kind of object."""
    air.netlink.held = {name: Held() for name in air.netlink.held}
    before = air.snapshot()
    one, two, four = (costs(air, tmp_path, many(n * FEW, forward)) for n in (1, 2, 4))
    assert air.snapshot() == before
    growth = {
        step: (four[step] - two[step]) / (two[step] - one[step])
        for step in one
        if four[step] - two[step] > 20 * FEW  # else it does not grow at all
    }
    assert {step: round(ratio, 2) for step, ratio in growth.items() if ratio > 2.6} == {}
    assert {"read", "set up", "set up again", "reload"} <= set(growth)
