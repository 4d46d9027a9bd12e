"""Digests of a configuration: what two balancers' files have to agree about."""

from __future__ import annotations

from typing import Any

import pytest

from paraglider.config.digest import digesting
from paraglider.config.model import Config
from paraglider.config.steps import completed

WEB: dict[str, Any] = {
    "name": "web",
    "vip": "192.0.2.1/24",
    "protocol": "tcp",
    "forward": "offload",
    "strategy": "maglev",
    "snat": "10.0.0.254",
    "backends": [{"address": "10.0.0.1", "weight": 2}, "10.0.0.2"],
}
MAIL: dict[str, Any] = {**WEB, "name": "mail", "ports": 25}
FILE: dict[str, Any] = {
    "seed": 7,
    "network": {
        "public": {"interface": "eth0"},
        "private": {"interface": "eth1", "gateway": ["10.0.0.254/8"]},
    },
    "services": [WEB, MAIL],
}


def found(**changes: Any) -> dict[str, str]:
    """The digests of the file with these changes, as a host reads it."""
    return completed(digesting(Config.model_validate({**FILE, **changes}).seeded(1)))


def differing(**changes: Any) -> set[str]:
    """The sections whose digests these changes change."""
    before, after = found(), found(**changes)
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


@pytest.mark.parametrize(
    ("changes", "sections"),
    [
        ({"timeouts": {"udp": 300}}, {"timeouts"}),
        ({"failover": {"enabled": True}}, {"failover"}),
        ({"watch": True}, {"watch"}),
        ({"seed": 8}, {"seed"}),
        ({"services": [{**WEB, "seed": 9}, MAIL]}, {"seed"}),
        ({"services": [{**WEB, "backends": ["10.0.0.1", "10.0.0.2"]}, MAIL]}, {"services"}),
        ({"services": [{**WEB, "snat": None}, MAIL]}, {"services"}),
        ({"services": [WEB]}, {"services", "seed"}),
        ({"network": {**FILE["network"], "exempt": ["10.0.0.9:22"]}}, {"network"}),
        ({"network": {**FILE["network"], "private": {"interface": "eth1"}}}, {"network"}),
    ],
)
def test_what_has_to_be_the_same(changes: dict[str, Any], sections: set[str]) -> None:
    """The digest of the section tells where the files differ."""
    assert differing(**changes) == sections


@pytest.mark.parametrize(
    "changes",
    [
        {"workers": {"first_core": 0, "last_core": 3}},
        {"flows": {"max": 1000}},
        {"control": {"socket": "/run/other.sock"}},
        {"stats": {"bind": "10.0.0.254:9777"}},
        {"services": [{**WEB, "snat": "10.0.0.253"}, MAIL]},
        {"services": [MAIL, {**WEB, "backends": WEB["backends"][::-1]}]},
        {
            "network": {
                "public": {"interface": "enp1s0"},
                "private": {"interface": "enp2s0", "gateway": ["10.0.0.253/8"]},
            }
        },
        {"timeouts": {"udp": 120}},
    ],
)
def test_what_is_of_the_host(changes: dict[str, Any]) -> None:
    """Its addresses, interfaces, cores and memory; nor does the order count, nor a default that is
    written out.
    """
    assert differing(**changes) == set()


def test_a_seed_that_no_file_has() -> None:
    """Each host draws its own, so they differ."""
    without = {key: value for key, value in FILE.items() if key != "seed"}
    file = Config.model_validate(without)
    one, other = (completed(digesting(file.seeded(host))) for host in (1, 2))
    assert {name for name in one if one[name] != other[name]} == {"seed"}


def test_a_long_file_in_steps() -> None:
    """No step has more than a part of it, and the result does not depend on the steps."""
    many = [{**WEB, "name": f"s{number}", "ports": number} for number in range(1, 1001)]
    file = Config.model_validate({**FILE, "services": many})
    turned = Config.model_validate({**FILE, "services": many[::-1]})
    assert len(list(digesting(file))) == 5
    assert completed(digesting(file)) == completed(digesting(turned))


def test_a_password_cannot_be_guessed() -> None:
    """Whether there is one is compared, and no more: whoever may see the page has the digest."""

    def services(**parameters: str) -> dict[str, Any]:
        return {"services": [{**WEB, "check": {"type": "redis", "parameters": parameters}}, MAIL]}

    none, one, other = ({}, {"password": "a"}, {"password": "b"})
    assert found(**services(**one)) == found(**services(**other)) != found(**services(**none))
