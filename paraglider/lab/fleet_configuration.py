"""The configuration files of the lab's balancers with the same VIPs.

Lives here: ``fleet_document``, ``changes_for``, what a method needs for several of them, and
``announced``.
Rules: pure. The files are the same but for the balancer's own addresses and paths.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from paraglider.config.service import METHODS, Method
from paraglider.lab.fleet_topology import BITS, ROUTER, VIP, WIDTH, back_address

PORT = 9000
SERVICES = {4: "web4", 6: "web6"}


def fleet_document(
    number: int, directory: Path, cores: tuple[int, int], *, backends: int = 3, **changes: Any
) -> dict[str, Any]:
    """The file of balancer ``number`` with its first and last core, and files in ``directory``.
    ``changes`` are of both services; a value may be a dictionary by family, and None leaves a key
    out.
    """
    owned = "forward" not in changes or METHODS[changes["forward"]].owns_vip
    gateways = [f"{back_address(family, 200 + number)}/{WIDTH[family]}" for family in VIP]
    return {
        "workers": {"first_core": cores[0], "last_core": cores[1]},
        "chroot": str(directory / "empty"),
        "control": {"socket": str(directory / "control.sock")},
        "network": {
            "public": {"interface": "lo" if owned else "eth0"},
            "private": {"interface": "eth1", "gateway": gateways},
        },
        "services": [_service(family, backends, changes) for family in VIP],
    }


def changes_for(method: Method, number: int) -> dict[str, Any]:
    """The keys by which answers come to the balancer ``number`` that has the flow, or to none,
    where several balancers are active.
    """
    if method.conntracked:
        return {"snat": {family: back_address(family, 200 + number) for family in VIP}}
    if method.owns_vip and "return" in method.options:
        return {"return": "direct"}
    return {}


def announced(document: dict[str, Any], **section: Any) -> dict[str, Any]:
    """The same file with every VIP announced to the router by what ``section`` says: at once
    (``rise: 0``), since this lab's balancers fall more often than flapping ones may. The set-up
    puts announced VIPs on loopback.
    """
    network = {**document["network"], "public": {"interface": "eth0"}}
    # The announcer would become a user who may not read the lab's files.
    control = {**document["control"], "announcer": "root"}
    return {**document, "network": network, "control": control, "announce": {"rise": 0, **section}}


def by_lines() -> dict[str, Any]:
    """The section `announce` for the lab's own router, which reads ExaBGP's commands."""
    return {"via": "exabgp", "neighbors": list(ROUTER.values())}


def _service(family: int, backends: int, changes: dict[str, Any]) -> dict[str, Any]:
    given: dict[str, Any] = {
        "name": SERVICES[family],
        "vip": f"{VIP[family]}/{BITS[family]}",
        "protocol": "tcp",
        "ports": PORT,
        "strategy": "maglev",
        "seed": 7,
        "backends": [back_address(family, each) for each in range(1, backends + 1)],
        **changes,
    }
    for key, value in given.items():
        if isinstance(value, dict) and family in value:
            given[key] = value[family]
    return {key: value for key, value in given.items() if value is not None}
