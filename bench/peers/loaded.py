"""loaded (https://github.com/stealth/loaded), 2014, in C++: the model of ``forward: nat``.

It is in no distribution: its row is measured where its program is on PATH. It builds on Debian 12
with `make`, g++, libnetfilter-queue-dev and libcap-dev. ``nat-netfilterqueue-pure`` has its shape
(a process that reads its queue packet by packet, and has all flows) in interpreted Python.

Rules: one core has packets, as Paraglider's peers have one worker.
"""

from __future__ import annotations

import shutil

from bench.network import BACKENDS, VIP, VIP_WITH_PREFIX, Stage
from bench.peers.base import Peer

_PROGRAM = "loaded"
#: packets that its queue holds, as its sample has it
_LENGTH = 1_000_000
#: the network of the backends
_PRIVATE = "10.0.0.0/8"


class Loaded(Peer):
    """loaded for IPv4, strategy rr, all ports of the VIP. It keeps a client at its backend, and the
    stage has one client, so there is one backend.
    """

    name = "loaded"
    title = "loaded, one backend"
    backends = 1
    quick = False

    def missing(self) -> str | None:
        """That it is not built."""
        if shutil.which(_PROGRAM) is None:
            return "loaded is not on PATH: build https://github.com/stealth/loaded"
        return None

    def start(self, stage: Stage) -> None:
        """Set the host up as its script does, and run it in the foreground.

        It changes its root to /var/run/empty, which it gets in a mount namespace of its own.
        """
        stage.take_addresses()
        balancer = stage.topology.balancer
        balancer.sysctl("net.ipv4.ip_forward=1")
        balancer.run(["iptables-restore", "--noflush"], text=loaded_rules())
        conf = stage.directory / "loaded.config"
        conf.write_text(loaded_configuration())
        script = 'mount -t tmpfs tmpfs /run && mkdir /run/empty && exec "$0" -4 -D -c "$1"'
        program = shutil.which(_PROGRAM) or _PROGRAM
        stage.popen("unshare", "--mount", "sh", "-c", script, program, str(conf))


def loaded_rules() -> str:
    """Its rules, as ``iptables-restore`` reads them, for one queue."""
    return (
        f"*mangle\n-A PREROUTING -d {VIP} -j NFQUEUE --queue-num 0\nCOMMIT\n"
        f"*filter\n-A FORWARD -s {_PRIVATE} -j NFQUEUE --queue-num 0\nCOMMIT\n"
    )


def loaded_configuration() -> str:
    """The text of its configuration."""
    vip, _, length = VIP_WITH_PREFIX.partition("/")
    lines = [f"VIP4={vip}", f"VIP4net={length}", f"RIP4={_PRIVATE}", f"nfq_len={_LENGTH}"]
    lines += ["FIRST_CORE=0", "LAST_CORE=0", "public_NIC=eth0", "private_NIC=eth1"]
    lines += [f"server4={BACKENDS[0]}", "strategy=rr"]
    return "".join(f"{line}\n" for line in lines)
