"""Fixtures of the end-to-end tests: networks, real servers, and a running balancer.

A test reads like this (everything is stopped, undone and removed afterwards)::

    def test_round_robin(topology, serve, config, balancer, ask):
        net = topology()  # or topology(router=True, client_mtu=1400)
        serve(net)
        balancer(net, config({"name": "web", "vip": "192.168.0.11/24", ...}))
        assert ask(net, "tcp", VIP[4], 80, 30) == {"backend1": 10, "backend2": 10, "backend3": 10}

The addresses are those of ``paraglider.lab.topology``.
"""

from __future__ import annotations

import contextlib
import functools
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from paraglider.forward.registry import methods
from paraglider.host import announce, carrier_check
from paraglider.host.carrier_record import Outcome
from paraglider.host.state import StateFile
from paraglider.lab.balancer import LabBalancer, StaticBalancer
from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import (
    PUBLIC_PREFIX,
    VIP,
    Plan,
    Topology,
    backend_address,
)

# With --import-mode=importlib the tests find no module beside them: ``offloading``. Fixtures here
# import theirs when they are asked for.
sys.path.insert(0, str(Path(__file__).parent))

PEER = Path(__file__).parent / "peer.py"
BIG = 8 * 1024 * 1024  # bytes of nginx's /big


@pytest.fixture(scope="session", autouse=True)
def _forked_programs() -> Iterator[None]:
    """Daemons, servers and clients are forked from a process that has their imports."""
    from forkserver import ForkingNamespace

    forking = ForkingNamespace()
    with pytest.MonkeyPatch.context() as patch:
        forking.patch(patch)
        yield
    forking.close()


_passed: dict[tuple[bytes, str], Outcome] = {}


@pytest.fixture(scope="module", autouse=True)
def _quick_set_ups() -> Iterator[None]:
    """Set-ups of this process announce addresses without pauses, since these networks lose nothing,
    and make the self-check of a program that has passed it only once.

    For each module, so that the tests of other folders have the real ones.
    """
    check = carrier_check._outcome

    def outcome(image: bytes, program: str) -> Outcome:
        found = _passed.get((image, program)) or check(image, program)
        if not any(found):
            _passed[image, program] = found
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(announce, "_BETWEEN", 0.0)
        patch.setattr(carrier_check, "_outcome", outcome)
        yield


@pytest.fixture
def topology() -> Iterator[Callable[..., Topology]]:
    """A factory of networks."""
    made: list[Topology] = []

    def make(**plan: Any) -> Topology:
        made.append(Topology(Plan(**plan)))
        return made[-1]

    yield make
    while made:
        made.pop().close()


@pytest.fixture(scope="session")
def big_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that every nginx sends at ``/big``."""
    path = tmp_path_factory.mktemp("nginx") / "big"
    path.write_bytes(bytes(range(256)) * (BIG // 256))
    return path


@pytest.fixture
def serve(tmp_path: Path, big_file: Path) -> Callable[..., None]:
    """A function that starts nginx and UDP echo in all backends of a network.

    nginx answers the backend's name (``backend1``, …) at ``/``, the client's address as the
    backend sees it at ``/from`` and ``BIG`` bytes, the same everywhere, at ``/big``; the UDP echo
    answers the name, a space and the datagram.
    """

    from serving import serve

    def start(net: Topology, *, http: Sequence[int] = (80,), udp: Sequence[int] = (5353,)) -> None:
        serve(net, tmp_path, big_file, http=http, udp=udp)

    return start


@pytest.fixture
def carrier(request: pytest.FixtureRequest) -> str:
    """What carries the flows of methods with several carriers, by default what the configuration
    does; the marks of ``carrying`` set it.
    """
    return getattr(request, "param", "")


@pytest.fixture
def service(carrier: str) -> Callable[..., dict[str, Any]]:
    """A function that makes a service: ``service(4, ports=80, strategy="wrr")``.

    It is called ``web4`` or ``web6``, has the VIP of the family and all three backends; a change
    of ``weights`` gives those to the backends. It has the ``carrier`` if its method has several.
    """

    def make(
        family: int, *, weights: Sequence[int] = (), backends: int = 3, **changes: Any
    ) -> dict[str, Any]:
        forward = changes.get("forward", "nat")
        several = [method.name for method in methods() if "carrier" in method.options]
        servers: list[Any] = [backend_address(family, n + 1) for n in range(backends)]
        if weights:
            servers = [
                {"address": address, "weight": weight}
                for address, weight in zip(servers, weights, strict=True)
            ]
        return {
            "name": f"web{family}",
            "vip": f"{VIP[family]}/{PUBLIC_PREFIX[family]}",
            "protocol": "tcp",
            "backends": servers,
            **({"carrier": carrier} if carrier and forward in several else {}),
            **changes,
        }

    return make


@pytest.fixture
def peer() -> Callable[..., dict[str, Any]]:
    """A function that runs ``peer.py`` in a namespace and returns its result."""

    from unsent import result_of

    return result_of


@pytest.fixture
def serve_peer() -> Callable[..., None]:
    """A function that has all backends of a network serve ``peer.py``'s transfers."""

    from serving import serve_peer

    return serve_peer


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., str]:
    """A function that writes out a configuration for the networks of ``topology``.

    It has the network section, a chroot directory and a control socket of the test's own, and
    ``workers`` workers.
    """
    from sharing import configuration

    (tmp_path / "empty").mkdir()
    return functools.partial(configuration, tmp_path)


@pytest.fixture
def balancer(
    topology: Callable[..., Topology],
    tmp_path: Path,
) -> Iterator[Callable[..., LabBalancer]]:
    """A factory of running balancers: set up, and ready unless ``start=False``.

    Afterwards each is stopped and undone, and the test fails if the daemon's exit code is not 0 or
    its log has an error or a traceback, unless ``trouble=True``. (``topology`` is requested so that
    the networks outlive the balancers.)
    """
    from inside import InsideBalancer

    made: list[tuple[LabBalancer, bool]] = []

    def make(
        net: Topology, text: str, *arguments: str, start: bool = True, trouble: bool = False
    ) -> LabBalancer:
        directory = tmp_path / f"balancer{len(made)}"
        directory.mkdir()
        balancer = InsideBalancer(net.balancer, directory, text, arguments)
        made.append((balancer, trouble))
        balancer.set_up()
        if start:
            balancer.start()
        return balancer

    yield make
    faults: list[str] = []
    for made_one, trouble in made:
        if code := made_one.stop():
            faults.append(f"the daemon's exit code was {code}")
        made_one.undo()
        if not trouble:
            faults += made_one.trouble()
        if faults:
            faults.append(made_one.log())
    assert not faults, "\n".join(faults)


@pytest.fixture(scope="module")
def sharing(
    tmp_path_factory: pytest.TempPathFactory, big_file: Path
) -> Iterator[Callable[..., Any]]:
    """A factory of networks for all tests of a module, see ``sharing.Shared``."""
    from sharing import Shared

    with contextlib.ExitStack() as stack:

        def make(**plan: Any) -> Shared:
            net = stack.enter_context(Topology(Plan(**plan)))
            return stack.enter_context(Shared(net, tmp_path_factory.mktemp("shared"), big_file))

        yield make


@pytest.fixture
def start(
    topology: Callable[..., Topology], tmp_path: Path
) -> Iterator[Callable[..., StaticBalancer]]:
    """A function that runs `start` for a configuration in a network, and stops it afterwards.
    (``topology`` is requested so that the networks outlive it.)
    """
    from inside import InsideStaticBalancer

    made: list[StaticBalancer] = []

    def run(net: Topology, text: str) -> StaticBalancer:
        made.append(InsideStaticBalancer(net.balancer, tmp_path, text))
        made[-1].set_up()
        return made[-1]

    yield run
    for one in made:
        one.undo()


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Callable[[Topology], list[Any]]]:
    """A function that has the client open connections of each family until the test ends."""
    from failing import LONG, Load

    made: list[Any] = []

    def start(net: Topology) -> list[Any]:
        made.extend(
            Load(net, family, tmp_path / f"load{family}", patience=LONG) for family in (4, 6)
        )
        return made

    yield start
    for one in made:
        one.stop()


@pytest.fixture
def backend_setup(
    topology: Callable[..., Topology],
) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """A function that runs ``paraglider backend-setup`` in a backend, with the balancer's file. Its
    changes end with the namespace; its state in /run is removed afterwards.
    """
    used: set[Namespace] = set()

    def run(
        backend: Namespace, file: Path, *arguments: str, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        used.add(backend)
        command = [sys.executable, "-m", "paraglider", "backend-setup", "-c", str(file)]
        return backend.run([*command, *arguments], check=check)

    yield run
    for backend in used:
        with backend.entered():
            StateFile(purpose="backend").store([])


class _Ports:
    """The ports that datagrams of ``ask`` come from, in turn: none that the kernel gives a socket.

    The kernel chooses at random: one time in thirty, two of thirty sockets each have a port in
    common, and what is remembered of the flow of the one takes a turn from the other's.
    """

    def __init__(self) -> None:
        self._next = 10_000

    def first(self, count: int) -> int:
        """The first of ``count`` ports that have not been used for long."""
        first = self._next if self._next + count <= 32_000 else 10_000
        self._next = first + count
        return first


_ports = _Ports()


@pytest.fixture
def ask() -> Callable[..., Counter[str]]:
    """A function that has the client open ``count`` flows (tcp, udp or ping), one after the other.

    It counts the answers by the backend's name; a failed try fails the test. A ping or datagram
    that is lost is sent again if a kernel had no room for it or its answer (``unsent``).
    """
    from unsent import overflows, unsent

    def tried(net: Topology, *arguments: str) -> tuple[Counter[str], list[str]]:
        # A busy machine needs the time; a ping that a kernel has lost takes all of it.
        seconds = "10" if arguments[0] == "ping" else "20"
        command = [sys.executable, "-m", "paraglider.lab.client", *arguments, seconds]
        if arguments[0] == "udp":
            command += ["0", str(_ports.first(int(arguments[-1])))]
        done = net.client.run(command, timeout=400)
        results = [json.loads(line) for line in done.stdout.splitlines()]
        errors = [result["error"] for result in results if "error" in result]
        return Counter(result["answer"] for result in results if "answer" in result), errors

    def count_answers(
        net: Topology, protocol: str, address: str, port: int, count: int = 30
    ) -> Counter[str]:
        answers: Counter[str] = Counter()
        left = count
        while left:
            lost = unsent if protocol == "ping" else overflows
            before = lost()
            some, errors = tried(net, protocol, address, str(port), str(left))
            answers += some
            left = len(errors)
            assert not errors or (protocol != "tcp" and lost() > before), errors
        return answers

    return count_answers
