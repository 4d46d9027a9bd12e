"""The table that limits openings.

Its golden text (``golden/NAME.openings4``, ``6``), its acceptance by nft, and its effect on packets
in a network namespace.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from paraglider.config.model import Config
from paraglider.forward.openings import openings_table
from paraglider.netfilter.nft import Nft

GOLDEN = Path(__file__).parent / "golden"
NAMES = ("any", "direct", "dsr", "mixed", "offload", "tunnel")


def config(name: str) -> Config:
    """A golden configuration."""
    document = yaml.safe_load((GOLDEN / f"{name}.yaml").read_text(encoding="utf-8"))
    for extra in ("cores", "hairpin"):
        document.pop(extra, None)
    return Config.model_validate(document)


def text(name: str, family: int) -> str:
    """The table of a golden configuration, empty when the family has none."""
    return openings_table(config(name), family, 2) or ""


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("name", NAMES)
def test_the_text_is_the_golden_one(name: str, family: int) -> None:
    """The text equals the reviewed file, byte for byte."""
    file = GOLDEN / f"{name}.openings{family}"
    found = text(name, family)
    if os.environ.get("UPDATE_GOLDEN"):
        file.unlink(missing_ok=True)
        if found:
            file.write_text(found, encoding="utf-8")
    assert found == (file.read_text(encoding="utf-8") if file.exists() else "")


@pytest.mark.root
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("name", NAMES)
def test_the_kernel_takes_it(name: str, family: int) -> None:
    """Twice: the second time it changes the existing table."""
    assert Nft().trial(text(name, family) * 2) == ""


@pytest.mark.parametrize("name", NAMES)
def test_base_chains_are_never_deleted(name: str) -> None:
    """Removing one would drop all packets that wait in a queue of the namespace."""
    verbs = {line.split()[0] for family in (4, 6) for line in text(name, family).splitlines()}
    assert verbs == {"add", "flush"}


def service(**more: Any) -> dict[str, Any]:
    """A service on the VIP."""
    base = {"name": "a", "vip": "192.168.0.11/24", "protocol": "tcp", "backends": ["10.0.0.1"]}
    return base | more


def test_a_proxy_has_none() -> None:
    """Its openings are the host's own: no packet is queued."""
    made = Config.model_validate({"services": [service(forward="proxy", ports=80)]})
    assert openings_table(made, 4, 1) is None
    assert openings_table(made, 6, 1) is None


def test_the_rate_is_for_each_worker() -> None:
    """The total is the rate times the workers, a tenth of it for a network of clients, with the
    length of the queues as burst; 0 means no limit.
    """
    made = {"queue": {"openings_rate": 700}, "services": [service(ports=80)]}
    found = openings_table(Config.model_validate(made), 4, 3) or ""
    assert found.count("limit rate over 2100/second burst 1536 packets") == 2  # TCP, UDP
    assert found.count("limit rate over 210/second burst 210 packets") == 1
    made["queue"] = {"openings_rate": 0}
    assert "limit rate over" not in (openings_table(Config.model_validate(made), 4, 3) or "")


@pytest.mark.parametrize("other", ["offload", "proxy"])
def test_of_all_ports_those_of_another_forward_are_left_out(other: str) -> None:
    """A VIP may have some ports of one forward and all the rest of another."""
    narrow = service(name="b", forward=other, ports=[1, "80-90", 65535])
    if other == "proxy":
        narrow["ports"] = 80
    made = Config.model_validate({"services": [service(), narrow]})
    lines = (openings_table(made, 4, 1) or "").splitlines()
    (ours,) = [
        line for line in lines if line.startswith("add element ip paraglider-openings queued-tcp ")
    ]
    left = ("1-79", "81-65535") if other == "proxy" else ("2-79", "91-65534")
    wanted = ", ".join(f"192.168.0.11 . {ports}" for ports in left)
    assert ours == f"add element ip paraglider-openings queued-tcp {{ {wanted} }}"
