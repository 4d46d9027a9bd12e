"""Two machines with the same file decide alike, and `explain` says what they do."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from paraglider.bpf.layout import BY_CLIENT, BY_FLOW, DIRECT, SERVICE
from paraglider.core import strategies
from paraglider.core.balancer import Balancer
from paraglider.core.explain import explain
from paraglider.core.flow import TCP
from paraglider.core.pool import Pool
from paraglider.core.service import ServiceMap, VirtualService
from paraglider.core.strategies import Context, NewFlow
from tests.bpf.carrying import NUMBER, VIP_PORT, Bed, make_bed, tcp
from tests.bpf.deciding import Deciding
from tests.core.packets import FAMILIES, Family, backend, packed

pytestmark = pytest.mark.root

families = pytest.mark.parametrize("family", FAMILIES, ids=("v4", "v6"))
KINDS = {"maglev": BY_FLOW, "source": BY_CLIENT}
SEED = 20250101
FLOWS = 150


class Machine:
    """A balancer whose file lists the backends in ``order``, and numbers them from ``first`` on."""

    def __init__(
        self, bed: Bed, family: Family, strategy: str, flags: int, order: tuple[int, ...],
        first: int,
    ) -> None:  # fmt: skip
        self.deciding = Deciding(bed)
        self.family = family
        backends = [backend(family.backends[n], weight=n + 1) for n in order]
        made = strategies.create(strategy, Context("web", seed=SEED))
        ports = ((VIP_PORT, VIP_PORT),)
        service = VirtualService("web", packed(family.vip), (TCP,), ports, Pool(backends), made)
        self.balancer = Balancer(ServiceMap((service,)))
        numbers = {}
        for at, (each, index) in enumerate(zip(backends, order, strict=True)):
            numbers[each] = first + at
            bed.translate(family, index=first + at, backend=index)
        self.deciding.write(KINDS[strategy], made.kernel_table(lambda _: 0, 0), numbers, flags)
        end = (packed(family.vip), VIP_PORT.to_bytes(2, "big"), NUMBER["tcp"], family.number)
        self.deciding.decisions.set_services({SERVICE.pack(*end): self.deciding.index})

    def picked(self, client: str, port: int) -> str:
        """The backend to which the program sends a SYN."""
        bed, family = self.deciding.bed, self.family
        build = tcp(family, "S")
        ran = bed.run(bed.frame(bytes(build(client, family.vip, port, VIP_PORT, 64))))
        assert ran.counted == {"stateless": 1}
        (found,) = (
            address
            for address in family.backends
            if ran.packet == bytes(build(client, address, port, VIP_PORT, 63))
        )
        return found

    def explained(self, client: str, port: int) -> str:
        """The backend that `explain` names."""
        vip = packed(self.family.vip)
        ports = port.to_bytes(2, "big") + VIP_PORT.to_bytes(2, "big")
        found = explain(self.balancer, NewFlow(TCP, packed(client) + vip + ports, 0.0))
        assert found.backend is not None
        return found.backend.name


@pytest.fixture
def machines(bed: Bed, request: pytest.FixtureRequest) -> Iterator[tuple[Machine, Machine]]:
    """Two programs with maps of their own."""
    family, strategy, flags = request.param
    one = Machine(bed, family, strategy, flags, (0, 1, 2), 10)
    with make_bed() as second:
        other = Machine(second, family, strategy, flags, (2, 0, 1), 3000)
        yield one, other
        other.deciding.close()
    one.deciding.close()


@pytest.mark.parametrize(
    "machines",
    [(family, kind, flags) for family in FAMILIES for kind in KINDS for flags in (0, DIRECT)],
    ids=lambda given: f"v{given[0].number}-{given[1]}{'-direct' if given[2] else ''}",
    indirect=True,
)
def test_two_machines_and_explain_agree(machines: tuple[Machine, Machine]) -> None:
    """Whatever the order of the backends in the file, and their numbers in the maps."""
    one, other = machines
    random = Random(7)
    found = set()
    for _ in range(FLOWS):
        host, port = random.randrange(2, 200), random.randrange(1024, 65536)
        client = f"192.168.0.{host}" if one.family.number == 4 else f"2001:db8::{host:x}"
        picked = one.picked(client, port)
        assert other.picked(client, port) == picked
        assert one.explained(client, port) == other.explained(client, port) == picked
        found.add(picked)
    assert found == set(one.family.backends)
