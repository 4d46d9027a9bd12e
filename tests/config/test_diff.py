"""The differences of two configurations, as text."""

from __future__ import annotations

from typing import Any

import pytest

from paraglider.config.diff import differences, in_place, predecessors, restarts
from paraglider.config.model import Config


def config(*services: dict[str, Any], **top: Any) -> Config:
    """A configuration of these services; the default is `web` with two backends."""
    base = {"vip": "192.0.2.1/24", "protocol": "tcp", "ports": 80}
    backends = ["10.0.0.1", {"address": "10.0.0.2", "weight": 2}]
    whole = [{"name": "web", **base, "backends": backends, **s} for s in services or ({},)]
    return Config.model_validate({"services": whole, **top})


@pytest.mark.parametrize(
    ("new", "lines"),
    [
        (config(), []),
        (config({"strategy": "maglev"}), ["service web: strategy rr → maglev"]),
        (config({"strategy": "maglev"}).seeded(5), ["service web: strategy rr → maglev"]),
        (
            config({"backends": ["10.0.0.1", "10.0.0.2"]}),
            ["service web: backend 10.0.0.2 weight 2 → 1"],
        ),
        (
            config({"backends": ["10.0.0.1", "10.0.0.3"]}),
            [
                "service web: backend 10.0.0.2 removed, its flows live on",
                "service web: backend 10.0.0.3 added",
            ],
        ),
        (
            config({}, {"name": "b", "ports": 81, "backends": ["10.0.0.9"]}),
            ["service b added, 1 backend"],
        ),
        (config({"name": "b"}), ["service web is called b now"]),
        (
            config({"name": "b", "ports": 81}),
            ["service web removed", "service b added, 2 backends"],
        ),
        (
            config({"name": "b", "forward": "offload"}),
            ["service web removed", "service b added, 2 backends"],
        ),
        (config(timeouts={"udp": 200}), ["timeouts.udp: 120 → 200"]),
        (config({"ports": [80, 443]}), ["service web: ports 80 → 80, 443"]),
        (
            config({"check": {"type": "tcp", "interval": 3}}),
            [
                (
                    "service web: check none → type tcp path / expect (status 200-399) verify false"
                    " interval 3 rise 2 fall 3"
                )
            ],
        ),
        (
            config({"backends": {"file": "/etc/web"}}),
            [
                "service web: backends come from this file → /etc/web",
                "service web: backend 10.0.0.1 removed, its flows live on",
                "service web: backend 10.0.0.2 removed, its flows live on",
            ],
        ),
        (config(user="root", workers={"first_core": 0}), []),
    ],
)
def test_in_words(new: Config, lines: list[str]) -> None:
    """A line for each difference, and none for one that needs a restart."""
    assert differences(config(), new) == lines


WEB = {"name": "web", "ports": 80, "backends": ["10.0.0.1"]}
TLS = {"name": "tls", "ports": 443, "backends": ["10.0.0.2"]}


@pytest.mark.parametrize(
    ("new", "found"),
    [
        ((WEB, TLS), {"web": "web", "tls": "tls"}),
        ((TLS, WEB), {"web": "web", "tls": "tls"}),
        (({**WEB, "ports": 443}, {**TLS, "ports": 80}), {"web": "tls", "tls": "web"}),
        (({**WEB, "name": "tls"}, {**TLS, "name": "web"}), {"web": "tls", "tls": "web"}),
        (({**WEB, "ports": 443}, {**TLS, "ports": 444}), {"web": "tls"}),
        (({**WEB, "ports": 81}, TLS), {"web": "web", "tls": "tls"}),
        (({**WEB, "ports": [80, 443]},), {"web": "web"}),
        (({**WEB, "name": "www"}, {**TLS, "name": "web"}), {"www": "web", "web": "tls"}),
        (({**WEB, "forward": "dsr"}, TLS), {"web": "web", "tls": "tls"}),
        (({**WEB, "protocol": "udp", "ports": 443},), {"web": "web"}),
    ],
)
def test_which_service_is_which(new: tuple[dict[str, Any], ...], found: dict[str, str]) -> None:
    """By its name while it keeps a port; otherwise by its ports; each has one successor."""
    assert predecessors(config(WEB, TLS), config(*new)) == found


def routed(name: str, sni: str, service: str = "web") -> dict[str, Any]:
    """A route of ``service``, which has the same VIP and port."""
    return {**WEB, "name": name, "route": {"service": service, "sni": [sni]}}


@pytest.mark.parametrize(
    ("new", "found"),
    [
        ((WEB, routed("a", "b.example")), {"web": "web", "a": "a"}),
        ((WEB, routed("b", "a.example")), {"web": "web", "b": "a"}),
        ((WEB, routed("b", "b.example")), {"web": "web"}),
        (({**WEB, "name": "www"}, routed("b", "a.example", "www")), {"www": "web", "b": "a"}),
        ((routed("b", "a.example", "www"), {**WEB, "name": "www"}), {"www": "web", "b": "a"}),
    ],
)
def test_which_route_is_which(new: tuple[dict[str, Any], ...], found: dict[str, str]) -> None:
    """By its name, or by what it matches; never the service that has its port."""
    assert predecessors(config(WEB, routed("a", "a.example")), config(*new)) == found


def test_a_route_in_words() -> None:
    """What it matches, and its service."""
    before, after = config(WEB, routed("a", "a.example")), config(WEB, routed("a", "b.example"))
    assert differences(before, after) == ["service a: route.sni a.example → b.example"]


def test_swapped_ports_in_words() -> None:
    """With the new names, and the other differences."""
    new = config({**WEB, "ports": 443}, {**TLS, "ports": 80})
    assert differences(config(WEB, TLS), new) == [
        "service web is called tls now",
        "service web: backend 10.0.0.1 removed, its flows live on",
        "service web: backend 10.0.0.2 added",
        "service tls is called web now",
        "service tls: backend 10.0.0.2 removed, its flows live on",
        "service tls: backend 10.0.0.1 added",
    ]


def test_what_takes_a_restart() -> None:
    """It is reported with its reason, and unchanged in the part that is applied."""
    old = config()
    new = config({"strategy": "wrr"}, user="daemon", workers={"last_core": 3})
    assert restarts(old, new) == [
        "workers.last_core: none → 3 takes a restart (workers have their cores)",
        "user: nobody → daemon takes a restart (processes are that user's)",
    ]
    taken = in_place(old, new)
    assert (taken.user, taken.workers) == (old.user, old.workers)
    assert taken.services == new.services


def test_the_user_that_announces_takes_a_restart() -> None:
    """The section itself does not: root is told what to announce at once."""
    old, new = config(), config(announce={"vips": "all"})
    line = "control.announcer: none → nobody takes a restart (the socket is there)"
    assert restarts(old, new) == [line]
    assert in_place(old, new).announce == new.announce
    assert differences(old, new)[0].startswith("announce: none → vips all next_hop self")
    assert restarts(new, old) == []


def test_a_seed_is_not_shown() -> None:
    """The change is reported without the values."""
    old, new = (config({"strategy": "source", "seed": seed}) for seed in (11111, 22222))
    assert differences(old, new) == ["service web: seed changed"]


def test_the_seed_of_the_file_takes_a_restart() -> None:
    """Packets are steered by it until then; services that hash follow at once. No key is shown."""
    old, new = (config({"strategy": "source"}, seed=s).seeded(None) for s in (11111, 22222))
    (line,) = restarts(old, new)
    assert line == "seed takes a restart (packets are steered to the workers by it)"
    assert differences(old, new) == ["service web: seed changed"]
    taken = in_place(old, new)
    assert (taken.seed, taken.services[0].seed) == (11111, 22222)
    assert restarts(old, old) == []
