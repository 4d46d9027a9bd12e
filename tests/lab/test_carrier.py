"""Tests of ``paraglider.lab.carrier``: the carrier is printed, and a wrong one is a fault."""

from __future__ import annotations

from typing import Any

from paraglider.lab.carrier import LOOKS, PAUSE, counted, described, faults_of

BPF: dict[str, Any] = {
    "carrier": "bpf",
    "reason": "",
    "on": True,
    "devices": ["eth0", "eth1"],
    "packets": {"carried": 1234, "syn": 3},
}
WORKER = {**BPF, "carrier": "worker", "on": False, "reason": "no libbpf", "packets": {}}


def test_what_carried() -> None:
    """With the interfaces and the packets, or the reason why BPF does not."""
    assert described(BPF) == "Flows are carried by bpf at eth0, eth1: 1,234 packets"
    assert described(WORKER) == "Flows are carried by worker (no libbpf)"


def test_either_carrier_is_right_unless_one_was_asked_for() -> None:
    """`auto` and the default take what there is."""
    for wanted in (None, "auto"):
        assert faults_of(BPF, wanted) == faults_of(WORKER, wanted) == []
    assert faults_of(BPF, "bpf") == faults_of(WORKER, "worker") == []
    assert faults_of(WORKER, "bpf") == ["flows are carried by worker, not by bpf"]
    assert faults_of(BPF, "worker") == ["flows are carried by bpf, not by worker"]


def test_one_that_carried_nothing() -> None:
    """The packets that were left to the workers do not count."""
    assert faults_of({**BPF, "packets": {"syn": 3}}, "bpf") == ["BPF carried no packet"]
    none = {**BPF, "carrier": "xdp"}  # what tc carried does not count either
    assert faults_of(none, "xdp") == ["the program at XDP carried no packet"]
    assert faults_of({**none, "packets": {"xdp": 1}}, "xdp") == []
    assert faults_of(BPF, "xdp") == ["flows are carried by bpf, not by xdp"]


def test_counters_that_come_late_are_awaited() -> None:
    """The daemon's are up to a second old; what stays wrong is a fault."""
    none, pauses = {**BPF, "packets": {}}, list[float]()
    answers = [none, none, BPF]
    assert counted(lambda: answers.pop(0), "bpf", pauses.append) == BPF
    assert pauses == [PAUSE] * 2
    pauses.clear()
    assert counted(lambda: none, "bpf", pauses.append) == none
    assert pauses == [PAUSE] * LOOKS
