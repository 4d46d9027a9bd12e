"""Golden files: a configuration in ``golden/NAME.yaml``, its rules in ``NAME.v4`` and ``NAME.v6``.

The extra key ``cores`` of a configuration names the workers' cores, ``hairpin`` is for the tables
of ``forward: offload`` (``NAME.nft4``, ``NAME.nft6``: ``test_table``). After a deliberate change,
``UPDATE_GOLDEN=1 pytest tests/forward`` rewrites the files; read the difference before committing.
"""

from __future__ import annotations

import ipaddress
import itertools
import os
from pathlib import Path

import pytest
import yaml

from paraglider.config.model import Config
from paraglider.forward.queue_rules import queue_rules
from paraglider.netfilter.iptables import Iptables
from paraglider.netfilter.rules.ruleset import RuleSet

GOLDEN = Path(__file__).parent / "golden"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.yaml"))
SEED = 0x0C0FFEE0


def rules(name: str, family: int) -> RuleSet | None:
    """The rule set of a golden configuration."""
    content = yaml.safe_load((GOLDEN / f"{name}.yaml").read_text(encoding="utf-8"))
    cores = tuple(content.pop("cores"))
    content.pop("hairpin", None)
    return queue_rules(Config.model_validate(content), family, cores, SEED)


def wanted(name: str, family: int) -> str:
    """The text of a golden configuration, empty when the family has no rules."""
    found = rules(name, family)
    return found.text() if found is not None else ""


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("name", NAMES)
def test_the_text_is_the_golden_one(name: str, family: int) -> None:
    """The text equals the reviewed file, byte for byte."""
    file = GOLDEN / f"{name}.v{family}"
    text = wanted(name, family)
    if os.environ.get("UPDATE_GOLDEN"):
        file.unlink(missing_ok=True)
        if text:
            file.write_text(text, encoding="utf-8")
    held = file.read_text(encoding="utf-8") if file.exists() else ""
    assert text == held


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("name", NAMES)
def test_no_rule_is_there_twice(name: str, family: int) -> None:
    """Services that share a VIP or a backend do not make a packet meet the same match twice."""
    appended = [line for line in wanted(name, family).splitlines() if line.startswith("-A ")]
    assert len(appended) == len(set(appended))


@pytest.mark.parametrize("name", NAMES)
def test_only_chains_of_ours_are_filled(name: str) -> None:
    """No rule is appended to a chain of others, no policy is set, nothing is flushed."""
    for family in (4, 6):
        for line in wanted(name, family).splitlines():
            assert line.startswith(("*", ":PARAGLIDER", "-A PARAGLIDER", "-I ", "# ", "COMMIT")), (
                line
            )
            if line.startswith("-I "):
                assert " 1 -j PARAGLIDER" in line


@pytest.mark.parametrize("name", NAMES)
def test_every_jump_has_its_chain(name: str) -> None:
    """The target of a jump is declared in the same table."""
    for family in (4, 6):
        found = rules(name, family)
        for table in found.tables if found else ():
            chains = {chain.name for chain in table.chains}
            assert {target for _, target in table.jumps} <= chains
            for chain in table.chains:
                for rule in chain.rules:
                    words = rule.split()
                    target = words[words.index("-g" if "-g" in words else "-j") + 1]
                    assert target in chains or not target.startswith("PARAGLIDER")


def test_other_forwards_get_no_rules() -> None:
    """A family with services of other methods only has no rule set."""
    service = {"name": "a", "vip": "192.168.0.11/24", "protocol": "tcp", "backends": ["10.0.0.1"]}
    config = Config.model_validate({"services": [{**service, "forward": "proxy"}]})
    assert queue_rules(config, 4, (0,), SEED) is None
    assert queue_rules(config, 6, (0,), SEED) is None


@pytest.mark.root
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("name", NAMES)
def test_the_kernel_takes_the_text(name: str, family: int) -> None:
    """iptables and the kernel accept every golden text, in a namespace that is thrown away."""
    if text := wanted(name, family):
        Iptables().rehearse(family, text)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("forward", ["nat", "offload", "dsr"])
def test_the_host_sends_no_redirects(forward: str, family: int) -> None:
    """Once, beside any other services; without forwarding there is no rule."""
    one = {"name": "a", "vip": "192.168.0.11/24", "backends": ["10.0.0.1"]}
    if family == 6:
        one |= {"vip": "2001:db8::11/64", "backends": ["fd00:10::1"]}
    one |= {"protocol": "tcp", "ports": 80, "forward": forward}
    two = {**one, "name": "b", "vip": one["vip"].replace("11/", "12/")}
    sides = {"public": {"interface": "eth0"}, "private": {"interface": "eth1"}}
    for services in ([one], [one, two], [one, {**two, "forward": "nat"}]):
        wanted = Config.model_validate({"network": sides, "services": services})
        found = queue_rules(wanted, family, (0,), SEED)
        assert found is not None
        assert found.text().count("-I OUTPUT 1 -j PARAGLIDER-REDIRECT\n") == 1
        kind = {4: "-p icmp -m icmp --icmp-type 5", 6: "-p ipv6-icmp -m icmp6 --icmpv6-type 137"}
        assert found.text().count(f"-A PARAGLIDER-REDIRECT {kind[family]} -j DROP\n") == 1


class Walk:
    """The rules that a SYN to port 80 of ``vip`` meets in the chains of a table. Other matches are
    answered as for the first packet of a flow.
    """

    def __init__(self, found: RuleSet, vip: str) -> None:
        self.tables = {t.name: ({c.name: c.rules for c in t.chains}, t.jumps) for t in found.tables}
        self.vip = ipaddress.ip_address(vip)
        self.met = 0

    def through(self, table: str, hook: str) -> str:
        """The target that ends it, nothing for none."""
        chains, jumps = self.tables.get(table, ({}, ()))
        for builtin, chain in jumps:
            if builtin == hook and (end := self._chain(chains, chain)):
                return end
        return ""

    def _chain(self, chains: dict[str, tuple[str, ...]], name: str) -> str:
        for rule in chains[name]:
            self.met += 1
            words = rule.split()
            if not self._matches(words):
                continue
            option = "-g" if "-g" in words else "-j"
            target = words[words.index(option) + 1]
            if target in chains:
                end = self._chain(chains, target)
                if end or option == "-g":
                    return end
            elif target == "RETURN":
                return ""
            elif target in ("NFQUEUE", "REJECT", "DROP", "ACCEPT"):
                return target
        return ""

    def _matches(self, words: list[str]) -> bool:
        given = dict(itertools.pairwise(words))
        if "-s" in given or "-i" in given or given.get("-p", "tcp") != "tcp" or "!" in words:
            return False
        if "--ctstate" in given or "--ctstatus" in given:
            return False
        if "--mark" in given and "NFQUEUE" not in words:
            return False
        if "-d" in given and self.vip not in ipaddress.ip_network(given["-d"]):
            return False
        return given.get("--dport", "80") == "80"


@pytest.mark.parametrize("forward", ["nat", "offload", "dsr"])
def test_a_request_meets_few_rules_with_many_vips(forward: str) -> None:
    """Requests to the last VIP meet as few rules as those to the first; all of them reach a queue,
    others do not.
    """

    def met(count: int) -> list[int]:
        services = [
            {
                "name": f"s{n}",
                "vip": f"192.168.{n // 200}.{n % 200 + 1}/32",
                "protocol": "tcp",
                "ports": 80,
                "forward": forward,
                "backends": [f"10.{n // 200}.{n % 200}.1"],
            }
            for n in range(count)
        ]
        found = queue_rules(Config.model_validate({"services": services}), 4, (0,), 1)
        assert found is not None
        lengths = []
        for n in range(count):
            walk = Walk(found, str(services[n]["vip"]).removesuffix("/32"))
            assert walk.through("raw", "PREROUTING") == ""
            assert walk.through("mangle", "PREROUTING") == "NFQUEUE"
            lengths.append(walk.met)
        other = Walk(found, "192.168.200.1")
        assert other.through("mangle", "PREROUTING") == ""
        if forward == "dsr":
            refused = Walk(found, "192.168.0.1")
            assert refused.through("filter", "FORWARD") == "REJECT"
            assert other.through("filter", "FORWARD") == ""
        return [*lengths, other.met]

    few, many = met(50), met(800)
    assert max(many) <= 4 * max(few)  # as the root of how many there are


def test_a_mark_of_the_packet_is_asked_before_one_of_the_connection() -> None:
    """It is cheaper, in any order of the file."""
    one = {"name": "a", "vip": "192.168.0.11/24", "backends": ["10.0.0.1"]}
    one |= {"protocol": "tcp", "ports": 80}
    two = {**one, "name": "b", "vip": "192.168.0.12/24", "forward": "offload"}
    two["backends"] = ["10.0.0.2"]
    found = queue_rules(Config.model_validate({"services": [two, one]}), 4, (0,), SEED)
    assert found is not None
    rules = [line for line in found.text().splitlines() if line.startswith("-A PARAGLIDER-FWD ")]
    first, second = rules[:2]
    assert "-m mark " in first
    assert "-m connmark " in second
