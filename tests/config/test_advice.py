"""Tests of ``paraglider.config.advice``: warnings about valid files."""

from __future__ import annotations

import pytest

from paraglider.config.advice import warnings
from paraglider.config.load import parse

SERVICE = "services: [{name: a, vip: 192.168.0.11/24, protocol: tcp, backends: [10.0.0.1]}]\n"


def lines_of(text: str) -> list[str]:
    """The warnings about a valid file."""
    loaded = parse(text, "f")
    return loaded.lines(warnings(loaded.config))


@pytest.mark.parametrize(
    ("key", "seconds", "least", "source"),
    [
        ("syn", 239, 240, "RFC 5382"),
        ("established", 7439, 7440, "RFC 5382"),
        ("udp", 119, 120, "RFC 4787"),
        ("icmp", 59, 60, "RFC 5508"),
    ],
)
def test_timeout_below_the_standard(key: str, seconds: int, least: int, source: str) -> None:
    """A timeout below its standard's minimum has a warning, the minimum has none."""
    (line,) = lines_of(f"timeouts: {{{key}: {seconds}}}\n{SERVICE}")
    assert line.startswith(f"f:1:{13 + len(key) + 1}: `{key}` of {seconds} s")
    assert f"write {least} or more ({source}" in line
    assert lines_of(f"timeouts: {{{key}: {least}}}\n{SERVICE}") == []


def test_the_old_name_of_closed() -> None:
    """It still applies, and `check` names the new one."""
    (line,) = lines_of(f"timeouts: {{closing: 240}}\n{SERVICE}")
    assert line.startswith("f:1:12: `closing` is an old name")
    assert "write closed: {rst: 10, fin: 60}" in line


@pytest.mark.parametrize(
    ("failover", "mentioned"),
    [
        ("{enabled: true}", True),
        ("{enabled: true, discover: false}", False),
        ("{rise: 2, discover: true}", False),
    ],
)
def test_discovery_is_not_served_yet(failover: str, mentioned: bool) -> None:
    """With failover a warning says that hosts which newly answer do not join."""
    lines = lines_of(f"failover: {failover}\n{SERVICE}")
    assert any("`discover` is not served yet" in line for line in lines) is mentioned


def test_check_that_may_take_longer_than_its_interval() -> None:
    """A check that overruns its own interval is mentioned; by default none does."""
    slow = "check: {interval: 0.5, timeout: 2}"
    lines = lines_of(SERVICE.replace("name: a,", f"name: a, ports: 80, {slow},"))
    assert any("f:1:65: a check may take 2 s, and the next is due after 0.5 s" in x for x in lines)
    quick = slow.replace(", timeout: 2", "")
    lines = lines_of(SERVICE.replace("name: a,", f"name: a, ports: 80, {quick},"))
    assert not any("a check may take" in line for line in lines)


@pytest.mark.parametrize(("strategy", "effect"), [("rr", False), ("wrr", True)])
def test_slow_start_wants_weights(strategy: str, effect: bool) -> None:
    """A strategy without weights cannot lead a backend in slowly."""
    keys = f"name: a, strategy: {strategy}, slow_start: 10,"
    lines = lines_of(SERVICE.replace("name: a,", keys))
    assert any("`slow_start` has no effect" in line for line in lines) is not effect


def test_on_down_without_a_check() -> None:
    """`on_down` has no effect without a check."""
    keys = "name: a, on_down: keep,"
    lines = lines_of(SERVICE.replace("name: a,", keys))
    assert any("`on_down` is for backends that go down, and nothing looks" in x for x in lines)
    lines = lines_of(SERVICE.replace("name: a,", f"{keys} check: {{type: icmp}},"))
    assert not any("nothing looks" in line for line in lines)


def test_empty_stats_section_is_left_out() -> None:
    """An empty `stats:` section means none, without a warning."""
    assert lines_of(f"stats:\n{SERVICE}") == lines_of(f"stats: {{}}\n{SERVICE}") == []


def test_weight_zero() -> None:
    """A backend that takes no new flows is mentioned."""
    text = SERVICE.replace("[10.0.0.1]", "[10.0.0.1, {address: 10.0.0.2, weight: 0}]")
    (line,) = lines_of(text)
    assert "backend 10.0.0.2 has weight 0 and takes no new flows; write 1 or more" in line


def test_weight_without_effect() -> None:
    """A weight under `rr` does nothing, under `wrr` it does."""
    text = SERVICE.replace("[10.0.0.1]", "[{address: 10.0.0.2, weight: 3}]")
    (line,) = lines_of(text)
    assert "`weight: 3` has no effect with `strategy: rr`; use `strategy: maglev`, " in line
    assert lines_of(text.replace("name: a,", "name: a, strategy: wrr,")) == []


@pytest.mark.parametrize(
    ("keys", "warned"),
    [
        ("decide: auto, carrier: worker", True),
        ("forward: dsr, strategy: maglev, decide: hash, carrier: worker", True),
        ("decide: python, carrier: worker", False),
        ("carrier: worker", False),
        ("decide: auto", False),
        ("decide: auto, carrier: bpf, affinity: client", False),
    ],
)
def test_the_kernel_cannot_decide_where_the_workers_carry(keys: str, warned: bool) -> None:
    """The two keys contradict each other; a worker decides. `auto` alone is no mistake."""
    sides = "network: {public: {interface: eth0}, private: {interface: eth1}}\n"
    found = lines_of(sides + SERVICE.replace("protocol: tcp,", f"protocol: tcp, {keys},"))
    assert len(found) == warned
    if warned:
        decide = "hash" if "hash" in keys else "auto"
        assert f"`decide: {decide}` has no effect with `carrier: worker`: the kernel" in found[0]
        assert found[0].endswith("; leave one of the two out")


@pytest.mark.parametrize(
    ("keys", "warned"),
    [
        ("forward: tunnel, carrier: xdp", True),
        ("forward: tunnel, carrier: bpf", False),
        ("forward: dsr, carrier: xdp", False),
        ("carrier: xdp", False),
    ],
)
def test_tunnels_are_not_carried_at_xdp(keys: str, warned: bool) -> None:
    """The file is valid: tc carries what XDP leaves."""
    sides = "network: {public: {interface: eth0}, private: {interface: eth1}}\n"
    found = lines_of(sides + SERVICE.replace("protocol: tcp,", f"protocol: tcp, {keys},"))
    assert len(found) == warned
    if warned:
        assert "`carrier: xdp` with `forward: tunnel`: the program at XDP leaves" in found[0]
        assert found[0].endswith("; write `carrier: bpf`")


def test_gateway_of_a_family_without_service() -> None:
    """A gateway that no service needs is mentioned, at its item."""
    head = "network: {private: {interface: e, gateway: [10.0.0.254/8, 'fd00:10::fe/64']}}\n"
    (line,) = lines_of(head + SERVICE)
    assert line.startswith("f:1:59: gateway fd00:10::fe/64 serves no service: none is IPv6; ")


def test_plain_file_has_no_warnings() -> None:
    """A file with services only has no warnings."""
    assert lines_of(SERVICE) == []


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ("adopt: auto, strategy: rr", "`strategy: rr`, which is no hash"),
        ("adopt: auto, strategy: weighted", "`strategy: weighted`, which is no hash"),
        ("adopt: auto, strategy: maglev, seed: 1, affinity: client", "`affinity: client`"),
        ("adopt: auto, strategy: maglev", "without a `seed`"),
        ("adopt: auto, strategy: source, seed: 7", ""),
        (
            "adopt: auto, strategy: maglev, seed: 1, forward: offload, snat: 10.0.0.9",
            "`adopt: auto` has no effect with `snat`",
        ),
        ("adopt: auto, strategy: maglev, seed: 1, forward: offload", ""),
        ("adopt: never, strategy: rr", ""),
        ("adopt: auto, strategy: 'mine.policy:Hash', seed: 1", ""),
        ("strategy: rr", ""),
        ("strategy: maglev", ""),
    ],
)
def test_balancers_that_would_not_agree(keys: str, what: str) -> None:
    """What is written asks for adoption, and something else keeps flows from being adopted."""
    found = [
        line
        for line in lines_of(SERVICE.replace("name: a,", f"name: a, {keys},"))
        if "adopt" in line
    ]
    assert len(found) == bool(what)
    for line in found:
        assert what in line


@pytest.mark.parametrize(
    ("keys", "place", "what"),
    [
        ("strategy: rr", "strategy", "`strategy: rr` is no hash, so balancers do not agree"),
        ("strategy: wrr", "strategy", "`strategy: wrr` is no hash"),
        ("strategy: weighted", "strategy", "`strategy: weighted` is no hash"),
        ("strategy: source, affinity: client", "affinity", "`affinity: client` is each balancer's"),
        ("strategy: source, slow_start: 5", "slow_start", "`slow_start`: while it lasts"),
        ("strategy: maglev", "", ""),
        ("strategy: rr, adopt: never", "", ""),
        ("strategy: maglev, slow_start: 5, adopt: never", "", ""),
        ("strategy: rr, forward: offload", "", ""),
        ("strategy: 'mine.policy:Own'", "", ""),
    ],
)
def test_what_cannot_agree_in_a_file_for_several(keys: str, place: str, what: str) -> None:
    """A file with a seed is one, and a file that leaves the host's addresses open; others have no
    warning. `adopt: never` says that flows need not move; without it, `offload` keeps them in
    conntrack.
    """
    text = SERVICE.replace("name: a,", f"name: a, {keys},")
    network = "network: {private: {interface: eth1, gateway: [{interface: eth1}]}}\n"
    for several in ("seed: 7\n", f"{network}seed: 7\n"):
        lines = lines_of(several + text)
        assert len(lines) == bool(what), lines
        column = text.index(f"{place}:") + 1 + (len(place) + 2) * (place != "slow_start")
        for line in lines:
            assert line.startswith(f"f:{1 + several.count(chr(10))}:{column}: {what}")
    assert lines_of(text) == []


@pytest.mark.parametrize("forward", ["nat", "offload", "proxy"])
def test_a_seed_that_is_left_to_the_machine(forward: str) -> None:
    """With any method: new flows of a client go elsewhere too."""
    keys = f"ports: 80, strategy: maglev, forward: {forward}"
    text = SERVICE.replace("name: a,", f"name: a, {keys},")
    own = "network: {private: {interface: eth1, gateway: [{interface: eth1}]}}\n"
    (line,) = lines_of(own + text)
    assert "`strategy: maglev` without a `seed`: each balancer draws its own" in line
    assert lines_of(f"seed: 7\n{own}{text}") == []
    assert lines_of(own + text.replace("strategy: maglev", "strategy: maglev, seed: 7")) == []
    assert lines_of(text) == []


def test_a_seed_of_one_service_is_about_that_one() -> None:
    """Others may be of this balancer alone."""
    hashed = SERVICE.replace("name: a,", "name: a, strategy: maglev, seed: 7, slow_start: 5,")
    other = "{name: b, vip: 192.168.0.12/24, protocol: tcp, backends: [10.0.0.2]}"
    (line,) = lines_of(hashed.replace("}]", f"}}, {other}]"))
    assert "`slow_start`: while it lasts" in line


def test_more_ready_backends_than_there_are() -> None:
    """A number above that of the listed ones; a share is never too many."""
    (line,) = lines_of(SERVICE.replace("name: a,", "name: a, min_ready: 3,"))
    assert "`min_ready: 3` with 1 backends: `health` is always degraded; write 1 or less" in line
    assert lines_of(SERVICE.replace("name: a,", "name: a, min_ready: 100%,")) == []


def test_a_port_that_answers_for_two_vips() -> None:
    """By default: an error only where the file asks for adoption."""
    text = (
        "services:\n"
        "  - {name: a, vip: 192.168.0.11/24, protocol: tcp, ports: 80, strategy: maglev,"
        " backends: [10.0.0.1]}\n"
        "  - {name: b, vip: 192.168.0.12/24, protocol: tcp, ports: 80, backends: [10.0.0.1]}\n"
    )
    (line,) = lines_of(text)
    assert line.startswith("f:2:")
    assert "answers for `b` too" in line
    assert lines_of(text.replace("maglev", "rr")) == []
