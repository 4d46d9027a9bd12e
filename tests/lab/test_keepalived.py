"""keepalived's configuration in the lab, and its processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paraglider.lab import keepalived
from paraglider.lab.keepalived import Keepalived, keepalived_configuration

EXAMPLE = Path(__file__).parents[2] / "conf" / "keepalived.conf"
COMMAND = ["/usr/bin/python3", "-m", "paraglider", "-c", "/tmp/lab/lb1/paraglider.conf"]


def blocks(text: str) -> list[str]:
    """The heads of the blocks, and what tracks the health, without comments."""
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    return [line for line in lines if line.endswith("{") or line in ("paraglider", "eth1")]


def test_it_is_the_shipped_example() -> None:
    """With other addresses and times: the same blocks in the same order."""
    text = keepalived_configuration(1, COMMAND, through=True)
    assert blocks(text) == blocks(EXAMPLE.read_text(encoding="utf-8"))
    assert (
        'script "/usr/bin/env /usr/bin/python3 -m paraglider -c /tmp/lab/lb1/paraglider.conf health'
        in text
    )
    assert 'health --node --exit-code"\n' in text


def test_both_balancers() -> None:
    """The files differ in the priority only."""
    one, two = (keepalived_configuration(n, COMMAND, through=True) for n in (1, 2))
    assert one.count("priority 150") == 2
    assert one.replace("priority 150", "priority 100") == two


@pytest.mark.parametrize("through", [True, False])
def test_addresses(through: bool) -> None:
    """The router's next hop, and the backends' gateway if they answer through the balancers; over
    IPv6 a link-local address is the first.
    """
    text = keepalived_configuration(1, COMMAND, through=through)
    moved = [line.strip() for line in text.splitlines() if "/" in line and " dev " in line]
    back = ["10.0.0.254/24 dev eth1", "fd00:10::fe/64 dev eth1"] if through else []
    assert moved == [
        "192.168.0.250/24 dev eth0", *back[:1],
        "fe80::51/64 dev eth0", "2001:db8::250/64 dev eth0", *back[1:],
    ]  # fmt: skip


class Host:
    """A member, its namespace and its processes: what was done is remembered."""

    number = 1
    command = COMMAND

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.host = self
        self.done: list[str] = []

    def popen(self, command: list[str], **_: Any) -> Host:
        """A process."""
        self.done.append(command[0])
        return self

    def run(self, command: list[str], **_: Any) -> None:
        """A program."""
        self.done.append(" ".join(command))

    def terminate(self) -> None:
        """End it."""
        self.done.append("terminate")

    def wait(self) -> None:
        """It has ended."""
        self.done.append("wait")


def test_a_balancer_without_power(tmp_path: Path) -> None:
    """keepalived has ended before the addresses are removed; it can begin again, and end twice."""
    member: Any = Host(tmp_path)
    moving = Keepalived(through=False)
    moving.begin(member)
    moving.cut(member)
    assert member.done == [
        "keepalived", "terminate", "wait",
        "ip address del 192.168.0.250/24 dev eth0", "ip address del 2001:db8::250/64 dev eth0",
    ]  # fmt: skip
    moving.begin(member)
    moving.close()
    moving.close()
    assert member.done[5:] == [keepalived.PROGRAM, "terminate", "wait"]
    assert (tmp_path / "keepalived.conf").read_text() == keepalived_configuration(
        1, COMMAND, through=False
    )
