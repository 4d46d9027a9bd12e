"""A kernel that carries some forward methods in BPF and not others: nat and dsr without tunnels."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.config.service import METHODS
from paraglider.host import bpffs, carrier
from paraglider.host.carrier_lacks import by_lack
from paraglider.host.carrier_support import CarrierUnavailableError
from paraglider.host.ownership import announce
from paraglider.lab.namespace import Namespace
from tests.xdp import ready_for_xdp

pytestmark = pytest.mark.root

WHY = "no source of a route"
TUNNEL = {"forward": "tunnel"}


def config(*services: dict[str, Any]) -> Config:
    """A file with these services, named by their place."""
    base = {"vip": "192.0.2.1", "protocol": "tcp", "backends": ["192.0.2.9"]}
    whole = [{"name": f"s{i}", "ports": 80 + i, **base, **s} for i, s in enumerate(services)]
    return Config.model_validate({"services": whole, "flows": {"max": 1000}})


@pytest.fixture(autouse=True)
def old(inside: Namespace, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A daemon on a kernel on which the self-check finds that the program cannot carry tunnels."""

    def found(_: bytes, program: str = carrier.PROGRAM) -> str:
        return WHY if program == carrier.PROGRAM else ""

    for name in ("self_check", "checked", "record"):
        monkeypatch.setattr(carrier, name, found)
    with contextlib.closing(announce()):
        yield
        carrier.remove()


@pytest.mark.parametrize("others", [{"carrier": "bpf"}, {"forward": "dsr", "carrier": "bpf"}, {}])
def test_the_others_are_carried(others: dict[str, Any]) -> None:
    """Whatever needs BPF for another method than tunnel has it, with the reason for the tunnel."""
    wanted = config(others, TUNNEL)
    found, why = carrier.load_wanted(wanted, 1)
    assert found is not None
    assert (why, dict(found.lacks)) == ("", {METHODS["tunnel"]: WHY})
    copy = found.duplicate()
    assert copy.lacks == found.lacks
    copy.close()
    found.close()
    assert carrier.check(wanted) == ("", {METHODS["tunnel"]: WHY})
    assert carrier.prepare(wanted) == [f"BPF will carry no flow of s1: {WHY}"]
    assert by_lack(wanted, {METHODS["tunnel"]: WHY}) == {WHY: ["s1"]}


def test_xdp_is_not_concerned(inside: Namespace) -> None:
    """Its program leaves tunnels to tc anyway."""
    ready_for_xdp(inside)
    found, _ = carrier.load_wanted(config({"carrier": "xdp"}, TUNNEL), 1)
    assert found is not None
    assert found.early is not None
    found.close()


@pytest.mark.parametrize("which", ["bpf", "xdp"])
def test_a_tunnel_that_needs_bpf(which: str) -> None:
    """The daemon does not start: that service is named, and nothing is left."""
    needing = {**TUNNEL, "carrier": which}
    with pytest.raises(
        CarrierUnavailableError, match=f"service `s1` has `carrier: {which}`, but {WHY}"
    ) as error:
        carrier.load_wanted(config({"carrier": "bpf"}, needing), 1)
    assert error.value.remedy == "use Linux 6.7, or set `carrier: worker`"
    assert bpffs.pins_path() is None


def test_tunnels_alone() -> None:
    """Nothing is loaded for them; the workers carry all, with the reason."""
    wanted = config(TUNNEL, {"carrier": "worker"})
    assert carrier.load_wanted(wanted, 1) == (None, WHY)
    why, lacks = carrier.check(wanted)
    assert why.startswith(WHY)
    assert lacks == {}
    assert bpffs.pins_path() is None


def test_tunnels_alone_take_no_xdp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no driver has XDP, `carrier: xdp` of a tunnel is loaded at tc alone; beside another
    service with `xdp`, that one is named.
    """
    monkeypatch.setattr(carrier, "checked", lambda *_: "")
    tunnel = {**TUNNEL, "carrier": "xdp"}
    found, why = carrier.load_wanted(config(tunnel), 1)
    assert found is not None
    assert (found.early, why) == (None, "")
    found.close()
    assert carrier.check_xdp(config(tunnel)) == ""
    with pytest.raises(CarrierUnavailableError, match="service `s1` has `carrier: xdp`, but"):
        carrier.load_wanted(config(tunnel, {"carrier": "xdp"}), 1)
