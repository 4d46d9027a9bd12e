"""ICMP messages that a kernel has no room to send, and what asks again for them.

For errors and echo replies the kernel has one small socket buffer a core, over all network
namespaces (``ipv4_icmp_sk`` in net/ipv4/icmp.c, and in net/ipv6/icmp.c). Messages that wait for the
hardware address of a neighbour fill it, those of another test too; rates (``icmp_ratelimit``) are
of each namespace by itself. The kernel counts each message that it could not send, so a question
is repeated only if there was one.
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
    """How many ICMP messages the network namespaces of this run could not send so far."""
    return sum(unsent_in(Namespace(path.name, attach=True)) for path in NAMES.iterdir())


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
    answer, and a kernel could not send an ICMP message since.
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


def pinged(namespace: Namespace, address: str, *options: str) -> None:
    """``address`` answers every ping of ``ping`` with ``options``; they are sent again only if a
    kernel could not send an ICMP message since.
    """
    command = ["ping", "-W", "30", *(options or ("-c", "1")), address]
    before, said = losses(), ""
    for said in _attempts(namespace, command):
        if " 0% packet loss" in said:
            return
    lost = {name: count for name, count in losses().items() if count != before.get(name, 0)}
    raise AssertionError(f"{address}: {said}\nlosses meanwhile: {lost}\nbefore: {before}")


def losses() -> dict[str, int]:
    """What the kernel has counted as lost so far in each network namespace, by its name and the
    counter's: a failure shows it.
    """
    found = {}
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
    """The outputs of ``command``: the last, unless the reader ends before, is one without an ICMP
    message that could not be sent. One that waits for such a message is ended.
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
