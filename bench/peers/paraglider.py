"""Paraglider's forward methods: the real set-up and daemon, or `start`, as an operator runs them.

Rules: ``paraglider check`` determines whether a method exists, and the interpreter whether a build
exists, so that other versions need no change here.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import yaml

from bench import builds, parse
from bench.builds import COMPILED
from bench.network import (
    BACKENDS,
    GATEWAY_WITH_PREFIX,
    HTTP_PORT,
    IPERF_PORT,
    VIP,
    VIP_WITH_PREFIX,
    Stage,
)
from bench.peers.base import Peer
from paraglider.daemon.http.client import ControlClient
from paraglider.errors import OperatorError, PlatformError
from paraglider.forward.load import load
from paraglider.lab.balancer import LabBalancer, StaticBalancer
from paraglider.lab.namespace import execute
from paraglider.lab.scenario import STATIC, neighbouring_cores

#: what carries the flows of each forward method that has one carrier only
CARRIERS = {
    "nat": "workers",
    "offload": "conntrack",
    "dsr": "nft sets, routing",
    "tunnel": "workers",
    "proxy": "proxy process",
    STATIC: "conntrack",
}
#: forward methods whose flows workers or BPF carry, as the file says
_CARRIED = ("nat", "dsr", "tunnel")
#: those whose backends have the VIP and always answer the client directly
_ONE_SIDED = ("dsr", "tunnel")
#: reasons of packets that are not TCP or UDP of this host
_FOREIGN = ("not_ip", "other_host", "vlan", "protocol")
#: packets that the program rewrote and sent
_TAKEN = ("carried", "opened", "stateless")


class Built(LabBalancer):
    """A balancer of the lab whose daemon runs the modules of ``build``."""

    def __init__(self, stage: Stage, config: str, build: str) -> None:
        super().__init__(stage.topology.balancer, stage.directory, config)
        self._build = build

    @property
    def daemon_command(self) -> list[str]:
        """``paraglider`` with this configuration, of this build."""
        return builds.command(self._build, "-m", "paraglider", "-c", str(self.config))


class Paraglider(Peer):
    """``forward`` over ``workers`` workers that read their queue by ``io``, of one build.

    With ``direct`` replies bypass the balancer, and the backends are set up for that. With ``bpf``
    BPF carries the flows of ``nat``, ``dsr`` or ``tunnel``, else the workers do; ``decide`` and
    ``adopt`` are these keys of the services, whose strategy is ``maglev`` with `hash`, and if
    ``adopt`` is given. ``tunnel`` has a router before the backends.
    The forward ``static`` is the kernel alone, without workers, so the build does not matter.
    """

    def __init__(
        self,
        name: str,
        *,
        build: str,
        forward: str = "nat",
        io: str = "auto",
        workers: int = 1,
        direct: bool = False,
        bpf: bool = False,
        decide: str = "auto",
        adopt: str | None = None,
        quick: bool = True,
    ) -> None:
        self.name = name
        self.forward = forward
        self.io = io
        self.build = build
        self.workers = workers
        self.direct = direct
        self.far = forward == "tunnel"
        self.bpf = bpf
        self.decide = decide
        self.adopt = adopt
        self.quick = quick
        way = ["direct"] if direct and forward not in _ONE_SIDED else []  # these always are
        ways = {"python": ["bpf"], "auto": ["bpf", "kernel decides"], "hash": ["bpf", "hash only"]}
        by = ways[decide] if bpf else []
        hashed = {None: [], "auto": ["maglev"], "never": ["maglev", "adopt never"]}[adopt]
        words = [forward, *way, *by, *hashed, *([io] if io != "auto" else []), build]
        if forward == STATIC:
            words = [forward, "the kernel alone"]
        self.title = ", ".join([*words, *([f"{workers} workers"] if workers > 1 else [])])
        self._balancer: LabBalancer | None = None

    def missing(self) -> str | None:
        """The first error of ``paraglider check``, or that the build is missing."""
        if (why := builds.missing(self.build)) is not None:
            return why
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            conf = directory / "paraglider.conf"
            try:
                conf.write_text(self.configuration(directory))
            except OperatorError as error:
                return error.what
            command = builds.command(self.build, "-m", "paraglider", "check", "-c", str(conf))
            done = execute(command, check=False)
        return parse.refusal(done.stderr) if done.returncode else None

    def start(self, stage: Stage) -> None:
        """Run ``paraglider.config``, then ``paraglider``, and wait until it is ready; or
        ``paraglider start``.
        """
        # Asked anew: an edited source would silently run interpreted.
        if (why := builds.missing(self.build)) is not None:
            raise PlatformError(why)
        text = self.configuration(stage.directory)
        self._balancer = (
            StaticBalancer(stage.topology.balancer, stage.directory, text)
            if self.forward == STATIC
            else Built(stage, text, self.build)
        )
        stage.after.callback(self._balancer.release_pins)
        self._balancer.set_up()
        if self.direct:
            self._balancer.hold_pins()
            self._set_up_backends(stage, self._balancer.config)
        self._balancer.start()

    def _set_up_backends(self, stage: Stage, config: Path) -> None:
        """Have each backend's own host give the answers of its services the VIP as source, or hold
        the VIP, and decapsulate packets of tunnels.

        By the script that is printed, where that does it: no state is kept, so the stage may go
        with all that is in it.
        """
        command = builds.command(self.build, "-m", "paraglider", "backend-setup")
        services = load(config).services
        for address, backend in zip(BACKENDS, stage.topology.backends, strict=True):
            own = [s.name for s in services if address in map(str, (b.address for b in s.backends))]
            if self.far:  # no script loads the BPF program; the stage undoes this
                backend.run([*command, "-c", str(config), *own, "--apply"])
                continue
            script = backend.run([*command, "-c", str(config), *own]).stdout
            backend.run(["sh", "-e"], text=script)
        if (
            self.forward in _ONE_SIDED
        ):  # the one that is there already listens on the backend's address
            iperf = ["iperf3", "-s", "-p", str(IPERF_PORT), "-B", VIP]
            stage.topology.backends[0].popen(iperf)

    def carrier(self) -> str:
        """As the daemon reports it if BPF carries, with the share of packets."""
        if not self.bpf or self._balancer is None:
            return CARRIERS[self.forward]
        socket = self._balancer.config.parent / "control.sock"
        return carrier_summary(ControlClient(str(socket)).get("carrier"))

    def trouble(self) -> list[str]:
        """The errors in the daemon's log."""
        lines = [] if self._balancer is None else self._balancer.trouble()
        return [line.partition("level=")[2] or line for line in lines]

    def configuration(self, directory: Path) -> str:
        """The configuration file; raises ``OperatorError`` if there are too few cores."""
        first, last = neighbouring_cores(self.workers, frozenset(os.sched_getaffinity(0)))
        forward = "offload" if self.forward == STATIC else self.forward
        common = {"vip": VIP_WITH_PREFIX, "forward": forward, "strategy": "rr"}
        common |= {"return": "direct"} if self.direct else {}
        if forward in _CARRIED:
            common |= {"carrier": "bpf" if self.bpf else "worker", "decide": self.decide}
        common |= {"strategy": "maglev"} if self.decide == "hash" or self.adopt else {}
        common |= {"adopt": self.adopt} if self.adopt else {}
        web = {"name": "web", "protocol": "tcp", "ports": HTTP_PORT, "backends": list(BACKENDS)}
        services = [{**web, **common}] + [
            {
                "name": f"iperf-{protocol}",
                "protocol": protocol,
                "ports": IPERF_PORT,
                "backends": [BACKENDS[0]],
                **common,
            }
            for protocol in (("tcp",) if self.forward == "proxy" else ("tcp", "udp"))
        ]
        private = {"private": {"interface": "eth1", "gateway": [GATEWAY_WITH_PREFIX]}}
        document = {
            "workers": {"first_core": first, "last_core": last},
            "queue": {"io": self.io},
            "chroot": str(directory / "empty"),
            "control": {"socket": str(directory / "control.sock")},
            "network": {"public": {"interface": "eth0"}} | ({} if self.far else private),
            "services": services,
        }
        return yaml.safe_dump(document, sort_keys=False)


def carrier_summary(shown: Mapping[str, Any]) -> str:
    """The output of ``paraglider carrier`` in short: the share of TCP and UDP packets that BPF
    carried, or why it carries none.
    """
    if shown["carrier"] != "bpf":
        return f"workers ({shown['reason']})"
    packets = {why: count for why, count in shown["packets"].items() if why not in _FOREIGN}
    whole = sum(packets.values())
    taken = sum(packets.get(why, 0) for why in _TAKEN)
    return f"BPF, {100 * taken / whole:.1f} % of packets" if whole else "BPF"


class Proxied(Paraglider):
    """``forward: proxy``, whose relay is not among the compiled modules."""

    cannot: ClassVar[dict[str, str]] = {"udp": "a proxy balances no UDP"}

    def __init__(self, name: str, *, workers: int = 1, quick: bool = True) -> None:
        super().__init__(name, forward="proxy", build=COMPILED, workers=workers, quick=quick)
        self.title = "proxy" + (f", {workers} workers" if workers > 1 else "")
