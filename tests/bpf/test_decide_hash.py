"""The program and Python pick the same backend, and find the same worker, for every flow."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address
from random import Random

import pytest

from paraglider.bpf import syscall
from paraglider.bpf.layout import BY_CLIENT, BY_FLOW, FLOW, SERVICE, STEERED_BY_CLIENT
from paraglider.core.checksum import internet_checksum
from paraglider.core.flow import TCP, UDP
from paraglider.core.hmark import worker_of
from paraglider.core.pool import Backend
from paraglider.core.strategies import Context, NewFlow, create
from paraglider.lab.namespace import Namespace
from paraglider.netfilter.rules.steering import MARK_BASE, Steering
from tests.bpf.carrying import REDIRECT, VIP_PORT
from tests.bpf.deciding import SEED, Deciding
from tests.core.packets import FAMILIES, V4, Family, packed
from tests.waiting import wait_until

pytestmark = pytest.mark.root

families = pytest.mark.parametrize("family", FAMILIES, ids=("v4", "v6"))
#: flows of each family, protocol and strategy: 100,000 in all
FLOWS = 12_500
FIRST_SLOT = 100


def packet(family: Family, protocol: int, client: bytes, port: int, flags: int = 2) -> bytes:
    """A client's first packet, by hand: scapy takes a second for a thousand."""
    vip = packed(family.vip)
    ends = port.to_bytes(2, "big") + VIP_PORT.to_bytes(2, "big")
    rest = struct.pack("!IIBBHHH", 1, 0, 0x50, flags, 1000, 1, 0)
    body = ends + (rest if protocol == TCP else struct.pack("!HH", 8, 1))
    if family.number == 4:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, protocol, 0)
        head = head[:10] + internet_checksum(head + client + vip).to_bytes(2, "big")
    else:
        head = struct.pack("!IHBB", 6 << 28, len(body), protocol, 64)
    return head + client + vip + body


@families
@pytest.mark.parametrize("protocol", [TCP, UDP], ids=("tcp", "udp"))
@pytest.mark.parametrize(("strategy", "kind"), [("maglev", BY_FLOW), ("source", BY_CLIENT)])
def test_the_program_picks_as_python_does(
    deciding: Deciding, family: Family, protocol: int, strategy: str, kind: int
) -> None:
    """For random clients and ports the packet goes to the backend that the strategy picks."""
    random = Random(f"{family.number} {protocol} {strategy}")
    backends = tuple(
        Backend(str(n), packed(address), weight=n + 1) for n, address in enumerate(family.backends)
    )
    made = create(strategy, Context("web", seed=random.getrandbits(64)))
    made.prepare(backends)
    for index in range(len(backends)):
        deciding.bed.translate(family, index=FIRST_SLOT + index, backend=index)
    numbers = {backend: FIRST_SLOT + n for n, backend in enumerate(backends)}
    deciding.write(kind, made.kernel_table(lambda _: 0, 0), numbers)
    end = (packed(family.vip), VIP_PORT.to_bytes(2, "big"), protocol, family.number)
    deciding.decisions.set_services({SERVICE.pack(*end): deciding.index})
    size = 4 if family.number == 4 else 16
    at = 14 + (16 if size == 4 else 24)  # of the destination in the frame
    interface = socket.if_nametoindex("pub")
    picked = set()
    for _ in range(FLOWS):
        client, port = random.randbytes(size), random.getrandbits(16)
        if client[0] in (0, 127, 255) or (client[0] >= 224 > 0 and size == 4):
            client = b"\x0b" + client[1:]
        if size == 16:
            client = b"\x20" + client[1:]
        frame = deciding.bed.frame(packet(family, protocol, client, port))
        ran = syscall.run_program(deciding.bed.program, frame, interface)
        assert ran.value == REDIRECT
        key = client + packed(family.vip) + port.to_bytes(2, "big") + VIP_PORT.to_bytes(2, "big")
        backend = made.pick(NewFlow(protocol, key, 0.0))
        assert ran.packet[at : at + size] == backend.address
        picked.add(backend)
    assert picked == set(backends)


def owners(
    deciding: Deciding, family: Family, clients: list[tuple[bytes, int]], flags: int
) -> list[int]:
    """The workers of flows of these clients, by the entries that the program has made by a decision
    with ``flags``.
    """
    deciding.decide(family, "turn", bound=1 << 31, flags=flags)
    flows = deciding.bed.maps.flows[TCP, family.number]
    found = []
    for client, port in clients:
        frame = deciding.bed.frame(packet(family, TCP, client, port))
        ran = syscall.run_program(deciding.bed.program, frame, socket.if_nametoindex("pub"))
        assert ran.value == REDIRECT
        key = client + packed(family.vip) + port.to_bytes(2, "big") + VIP_PORT.to_bytes(2, "big")
        value = flows.get(key)
        assert value is not None
        found.append(FLOW.unpack(value)[4])
    return found


@families
@pytest.mark.parametrize("by_client", [False, True], ids=("by-flow", "by-client"))
@pytest.mark.parametrize("workers", [1, 3, 8])
def test_the_owner_is_the_worker_that_hmark_finds(
    deciding: Deciding, family: Family, by_client: bool, workers: int
) -> None:
    """Real packets of the same flows pass iptables with our HMARK rule, which counts them."""
    network = 24 if family is V4 else 64
    base = int(ip_address(family.client)) >> (128 - network if family is not V4 else 8)
    random = Random(workers)
    clients = []
    for number in range(60):
        host = base << (32 - network if family is V4 else 128 - network) | (20 + number)
        address = host.to_bytes(4 if family is V4 else 16, "big")
        clients.append((address, random.getrandbits(16)))
    deciding.steer(family, workers)
    found = owners(deciding, family, clients, STEERED_BY_CLIENT if by_client else 0)
    assert set(found) == set(range(workers))
    hashed = [(client, 0 if by_client else port) for client, port in clients]
    assert found == [worker_of(client, port, SEED, workers) for client, port in hashed]
    rule = Steering(tuple(range(workers)), SEED, by_client).by_source()
    for worker in range(workers):
        mine = [one for one, owner in zip(clients, found, strict=True) if owner == worker]
        packets = [packet(family, TCP, client, port) for client, port in mine]
        assert steered(deciding, family, "tcp", rule, worker, packets) == len(mine)


@families
def test_echo_requests_are_steered_by_the_address(deciding: Deciding, family: Family) -> None:
    """Whatever their identifiers: to the worker that Python finds for port 0."""
    client, rule = packed(family.client), Steering((0, 1, 2), SEED).by_source()
    requests = [
        bytes(family.echo(family.client, family.vip, reply=False, identifier=number))
        for number in range(5)
    ]
    kind = "icmp" if family is V4 else "icmpv6"
    match = f"{kind} --{kind}-type echo-request"
    owner = worker_of(client, 0, SEED, 3)
    counts = [steered(deciding, family, match, rule, worker, requests) for worker in range(3)]
    assert counts == [5 if worker == owner else 0 for worker in range(3)]


def steered(
    deciding: Deciding, family: Family, match: str, rule: str, worker: int, packets: list[bytes]
) -> int:
    """How many of the client's ``packets``, which ``match``, iptables' ``rule`` steers to
    ``worker``.
    """
    program = "iptables" if family is V4 else "ip6tables"
    space = deciding.bed.namespace
    space.run([program, "-w", "-t", "mangle", "-F"])
    append = [program, "-w", "-t", "mangle", "-A", "PREROUTING", "-p", *match.split()]
    space.run([*append, *rule.split()])
    space.run([*append, "-m", "mark", "--mark", f"0x{MARK_BASE + worker:x}"])
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind(("pub-peer", 0))
        for each in packets:
            sender.send(deciding.bed.frame(each))
    wait_until(lambda: counted(space, program)[0] >= len(packets))
    seen, there = counted(space, program)
    assert seen == len(packets)
    return there


def counted(space: Namespace, program: str) -> list[int]:
    """The packets that each rule has seen."""
    listed = space.run([program, "-w", "-t", "mangle", "-vxnL", "PREROUTING"]).stdout
    return [int(line.split()[0]) for line in listed.splitlines()[2:]]
