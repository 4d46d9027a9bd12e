"""Paraglider's forward methods: the real set-up and daemon, or `start`, as an operator runs them.

Rules: ``paraglider check`` determines whether a method exists, and the interpreter whether a build
exists, so that other versions need no change here.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import ClassVar

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
from paraglider.errors import OperatorError, PlatformError
from paraglider.forward.load import load
from paraglider.lab.balancer import LabBalancer, StaticBalancer
from paraglider.lab.namespace import execute
from paraglider.lab.scenario import STATIC, neighbouring_cores


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

    With ``direct`` replies go past the balancer: the backends are set up for that too.
    The forward ``static`` is the kernel alone: no worker, and nothing of a build is on its way.
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
        quick: bool = True,
    ) -> None:
        self.name = name
        self.forward = forward
        self.io = io
        self.build = build
        self.workers = workers
        self.direct = direct
        self.quick = quick
        way = ["direct"] if direct and forward != "dsr" else []  # dsr is always direct
        words = [forward, *way, *([io] if io != "auto" else []), build]
        if forward == STATIC:
            words = [forward, "the kernel alone"]
        self.title = ", ".join([*words, *([f"{workers} workers"] if workers > 1 else [])])
        self._balancer: LabBalancer | None = None

    def missing(self) -> str | None:
        """What ``paraglider check`` has against it, or that the build is not there."""
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
        self._balancer.set_up()
        if self.direct:
            self._set_up_backends(stage, self._balancer.config)
        self._balancer.start()

    def _set_up_backends(self, stage: Stage, config: Path) -> None:
        """Have each backend's own host give the answers of its services the VIP as source, or hold
        the VIP.

        By the script that is printed: no state is kept, so the stage may go with all that is in it.
        """
        command = builds.command(self.build, "-m", "paraglider", "backend-setup")
        services = load(config).services
        for address, backend in zip(BACKENDS, stage.topology.backends, strict=True):
            own = [s.name for s in services if address in map(str, (b.address for b in s.backends))]
            script = backend.run([*command, "-c", str(config), *own]).stdout
            backend.run(["sh", "-e"], text=script)
        if self.forward == "dsr":  # the one that is there already listens on the backend's address
            iperf = ["iperf3", "-s", "-p", str(IPERF_PORT), "-B", VIP]
            stage.topology.backends[0].popen(iperf)

    def trouble(self) -> list[str]:
        """The lines of the daemon's log that tell of an error."""
        lines = [] if self._balancer is None else self._balancer.trouble()
        return [line.partition("level=")[2] or line for line in lines]

    def configuration(self, directory: Path) -> str:
        """The configuration file; raises ``OperatorError`` where there are too few cores."""
        first, last = neighbouring_cores(self.workers, frozenset(os.sched_getaffinity(0)))
        forward = "offload" if self.forward == STATIC else self.forward
        common = {"vip": VIP_WITH_PREFIX, "forward": forward, "strategy": "rr"}
        common |= {"return": "direct"} if self.direct else {}
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
        document = {
            "workers": {"first_core": first, "last_core": last},
            "queue": {"io": self.io},
            "chroot": str(directory / "empty"),
            "control": {"socket": str(directory / "control.sock")},
            "network": {
                "public": {"interface": "eth0"},
                "private": {"interface": "eth1", "gateway": [GATEWAY_WITH_PREFIX]},
            },
            "services": services,
        }
        return yaml.safe_dump(document, sort_keys=False)


class Proxied(Paraglider):
    """``forward: proxy``, whose relay is not among the compiled modules."""

    cannot: ClassVar[dict[str, str]] = {"udp": "a proxy balances no UDP"}

    def __init__(self, name: str, *, workers: int = 1, quick: bool = True) -> None:
        super().__init__(name, forward="proxy", build=COMPILED, workers=workers, quick=quick)
        self.title = "proxy" + (f", {workers} workers" if workers > 1 else "")
