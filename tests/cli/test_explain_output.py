"""Tests of ``paraglider.cli.explain_output``: the words for a person, made from the data."""

from __future__ import annotations

from paraglider.cli.explain_output import lines

FLOW = {
    "protocol": "tcp",
    "client": "2001:db8::1",
    "client_port": 1000,
    "vip": "2001:db8::2",
    "port": 80,
    "service": "web",
    "backend": None,
    "candidates": [
        {"backend": "fd00::1", "weight": 1, "share": 0.25},
        {"backend": "fd00::2", "weight": 3, "share": None},
    ],
    "why": [{"about": "state", "text": "all are well"}, {"about": "strategy", "text": "by turn"}],
}


def test_one_flow() -> None:
    """A single flow is shown in full: its backends with their shares, and each step."""
    assert list(lines({"flows": [FLOW]})) == [
        "tcp [2001:db8::1]:1000 → [2001:db8::2]:80",
        "  backend   one of 2",
        "            fd00::1                 25.0 %  weight 1",
        "            fd00::2                      ?  weight 3",
        "  state     all are well",
        "  strategy  by turn",
    ]


def test_flows_of_a_capture() -> None:
    """Each flow of a capture is a line, and the packets are summed up."""
    known = {**FLOW, "backend": "fd00::1", "begins": True, "packets": 2}
    echo = {**known, "protocol": "icmp6", "client_port": 7, "begins": False}
    packets = dict.fromkeys(
        ("to_services", "from_services", "of_others", "not_flows", "not_ip", "of_further_flows"), 0
    )
    packets["to_services"] = 4
    assert list(lines({"flows": [known, echo], "packets": packets})) == [
        "tcp [2001:db8::1]:1000 → [2001:db8::2]:80: `web`, fd00::1; by turn",
        (
            "icmp6 2001:db8::1 → 2001:db8::2 (echo 7): `web`, fd00::1; by turn"
            " (no opening captured: only a known flow goes there)"
        ),
        "4 packets:",
        "          4 of these flows",
    ]


def test_against() -> None:
    """Moved parts of the hash space, and moved flows."""
    stays = {"before": "worker", "after": "worker"}
    change = {"service": "a", "of": ["tcp 80"], "becomes": "a", "shares": {}, "decides": stays}
    other = {"before": "hash", "after": "kernel"}
    counts = {"flows": 3, "kept": 2, "moved": 0, "lost": 1, "open": 0}
    data = {
        "against": {
            "file": "new",
            "services": [
                {**change, "hash_space": {"moved": 1, "of": 4, "sampled": False}},
                {**change, "hash_space": {"moved": 1, "of": 8, "sampled": True}, "becomes": "b"},
                {
                    **change,
                    "hash_space": None,
                    "shares": {"x": {"before": 0.5, "after": 1.0}},
                    "decides": other,
                },
                {**change, "hash_space": None, "becomes": None},
            ],
            "live": {"a": counts},
        }
    }
    assert list(lines(data)) == [
        "against new:",
        "  `a` (tcp 80): 25.0 % of the hash space moves (1 of 4 entries of the table)",
        "  `a` (tcp 80), now `b`: 12.5 % of the hash space moves (1 of 8 flows that were tried)",
        "  `a` (tcp 80): no hash in one of the files, or in both: new flows go by turn",
        "    the kernel for each packet → the kernel decides",
        "    x                       50.0 % → 100.0 % of new flows",
        "  `a` (tcp 80): removed",
        "  `a`, 3 live flows: 2 keep their backend, 1 lose their service or backend",
        "  A reload moves no live flow whose backend stays.",
    ]
