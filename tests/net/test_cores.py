"""The set-up and the daemon agree on the cores, or one of them refuses."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from paraglider.lab.balancer import LabBalancer
from paraglider.lab.topology import VIP, Topology

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="takes two cores"),
]


def told(done: subprocess.CompletedProcess[str]) -> str:
    """The error of a refused command."""
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stderr


def test_other_cores_are_refused(
    topology: Callable[..., Topology],
    serve: Callable[..., None],
    balancer: Callable[..., LabBalancer],
    config: Callable[..., str],
    service: Callable[..., dict[str, Any]],
    ask: Callable[..., Counter[str]],
    tmp_path: Path,
) -> None:
    """By the file, and by the process's affinity; a set-up for other cores beside a daemon too."""
    net = topology()
    serve(net, udp=())
    text = config(service(4, ports=80), workers=2)
    one = balancer(net, text, start=False)
    first = yaml.safe_load(text)["workers"]["first_core"]
    other = tmp_path / "other.conf"
    run = net.balancer.run

    def differing(workers: dict[str, int]) -> None:
        other.write_text(yaml.safe_dump({**yaml.safe_load(text), "workers": workers}))

    daemon = [*one.daemon_command[:-1], str(other)]
    differing({"first_core": first, "last_core": first})
    both = f"cores {first}-{first + 1}"
    wanted = f"paraglider.config was run for {both}, and the daemon would work on"
    assert f"{wanted} core {first}: " in told(run(daemon, check=False))
    differing({})
    fewer = ["taskset", "-c", str(first + 1), *daemon]
    assert f"{wanted} core {first + 1}: " in told(run(fewer, check=False))

    pid = one.start()
    differing({"first_core": first, "last_core": first})
    set_up = [*one.setup_command[:-1], str(other)]
    before = run(["iptables-save", "-t", "mangle"]).stdout
    refused = told(run(set_up, check=False))
    assert f"the daemon here (process {pid}) works on {both}, and this" in refused
    after = run(["iptables-save", "-t", "mangle"]).stdout
    assert [line for line in after.splitlines() if line.startswith("-")] == [
        line for line in before.splitlines() if line.startswith("-")
    ]
    assert one.set_up().returncode == 0
    assert sum(ask(net, "tcp", VIP[4], 80, 12).values()) == 12
