"""Tests of ``paraglider.host.plan_filter``: the tables and the rules of a plan."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.host.changes.base import Change
from paraglider.host.changes.legacy import LegacyChange
from paraglider.host.changes.ruleset import RulesChange
from paraglider.host.changes.table import TableChange
from paraglider.host.plan_filter import filter_steps, hairpin_interfaces, lacking
from paraglider.host.step import Step

WEB = {"name": "web", "vip": "192.168.0.11/24", "protocol": "tcp", "ports": 80}
WEB |= {"backends": ["10.0.0.1", "172.16.0.1"]}
OFFLOAD = {**WEB, "forward": "offload"}
NETWORK = {
    "public": {"interface": "eth0"},
    "private": {"interface": "eth1", "gateway": ["10.0.0.254/8"]},
}


def config(*services: dict[str, Any]) -> Config:
    """A configuration with both interfaces named."""
    return Config.model_validate({"network": NETWORK, "services": list(services)})


def filtered(air: Any, wanted: Config, earlier: Iterable[Change] = ()) -> list[Step]:
    """The steps of IPv4 with one worker, given the records of an earlier set-up."""
    records = {change.identity: change for change in earlier}
    return list(filter_steps(wanted, 4, (0,), 1, air.host, records))


def tables(steps: list[Step]) -> list[TableChange]:
    """The tables that are to be made."""
    return [s.change for s in steps if s.action == "apply" and isinstance(s.change, TableChange)]


def test_hairpins_are_where_the_backends_are(air: Any) -> None:
    """On the private link, also before it has its address, and on other links with a route."""
    (table,) = tables(filtered(air, config(OFFLOAD)))
    assert 'iifname . oifname { "eth0" . "eth0", "eth1" . "eth1" } masquerade' in table.text
    (table,) = tables(filtered(air, config({**OFFLOAD, "backends": ["10.0.0.1"]})))
    assert 'iifname . oifname { "eth1" . "eth1" } masquerade' in table.text


def test_an_unchanged_table_is_kept(air: Any) -> None:
    """As long as the kernel's table is unchanged; otherwise it is applied again, without removed
    backends.
    """
    (table,) = tables(filtered(air, config(OFFLOAD)))
    table.apply(air.host)
    record = table.settled(air.host)
    assert tables(filtered(air, config(OFFLOAD), [record])) == []
    air.nft.tables.clear()
    (again,) = tables(filtered(air, config(OFFLOAD), [record]))
    assert again.text == table.text
    assert again.gone == []


def test_backends_that_leave_are_known(air: Any) -> None:
    """Backends of the earlier table that the new one lacks; another order is no change."""
    (table,) = tables(filtered(air, config(OFFLOAD)))
    table.apply(air.host)
    record = table.settled(air.host)
    (fewer,) = tables(filtered(air, config({**OFFLOAD, "backends": ["172.16.0.1"]}), [record]))
    assert len(fewer.gone) == 1
    assert set(fewer.gone) < set(table.marks)
    backends = ["172.16.0.1", "10.0.0.1"]
    for turned in tables(filtered(air, config({**OFFLOAD, "backends": backends}), [record])):
        assert turned.gone == []


def rules(steps: list[Step]) -> Step:
    """The step of the rules."""
    (step,) = (s for s in steps if isinstance(s.change, RulesChange))
    return step


def test_the_table_is_there_before_the_rules(air: Any) -> None:
    """A packet that the rules have decided about must find it."""
    kinds = [step.change.kind for step in filtered(air, config(OFFLOAD))]
    assert kinds.index("table") < kinds.index("rules")
    assert kinds[-1] == "rules"


def test_rules_are_kept_as_long_as_the_kernel_has_them(air: Any) -> None:
    """Changed rules, and those of another file, are applied again; undo
    restores the first state.
    """
    first = rules(filtered(air, config(WEB)))
    assert first.action == "apply"
    first.do(air.host)
    assert isinstance(first.change, RulesChange)
    record = first.change.settled(air.host)
    assert rules(filtered(air, config(WEB), [record])).action == "keep"
    other = rules(filtered(air, config({**WEB, "ports": 81}), [record])).change
    assert isinstance(other, RulesChange)
    assert (other.previous, other.before) == (record.text, record.before)
    air.netfilter.remove_ours(4)
    assert rules(filtered(air, config(WEB), [record])).action == "apply"


def test_a_proxy_needs_no_packet_filter(air: Any) -> None:
    """Its connections end here; the other family has no service."""
    assert filtered(air, config({**WEB, "forward": "proxy"})) == []
    assert list(filter_steps(config(WEB), 6, (0,), 1, air.host, {})) == []


def test_hairpins_of_a_method_that_conntrack_does_not_carry(air: Any) -> None:
    """There are none; and loopback is no such interface."""
    assert hairpin_interfaces(config(WEB), 4, air.host) == ()
    assert hairpin_interfaces(config(OFFLOAD), 4, air.host) == ("eth0", "eth1")


def legacy(steps: list[Step]) -> list[Step]:
    """The steps of iptables-legacy's rules."""
    return [step for step in steps if isinstance(step.change, LegacyChange)]


def test_legacy_rules_where_there_is_a_legacy_filter(air: Any) -> None:
    """Only the filter table; kept while unchanged, replaced for another file."""
    assert legacy(filtered(air, config(WEB))) == []
    air.legacy.used = True
    (step,) = legacy(filtered(air, config(WEB)))
    assert isinstance(step.change, LegacyChange)
    assert "*filter" in step.change.text
    assert "*raw" not in step.change.text
    assert "*mangle" not in step.change.text
    step.do(air.host)
    record = step.change.settled(air.host)
    (again,) = legacy(filtered(air, config(WEB), [record]))
    assert again.action == "keep"
    (other,) = legacy(filtered(air, config(OFFLOAD), [record]))
    assert isinstance(other.change, LegacyChange)
    assert (other.action, other.change.previous) == ("apply", record.text)


@pytest.mark.parametrize("action", ["apply", "keep", "revert"])
def test_a_missing_optional_table_is_reported(air: Any, action: Any) -> None:
    """Reported for an optional table that no step has; not for one that exists."""
    wanted = config({**WEB, "forward": "dsr", "backends": ["10.0.0.1"]})
    steps = [Step(action, step.change) for step in filtered(air, wanted)]
    lines = lacking(wanted, 1, steps)
    assert len(lines) == (action == "revert")
    assert all("cannot lease flows" in line for line in lines)
