"""A kernel that cannot carry tunnels in BPF: the workers carry them, and BPF carries the others.

The daemon gets an object file in which the program asks for the source address of a route by a flag
that no kernel knows, so this kernel refuses as Linux 6.6 refuses the right one.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from carrying import Carried
from directing import FAMILIES, directed, service
from failing import control
from inside import InsideBalancer

from paraglider.bpf import loader
from paraglider.errors import PlatformError
from paraglider.host.carrier_support import OBJECT, object_file
from paraglider.lab import direct
from paraglider.lab.topology import VIP
from tests.bpf.programs import without_source

pytestmark = pytest.mark.root

PEER = Path(__file__).parent / "peer.py"
SIZE = 1_000_000
#: the VIPs of the tunnels, beside those of the topology
FAR = {4: "192.168.0.12", 6: "2001:db8::12"}


@pytest.fixture(autouse=True)
def old_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Daemons have that object file, in a mount namespace of their own."""
    changed = tmp_path / OBJECT
    changed.write_bytes(without_source(object_file()))
    whole = InsideBalancer.daemon_command
    assert isinstance(whole, property)
    place = Path(loader.__file__).with_name(OBJECT)
    command = f'mount --bind {changed} {place} && exec "$@"'

    def daemon_command(running: InsideBalancer) -> list[str]:
        assert whole.fget is not None
        return ["unshare", "--mount", "sh", "-ec", command, "sh", *whole.fget(running)]

    monkeypatch.setattr(InsideBalancer, "daemon_command", property(daemon_command))


def services(**tunnel: Any) -> list[dict[str, Any]]:
    """For each family one by dsr, which needs BPF, and a tunnel with these keys."""
    found = []
    for family in FAMILIES:
        found.append(service(family, name=f"dsr{family}", ports=80, carrier="bpf"))
        vip = f"{FAR[family]}/{24 if family == 4 else 64}"
        keys = {"name": f"tunnel{family}", "vip": vip, "ports": 81, "forward": "tunnel"}
        found.append(service(family, **keys, **tunnel))
    return found


def test_dsr_by_bpf_beside_tunnels_by_workers(
    topology: Any, peer: Any, config: Any, balancer: Any
) -> None:
    """Uploads arrive whole; those by dsr are carried, and no packet of a tunnel is; who carries,
    and why, is in the log, in `show` and in `carrier`.
    """
    net = directed(topology)
    for backend in net.backends:
        for port in (80, 81):
            command = [sys.executable, str(PEER), "serve", str(port)]
            server = backend.popen(command, stdout=subprocess.PIPE)
            assert server.stdout is not None
            assert server.stdout.readline() == b'"listening"\n'
    running = balancer(net, config(*services()), start=False)
    direct.set_up(net.backends, running.config, [f"tunnel{family}" for family in FAMILIES])
    running.start()
    carried = Carried(running)
    for port, vips in ((81, FAR), (80, VIP)):
        assert carried.counted("carried") == 0
        for family in FAMILIES:
            result = peer(net.client, "up", vips[family], port, SIZE)
            assert result["sent"] == result["arrived"]
    assert carried.counted("carried") > 0
    assert carried.counted("no_route") == 0  # no entry was made in vain
    rows = {row["service"]: row["carrier"] for row in control(running).get("services")}
    names = {"tunnel4", "tunnel6"}
    assert rows == {"dsr4": "bpf", "dsr6": "bpf", **dict.fromkeys(names, "worker")}
    answer = control(running).get("carrier")
    assert (answer["carrier"], set(answer["lacks"])) == ("bpf", names)
    assert all("since 6.7" in why for why in answer["lacks"].values())
    assert 'event="carrier of flows" carrier=worker services="tunnel4, tunnel6" why=' in (
        running.log()
    )
    for backend in net.backends:
        direct.undo(backend, running.config)


def test_a_tunnel_that_needs_bpf(topology: Any, config: Any, balancer: Any) -> None:
    """With `carrier: bpf` the daemon does not start there, and names that service."""
    net = directed(topology)
    running = balancer(net, config(*services(carrier="bpf")), start=False)
    with pytest.raises(PlatformError, match="ended with exit 2") as caught:
        running.start()
    running.stop()
    *_, line = caught.value.what.splitlines()
    assert line.startswith("paraglider: service `tunnel4` has `carrier: bpf`, but the program does")
    assert line.endswith("use Linux 6.7, or set `carrier: worker`")
