"""Paraglider's own rows say what they measure."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from bench.peers.paraglider import Paraglider, Proxied
from paraglider.config.load import load
from paraglider.forward.static.checks import unserved


def peer(**changes: str | int) -> Paraglider:
    """A peer, with what a test wants of it."""
    return Paraglider("x", **{"build": "compiled", **changes})  # type: ignore[arg-type]


def test_titles_tell_rows_apart() -> None:
    """Forward, queue I/O, build and more than one worker are in the title."""
    assert peer().title == "nat, compiled"
    assert peer(io="netlink", build="interpreted").title == "nat, netlink, interpreted"
    assert peer(direct=True).title == "nat, direct, compiled"
    assert peer(forward="dsr", direct=True).title == "dsr, compiled"
    assert peer(forward="offload", workers=2).title == "offload, compiled, 2 workers"


def test_the_configuration_is_valid(tmp_path: Path) -> None:
    """What the daemon is given is a good file with what the row says."""
    file = tmp_path / "paraglider.conf"
    file.write_text(peer(io="netfilterqueue").configuration(tmp_path))
    config = load(file)
    assert config.queue.io == "netfilterqueue"
    assert {service.forward for service in config.services} == {"nat"}
    web = config.services[0]
    assert [str(backend.address) for backend in web.backends] == [
        "10.0.0.1",
        "10.0.0.2",
        "10.0.0.3",
    ]


def test_the_kernel_alone(tmp_path: Path) -> None:
    """`static` is no forward of the file; what it starts is a file that `start` takes."""
    static = peer(forward="static")
    assert static.title == "static, the kernel alone"
    file = tmp_path / "paraglider.conf"
    file.write_text(static.configuration(tmp_path))
    assert unserved(load(file)) == []


def test_direct_answers_go_past_the_balancer(tmp_path: Path) -> None:
    """Every service of that row has it, and the row asks for a stage on which it can be."""
    services = yaml.safe_load(peer(direct=True).configuration(tmp_path))["services"]
    assert {service["return"] for service in services} == {"direct"}
    assert peer(direct=True).direct
    assert not peer().direct


def test_one_worker_is_one_core(tmp_path: Path) -> None:
    """The configuration never takes every core by default."""
    workers = yaml.safe_load(peer().configuration(tmp_path))["workers"]
    assert workers["first_core"] == workers["last_core"]


def test_missing_when_there_are_too_few_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that needs more cores than there are says so, instead of measuring another thing."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0})
    why = peer(workers=2, build="interpreted").missing()
    assert why is not None
    assert "neighbouring cores" in why


def test_the_proxy_carries_no_datagrams(tmp_path: Path) -> None:
    """It is asked for none, and its configuration is valid without them."""
    assert "udp" in Proxied("x").cannot
    assert (Proxied("x").title, Proxied("x", workers=2).title) == ("proxy", "proxy, 2 workers")
    file = tmp_path / "paraglider.conf"
    file.write_text(Proxied("x").configuration(tmp_path))
    config = load(file)
    assert {(s.forward, s.protocol) for s in config.services} == {("proxy", "tcp")}
