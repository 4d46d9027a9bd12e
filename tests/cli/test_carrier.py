"""`paraglider carrier`: its requests, and its output for the daemon's answers."""

from __future__ import annotations

import json
from typing import Any

BPF: dict[str, Any] = {
    "carrier": "bpf",
    "reason": "",
    "able": True,
    "on": True,
    "devices": ["eth0", "eth1"],
    "flows": 7,
    "refused": 1,
    "packets": {"carried": 900, "not_ip": 0, "syn": 12, "no_flow": 34},
}


def test_bpf(daemon: Any, say: Any) -> None:
    """Interfaces, flows, and the packets by reason, the most frequent first, without zeros."""
    daemon.answers["/v1/carrier"] = (200, BPF)
    code, out, err = say("carrier")
    assert (code, err) == (0, "")
    first, where, flows, *table = out.splitlines()
    assert (first, where) == ("bpf", "interfaces: eth0, eth1")
    assert flows == "flows carried by BPF: 7, refused by the kernel: 1"
    assert [line.split() for line in table] == [
        ["Reason", "Packets"],
        ["carried", "900"],
        ["no_flow", "34"],
        ["syn", "12"],
    ]


def test_the_worker(daemon: Any, say: Any) -> None:
    """With the reason; there are no interfaces to show."""
    answer = {**BPF, "carrier": "worker", "reason": "no libbpf", "able": False, "packets": {}}
    daemon.answers["/v1/carrier"] = (200, answer)
    assert say("carrier") == (0, "worker: no libbpf\n", "")


def test_switched_off(daemon: Any, say: Any) -> None:
    """The program is nowhere."""
    why = "switched off by the operator"
    answer = {**BPF, "carrier": "worker", "reason": why, "on": False, "devices": []}
    daemon.answers["/v1/carrier"] = (200, {**answer, "flows": 0, "packets": {}})
    assert say("carrier", "off")[1].splitlines()[:2] == [f"worker: {why}", "interfaces: none"]


def test_what_is_asked_for(daemon: Any, say: Any) -> None:
    """To look changes nothing; --json stands before or behind."""
    daemon.answers["/v1/carrier"] = (200, BPF)
    for words in (("--json",), ("--json", "on"), ("off", "--json")):
        assert json.loads(say("carrier", *words)[1]) == BPF
    assert [(method, body) for method, _, body in daemon.asked] == [
        ("GET", None),
        ("POST", {"state": "on"}),
        ("POST", {"state": "off"}),
    ]


def test_the_file_stands_before_or_behind(daemon: Any, say: Any) -> None:
    """-c behind `on` or `off` selects the daemon as before it does."""
    daemon.answers["/v1/carrier"] = (200, BPF)
    for words in (("-c", daemon.file, "off"), ("off", "-c", daemon.file)):
        assert say("carrier", *words)[0] == 0
    assert say("-c", "/missing", "carrier", "-c", "/missing", "on", "-c", daemon.file)[0] == 0
    assert [body for _, _, body in daemon.asked] == [{"state": way} for way in ("off", "off", "on")]


def test_where_bpf_cannot_carry(daemon: Any, say: Any) -> None:
    """The daemon's refusal has the reason."""
    daemon.answers["/v1/carrier"] = (400, {"error": "BPF carries no flow here: x", "remedy": "y"})
    assert say("carrier", "on") == (1, "", "paraglider: BPF carries no flow here: x; y\n")
