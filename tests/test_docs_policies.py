"""docs/policies.md: its policy, its configuration and its command work."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from paraglider.cli.errors import run_command
from paraglider.cli.main import main
from paraglider.config.load import LoadedConfig, load_with_marks, parse
from paraglider.core.balancer import Balancer
from paraglider.core.flow import TCP
from paraglider.core.policy_guard import BENCH, STRIKES, PolicyGuard
from paraglider.core.service import ServiceMap
from paraglider.core.strategies import KINDS, NewFlow, create
from paraglider.forward import services, worker_datapath
from paraglider.host import policies

PAGE = (Path(__file__).parents[1] / "docs" / "policies.md").read_text()
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
HOME = "/etc/paraglider"
NO_COUNTERS = {"pick", "prepare", "rr", "budget_ms"}  # other words of that table


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """The files of the page, at their places below a directory of the test."""
    for _, text in BLOCKS:
        head = re.match(rf"# {HOME}/(\S+)\n", text)
        if head is not None:
            path = tmp_path / head[1]
            path.parent.mkdir(mode=0o755, exist_ok=True)
            path.write_text(text)
            path.chmod(0o644)
    yield tmp_path
    sys.modules.pop("offices", None)


@pytest.fixture
def loaded(home: Path) -> LoadedConfig:
    """The configuration of the page."""
    return load_with_marks(home / "paraglider.conf")


def flow(client: str, port: int) -> NewFlow:
    """A flow of ``client``, as dotted numbers, to the VIP."""
    key = bytes(map(int, client.split("."))) + bytes((192, 168, 0, 11))
    return NewFlow(TCP, key + port.to_bytes(2, "big") + b"\x00\x50", 0.0)


def test_the_table_of_names() -> None:
    """Each strategy has its row, with every alias that the file accepts."""
    rows = re.findall(
        r"^\| `((?!strategy)[a-z]+)` \| ([^|]*)\|", PAGE.partition("\n\n`strategy")[0], re.MULTILINE
    )
    assert {name: set(re.findall(r"`([^`]+)`", also)) for name, also in rows} == {
        name: set(each.aliases) for name, each in KINDS.items()
    }


def test_twenty_lines(home: Path) -> None:
    """The page promises twenty lines, and has no more."""
    text = (home / "policies" / "offices.py").read_text()
    assert len(text.splitlines()) <= 20


def test_the_policy_balances(loaded: LoadedConfig) -> None:
    """Through a balancer: the office on two backends, others on all, the emptier of two drawn."""
    registry = policies.load(loaded)
    assert policies.import_all(registry) == []
    path = worker_datapath.build(loaded.config, 0, 0.0, registry)
    (service,) = path.services
    balancer = Balancer(ServiceMap(path.services))
    backends = service.pool.backends

    def picks(client: str, count: int) -> list[int]:
        found = []
        for port in range(count):
            backend = balancer.choose(service, flow(client, 1024 + port), lambda _: False)
            assert backend is not None
            backend.flows += 1
            found.append(backends.index(backend))
        return found

    assert set(picks("192.168.0.7", 300)) == {0, 1}
    assert abs(backends[0].flows - backends[1].flows) < 30
    assert set(picks("203.0.113.7", 300)) == {0, 1, 2}
    assert backends[2].flows > 120  # it was empty, so that any draw with it goes to it
    assert isinstance(service.strategy, PolicyGuard)
    # Not `slow`: the machine may be another's for longer than a pick may take.
    guard = service.strategy
    assert (guard.picked, guard.raised, guard.wrong) == (600, 0, 0)


def test_the_command(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`paraglider check` as shown tries the policy and is content."""
    (command,) = [text for kind, text in BLOCKS if kind == "sh"]
    sudo, program, *arguments = command.replace(HOME, str(home)).split()
    assert (sudo, program) == ("sudo", "paraglider")
    with pytest.raises(SystemExit) as caught:
        run_command(main, program, arguments)
    assert caught.value.code == 0
    assert "strategy=offices:Offices" in capfd.readouterr().out


def test_every_example_of_the_configuration_is_valid() -> None:
    """Those without a service get the page's; keys and values are used unchanged."""
    examples = [text for kind, text in BLOCKS if kind == "yaml"]
    (whole,) = [text for text in examples if text.startswith(f"# {HOME}/paraglider.conf\n")]
    for text in examples:
        parse(text if "services" in yaml.safe_load(text) else whole + text, "page")


def test_the_numbers_of_the_page() -> None:
    """The numbers about benching are those of the guard."""
    assert f"gets the next in turn for {BENCH:.0f} seconds" in PAGE
    assert STRIKES == 5
    assert "five times in a row" in PAGE


def test_every_counter_is_explained(loaded: LoadedConfig) -> None:
    """The guard's counters of faults are in the table."""
    guard = create("offices:Offices", registry=policies.load(loaded))
    assert isinstance(guard, PolicyGuard)
    table = PAGE[PAGE.index("| the policy | the flow | counter |") : PAGE.index("The log says so")]
    assert set(guard.counts()) - {"picked"} == set(re.findall(r"`(\w+)`", table)) - NO_COUNTERS


def test_everything_a_policy_can_read_is_there() -> None:
    """Each attribute of a flow on the page exists."""
    (section,) = re.findall(r"^A flow has (.*?)\n\n", PAGE, re.MULTILINE | re.DOTALL)
    names = set(re.findall(r"`([a-z_]+)`", section)) - {"ipaddress", "tcp", "udp", "icmp"}
    asked = flow("192.168.0.7", 1)
    for name in names:
        assert getattr(asked, name, None) is not None, name


def test_everything_of_a_backend_is_there(loaded: LoadedConfig) -> None:
    """And of a backend."""
    (section,) = re.findall(r"^A backend has (.*?)\n\n", PAGE, re.MULTILINE | re.DOTALL)
    (backend, *_) = services.make_backends(loaded.config.services[0])
    for name in re.findall(r"`([a-z_]+)`", section):
        assert hasattr(backend, name), name
