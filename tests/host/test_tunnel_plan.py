"""What removes outer headers: the kernel's devices where it has them, else BPF, or as is asked."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.errors import PlatformError
from paraglider.host.tunnel_devices import TunnelDevice, TunnelPort
from paraglider.host.tunnel_plan import bpf_step, choose, kernel_steps

LACKING = "fou: No such file or directory"
ADDRESS = ip_address("10.0.0.1")


def service(kind: str = "ipip") -> Any:
    """A tunnel to one backend."""
    made = {
        "name": "web",
        "vip": "192.168.0.11/24",
        "protocol": "tcp",
        "ports": 80,
        "forward": "tunnel",
        "encapsulation": {"type": kind},
        "backends": [str(ADDRESS)],
    }
    network = {"public": {"interface": "eth0"}}
    return Config.model_validate({"network": network, "services": [made]}).services[0]


def test_the_choice(air: Any) -> None:
    """The reason is there where the first choice was not possible."""
    air.tunnel_devices.lacking = ""
    assert choose(service(), "auto", air.host) == ("kernel", "")
    assert choose(service(), "bpf", air.host) == ("bpf", "")
    air.tunnel_devices.lacking = LACKING
    assert choose(service(), "auto", air.host) == ("bpf", LACKING)
    assert choose(service(), "bpf", air.host) == ("bpf", "")
    with pytest.raises(PlatformError, match="fou: No such file") as caught:
        choose(service("gue"), "kernel", air.host)
    assert "--decapsulation bpf" in str(caught.value.remedy)


def test_devices(air: Any) -> None:
    """One for an address, and the port of GUE behind it; what is there stays."""
    steps = list(kernel_steps(service("gue"), ADDRESS, air.host, {}))
    assert [step.describe() for step in steps] == [
        "ipip-0a000001 decapsulates packets to 10.0.0.1 (IP in IP)",
        "the kernel accepts GUE at UDP port 6080 of 10.0.0.1",
    ]
    for step in steps:
        step.do(air.host)
    assert air.tunnel_devices.held == {TunnelDevice(ADDRESS), TunnelPort(ADDRESS, 6080)}
    again = kernel_steps(service("gue"), ADDRESS, air.host, {})
    assert {step.action for step in again} == {"keep"}
    (alone,) = kernel_steps(service(), ADDRESS, air.host, {})
    assert alone.action == "keep"


def test_by_bpf(air: Any) -> None:
    """For the VIP alone, at the interface."""
    step = bpf_step(service(), ADDRESS, "eth0", air.host, {})
    assert step.describe().endswith("(IP in IP), by BPF")
    step.do(air.host)
    assert bpf_step(service(), ADDRESS, "eth0", air.host, {}).action == "keep"
