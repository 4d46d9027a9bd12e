"""Packets that a kernel has no room for, and what asks again for them.

For errors and echo replies the kernel has one small socket buffer a core, over all network
namespaces (``ipv4_icmp_sk`` in net/ipv4/icmp.c, and in net/ipv6/icmp.c). Messages that wait for the
hardware address of a neighbour fill it, those of another test too; rates (``icmp_ratelimit``) are
of each namespace by itself. Likewise the packets of all namespaces that wait for a core
(``netdev_max_backlog`` in net/core/dev.c). The kernel counts each message that it could not send,
and each packet that found no room, so a question is repeated only if there was one.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from paraglider.lab.namespace import NAMES, Namespace

PEER = Path(__file__).parent / "peer.py"
#: seconds between two looks at whether a question without an answer may be repeated
AGAIN = 2.0


def unsent() -> int:
    """How many ICMP messages the network namespaces of this run could not send so far, and how many
    packets found no room.
    """
    messages = sum(unsent_in(Namespace(path.name, attach=True)) for path in NAMES.iterdir())
    return messages + overflows()


def overflows() -> int:
    """How many packets found their core's queue full so far (/proc/net/softnet_stat, second
    column).
    """
    lines = Path("/proc/net/softnet_stat").read_text().splitlines()
    return sum(int(line.split()[1], 16) for line in lines)


def unsent_in(namespace: Namespace) -> int:
    """As ``unsent``, of one namespace; 0 if it is gone."""
    try:
        with namespace.entered():
            names, numbers = (
                line.split()
                for line in Path("/proc/thread-self/net/snmp").read_text().splitlines()
                if line.startswith("Icmp:")
            )
            six = Path("/proc/thread-self/net/snmp6").read_text()
    except OSError:  # it is being removed, or made
        return 0
    found = re.search(r"^Icmp6OutErrors\s+(\d+)", six, re.MULTILINE)
    return int(numbers[names.index("OutErrors")]) + (0 if found is None else int(found[1]))


def result_of(namespace: Namespace, *arguments: object) -> dict[str, Any]:
    """The result of ``peer.py`` in ``namespace``. A datagram (``udp``) is sent again if it has no
    answer, and a kernel had no room since.
    """
    command = [sys.executable, str(PEER), *map(str, arguments)]
    again = arguments[0] == "udp"
    said_once = () if again else (namespace.run(command, timeout=180).stdout,)
    result: dict[str, Any] = {}
    for said in _attempts(namespace, command) if again else said_once:
        result = json.loads(said)
        if result != {"error": "timed out"}:
            break
    return result


def pinged(namespace: Namespace, address: str, *options: str, count: int = 1) -> None:
    """``address`` answers ``count`` pings of ``ping`` with ``options``, which have one identifier;
    one is sent again only if a kernel had no room since.

    Each is of a process of its own: one with several waits for the last answers only for twice the
    longest time that the first took.
    """
    command = ["ping", "-W", "30", "-c", "1", "-e", "4711", *options, address]
    before, said = losses(), ""
    for _ in range(count):
        for said in _attempts(namespace, command):
            if " 0% packet loss" in said:
                break
        else:
            now = losses().items()
            lost = {name: n for name, n in now if n != before.get(name, 0)}
            raise AssertionError(f"{address}: {said}\nlosses meanwhile: {lost}\nbefore: {before}")


def losses() -> dict[str, int]:
    """What the kernel has counted as lost so far in each network namespace, by its name and the
    counter's: a failure shows it.
    """
    found = {"packets without room": overflows()}
    for path in NAMES.iterdir():
        try:
            with Namespace(path.name, attach=True).entered():
                six = Path("/proc/thread-self/net/snmp6").read_text()
                four = Path("/proc/thread-self/net/snmp").read_text()
        except OSError:  # it is being removed, or made
            continue
        counted = [line.split() for line in six.splitlines()]
        lines = [line.split() for line in four.splitlines()]
        for names, numbers in zip(lines[::2], lines[1::2], strict=True):
            counted += [[names[0] + name, n] for name, n in zip(names, numbers, strict=True)]
        for name, number in counted:
            if re.search(r"Discards|Fails|Errors|NoRoutes", name) and int(number, 0):
                found[f"{path.name} {name}"] = int(number, 0)
    return found


def _attempts(namespace: Namespace, command: list[str]) -> Iterator[str]:
    """The outputs of ``command``: the last, unless the reader ends before, is one in which no
    kernel lacked room. One that waits for what had no room is ended.
    """
    while True:
        before = unsent()
        asking = namespace.popen(command, stdout=subprocess.PIPE)
        said: bytes | None = None
        while said is None:
            try:
                said, _ = asking.communicate(timeout=AGAIN)
            except subprocess.TimeoutExpired:
                if unsent() > before:
                    asking.kill()
        if said:
            yield said.decode()
        if unsent() == before:
            return
