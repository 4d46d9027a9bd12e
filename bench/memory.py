"""Memory of a daemon with every role: ``python -m bench.memory [--most MB]``.

Services of nat, offload (with the conntrack counter), dsr and proxy, three types of checks, a name
in the DNS, a file of backends, the page: every kind of process runs. Prints a line per process and
the sum, in MB of 1,000,000 bytes; PSS (proc_pid_smaps_rollup) divides a page that N processes share
by N. The exit code is 1 if the sum is over ``--most``.

Rules: root; the real set-up and the real daemon, in namespaces that are removed at the end.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click
import yaml

from paraglider.errors import OperatorError
from paraglider.lab.balancer import LabBalancer
from paraglider.lab.scenario import neighbouring_cores
from paraglider.lab.topology import (
    GATEWAY,
    PRIVATE_PREFIX,
    PUBLIC_PREFIX,
    VIP,
    Plan,
    Topology,
    backend_address,
)

#: seconds until the processes are measured: the figures of the page have come some times
SETTLE: Final = 10.0
DSR_VIP: Final = f"192.168.0.13/{PUBLIC_PREFIX[4]}"
CHECKS: Final = ("tcp", "http", "icmp")


def document(directory: Path) -> dict[str, Any]:
    """A configuration with every role, for the network of ``Topology``."""
    first, last = neighbouring_cores(2, frozenset(os.sched_getaffinity(0)))
    (directory / "empty").mkdir()
    listed = directory / "backends"
    listed.write_text(f"{backend_address(4, 1)}\n")
    common = {"vip": f"{VIP[4]}/{PUBLIC_PREFIX[4]}", "protocol": "tcp"}
    backends = [backend_address(4, number) for number in (1, 2)]
    carried = (
        *({"name": "nat"}, {"name": "offload", "forward": "offload", "strategy": "weighted"}),
        {"name": "proxy", "forward": "proxy"},
    )
    services: list[dict[str, Any]] = [
        {**common, **each, "ports": 80 + n, "check": {"type": kind}, "backends": backends}
        for n, (each, kind) in enumerate(zip(carried, CHECKS, strict=True))
    ]
    dns = {"dns": "_web._tcp.example", "server": "127.0.0.1:5300"}
    services += [
        {**common, "name": "file", "ports": 90, "backends": {"file": str(listed)}},
        {**common, "name": "dns", "ports": 91, "backends": dns},
        # A VIP of dsr is no other method's.
        {
            **common,
            "name": "dsr",
            "forward": "dsr",
            "vip": DSR_VIP,
            "ports": 80,
            "backends": backends,
        },
    ]
    return {
        "workers": {"first_core": first, "last_core": last},
        "chroot": str(directory / "empty"),
        "control": {"socket": str(directory / "control.sock")},
        "stats": {"bind": "127.0.0.1:9777"},
        "network": {
            "public": {"interface": "eth0"},
            "private": {"interface": "eth1", "gateway": [f"{GATEWAY[4]}/{PRIVATE_PREFIX[4]}"]},
        },
        "services": services,
    }


def processes(pid: int) -> Iterator[int]:
    """``pid`` and its children."""
    yield pid
    yield from map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def pss(pid: int) -> tuple[float, float]:
    """PSS and the private part of it, in MB."""
    rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {row.split(":")[0]: int(row.split()[1]) * 1024 / 1e6 for row in rows}
    return sizes["Pss"], sizes["Private_Clean"] + sizes["Private_Dirty"]


@click.command()
@click.option("--most", type=float, help="MB that all processes may have.")
def main(most: float | None) -> None:
    """Measure."""
    if os.geteuid() != 0:
        raise OperatorError("namespaces need root", "run it as root")
    with tempfile.TemporaryDirectory(prefix="paraglider-memory-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        net = Topology(Plan(backends=2))
        try:
            balancer = LabBalancer(net.balancer, directory, yaml.safe_dump(document(directory)))
            balancer.set_up()
            try:
                balancer.start()
                time.sleep(SETTLE)
                total = show(balancer.pid)
            finally:
                balancer.close()
        finally:
            net.close()
    if most is not None and total > most:
        sys.exit(1)


def show(pid: int) -> float:
    """Print a line a process and the sum, which is returned."""
    total = 0.0
    click.echo(f"{'process':18} {'PSS':>7} {'private':>8}  MB")
    for each in processes(pid):
        shared, private = pss(each)
        total += shared
        name = Path(f"/proc/{each}/comm").read_text().strip()
        click.echo(f"{name:18} {shared:7.1f} {private:8.1f}")
    click.echo(f"{'all':18} {total:7.1f}")
    return total


if __name__ == "__main__":
    main()
