"""A forwarding method is added by its class and its place in the registry, without another edit.

The method here forwards nothing: it has a name, a check, a description, rules and a table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path as FilePath

import pytest
from click.testing import CliRunner

from paraglider.cli.main import main
from paraglider.config.diagnostics import Path, Problem
from paraglider.config.model import Config, Network, Service
from paraglider.config.service import METHODS
from paraglider.errors import OperatorError
from paraglider.forward.base import ForwardMethod
from paraglider.forward.host_needs import NftTable
from paraglider.forward.load import load
from paraglider.forward.optional_tables import optional_tables
from paraglider.forward.queue_rules import queue_rules
from paraglider.forward.rule_parts import MethodRules, RuleScope
from paraglider.forward.schema import schema
from paraglider.netfilter.rules.backend import Need
from paraglider.netfilter.rules.matches import requests
from paraglider.netfilter.rules.ruleset import Chain, Table

SERVICE = "name: web, vip: 192.168.0.11/24, protocol: %s, ports: 80, forward: mirror, backends: %s"


class MirrorMethod(ForwardMethod):
    """A method with a chain of its own."""

    name = "mirror"
    options = frozenset({"snat"})
    owns_vip = False
    queued = True
    table_names = ("paraglider-mirror",)

    def check(self, path: Path, service: Service, network: Network) -> Iterable[Problem]:
        """TCP only."""
        if service.protocol != "tcp":
            yield Problem((*path, "protocol"), "`forward: mirror` is TCP's", "write tcp")

    def describe(self, service: Service) -> str:
        """The description."""
        return f"{len(service.backends)} mirrors see nothing."

    def rules(self, scope: RuleScope) -> MethodRules:
        """One chain."""
        rules = tuple(f"{match} -j RETURN" for match in requests(scope.of(self)))
        chain = Chain("PARAGLIDER-MIRROR", "what is mirrored", rules)
        return MethodRules((Table("mangle", (chain,), (("PREROUTING", chain.name),)),))

    def nft_tables(self, config: Config, family: int) -> Iterator[NftTable]:
        """An empty one."""
        yield NftTable("paraglider-mirror", "add table ip paraglider-mirror\n", "mirrors")

    def backend_need(self, service: Service) -> tuple[Need, str]:
        """None."""
        return "nothing", "a mirror needs nothing"


@pytest.fixture(autouse=True)
def mirror(monkeypatch: pytest.MonkeyPatch) -> MirrorMethod:
    """The method, registered."""
    method = MirrorMethod()
    monkeypatch.setitem(METHODS, method.name, method)
    return method


def written(tmp_path: FilePath, protocol: str = "tcp", backends: str = "[10.0.0.1]") -> FilePath:
    """A file with a service of the method."""
    file = tmp_path / "paraglider.conf"
    file.write_text(f"services:\n  - {{{SERVICE % (protocol, backends)}}}\n", encoding="utf-8")
    return file


def test_the_file_is_accepted_and_described(tmp_path: FilePath) -> None:
    """By `paraglider check`, in the method's words."""
    done = CliRunner().invoke(main, ["check", "-c", str(written(tmp_path))])
    assert done.exit_code == 0, done.output
    assert "mirror: 1 mirrors see nothing.\n" in done.output


def test_its_mistakes_have_their_place(tmp_path: FilePath) -> None:
    """With the checks that all methods share."""
    with pytest.raises(OperatorError, match=r":2:\d+: `forward: mirror` is TCP's; write tcp"):
        load(written(tmp_path, "udp"))
    with pytest.raises(OperatorError, match=r"backend 10\.0\.0\.1 port 80 appears twice"):
        load(written(tmp_path, backends="[10.0.0.1, 10.0.0.1]"))


def test_messages_and_schema_name_it(tmp_path: FilePath) -> None:
    """Wherever other methods are named."""
    file = written(tmp_path)
    file.write_text(file.read_text(encoding="utf-8").replace("mirror,", "mirro,"), encoding="utf-8")
    with pytest.raises(
        OperatorError, match="did you mean mirror.*nat, offload, dsr, tunnel, proxy, mirror"
    ):
        load(file)
    forward = schema()["$defs"]["Service"]["properties"]["forward"]
    assert forward["enum"] == [*METHODS]


def test_an_option_that_it_takes_is_no_mistake(tmp_path: FilePath) -> None:
    """And the errors of other methods name it."""
    file = written(tmp_path)
    text = file.read_text(encoding="utf-8").replace("ports: 80", "ports: 80, snat: 10.0.0.9")
    file.write_text(text, encoding="utf-8")
    assert str(load(file).services[0].snat) == "10.0.0.9"
    file.write_text(text.replace("forward: mirror", "forward: nat"), encoding="utf-8")
    with pytest.raises(OperatorError, match="use `forward: offload` or `forward: mirror`"):
        load(file)


def test_it_gets_its_rules(tmp_path: FilePath) -> None:
    """Beside those of the others, its tables too."""
    config = load(written(tmp_path))
    found = queue_rules(config, 4, (0,), 1)
    assert found is not None
    assert "-A PARAGLIDER-MIRROR -d 192.168.0.11 -p tcp -m tcp --dport 80 -j RETURN" in found.text()
    assert [table.name for table in optional_tables(config, 4, 1)] == ["paraglider-mirror"]
    assert queue_rules(config, 6, (0,), 1) is None
