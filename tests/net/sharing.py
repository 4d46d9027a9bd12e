"""A network for all tests of a module, and one balancer after the other in it.

Importable by its name (``conftest`` puts this directory on ``sys.path``). A module has a fixture
with the scope of the module that makes a ``Shared`` by the factory ``sharing`` and starts servers::

    @pytest.fixture(scope="module")
    def shared(sharing):
        made = sharing(direct=True)
        made.serve(http=(80, 8080))
        return made

Rules: a test leaves the network as it found it, and reads counters as differences. A balancer that
a test kills, or whose file it changes, is that test's own: ``apart``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from inside import InsideBalancer
from serving import serve, serve_peer

from paraglider.lab.scenario import neighbouring_cores
from paraglider.lab.topology import GATEWAY, PRIVATE_PREFIX, VIP, Topology

#: flows of a worker at most; the default has the kernel fill 32 MB of a map for every family
FLOWS = 100_000


def vip(family: int, number: int) -> str:
    """The VIP ``number`` (1, 2, …) of a family, of which the first is ``VIP``."""
    return f"{VIP[family][:-2]}{10 + number}"


def configuration(directory: Path, *services: dict[str, Any], workers: int = 1, **top: Any) -> str:
    """The text of a configuration for the networks of ``topology``, with the network section,
    ``workers`` workers, a control socket in ``directory`` and the chroot directory ``empty`` there.
    """
    first, last = neighbouring_cores(workers, frozenset(os.sched_getaffinity(0)))
    families = sorted({6 if ":" in service["vip"] else 4 for service in services})
    gateways = [f"{GATEWAY[family]}/{PRIVATE_PREFIX[family]}" for family in families]
    document = {
        "workers": {"first_core": first, "last_core": last},
        "chroot": str(directory / "empty"),
        "flows": {"max": FLOWS},
        "control": {"socket": str(directory / "control.sock")},
        "network": {
            "public": {"interface": "eth0"},
            "private": {"interface": "eth1", "gateway": gateways},
        },
        **top,
        "services": list(services),
    }
    return yaml.safe_dump(document, sort_keys=False)


class Shared:
    """The network ``net``, its servers, and the balancer that runs in it; a context manager."""

    def __init__(self, net: Topology, directory: Path, big: Path) -> None:
        self.net = net
        self._directory = directory
        self._big = big
        self._made = 0
        self._running: InsideBalancer | None = None
        self._key: tuple[str, tuple[str, ...]] | None = None
        self._trouble = False
        (directory / "empty").mkdir()

    def serve(self, *, http: Sequence[int] = (80,), udp: Sequence[int] = (5353,)) -> None:
        """Start nginx and UDP echo in all backends."""
        serve(self.net, self._directory, self._big, http=http, udp=udp)

    def serve_peer(self, port: int) -> None:
        """Have all backends serve ``peer.py``'s transfers."""
        serve_peer(self.net, port)

    def config(self, *services: dict[str, Any], workers: int = 1, **top: Any) -> str:
        """See ``configuration``."""
        return configuration(self._directory, *services, workers=workers, **top)

    def balancer(
        self,
        text: str,
        *arguments: str,
        apart: bool = False,
        trouble: bool = False,
        start: bool = True,
    ) -> InsideBalancer:
        """A balancer with this configuration, set up and ready: the one that is there, if it is the
        same and was not made ``apart``. ``trouble`` permits errors in the log of one made apart,
        which runs unless ``start=False``.
        """
        assert apart or (start and not trouble)
        key = (text, arguments)
        if apart or key != self._key or self._running is None:
            self.end()
            self._made += 1
            directory = self._directory / f"balancer{self._made}"
            directory.mkdir()
            self._running = InsideBalancer(self.net.balancer, directory, text, arguments)
            self._trouble, self._key = trouble, None
            self._running.set_up()
            if start:
                self._running.start()
            self._key = None if apart else key
        elif not self._running.runs:
            self._running.start()
        return self._running

    def end(self) -> None:
        """Stop and undo the balancer, which must end well."""
        running, self._running = self._running, None
        if running is None:
            return
        try:
            code = running.stop()
        finally:
            running.undo()
        assert code == 0, f"exit code {code}\n{running.log()}"
        assert self._trouble or not running.trouble(), running.log()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()
