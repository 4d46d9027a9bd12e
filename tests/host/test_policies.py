"""Loading policies: from a file to a guarded strategy, or to an error line."""

from __future__ import annotations

import itertools
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from paraglider.config.load import ConfigError, LoadedConfig, parse
from paraglider.core.balancer import Balancer
from paraglider.core.flow import TCP
from paraglider.core.policy_guard import PolicyGuard
from paraglider.core.pool import Backend
from paraglider.core.service import ServiceMap
from paraglider.core.strategies import STRATEGIES, Context, NewFlow, Registry, Strategy, create
from paraglider.errors import OperatorError
from paraglider.forward import worker_datapath
from paraglider.host import policies

GOOD = """
made = []

class Good:
    def __init__(self, **context):
        made.append(context)
        self.flows = []

    def prepare(self, ready):
        self.ready = ready

    def pick(self, flow):
        self.flows.append(flow)
        return self.ready[-1]
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A directory of policies, beside a configuration; its modules are forgotten afterwards."""
    directory = tmp_path / "policies"
    directory.mkdir(mode=0o755)
    before = set(sys.modules)
    yield directory
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def begun(loaded: LoadedConfig) -> Registry:
    """The registry of ``loaded`` as a worker has it, its policies imported here."""
    registry = policies.load(loaded)
    assert policies.import_all(registry) == []
    return registry


def write(home: Path, name: str, text: str) -> Path:
    """A module among the policies, its directories made."""
    path = home / name
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    path.write_text(text)
    path.chmod(0o644)
    return path


def config(home: Path, *strategies: str, top: str = "", family: int = 4) -> LoadedConfig:
    """A configuration beside ``home`` with a service a strategy, a service a line from line 2."""
    vip, backends = (
        ("192.168.0.{}/24", "10.0.0.1, {address: 10.0.0.2, weight: 0}, 10.0.0.3")
        if family == 4
        else ("'2001:db8::{}/64'", "'fd00:10::1', 'fd00:10::3'")
    )
    lines = [
        f"  - {{name: s{i}, vip: {vip.format(11 + i)}, protocol: any, ports: {80 + i}, seed: 5,"
        f" strategy: '{name}', backends: [{backends}]}}"
        for i, name in enumerate(strategies)
    ]
    text = "\n".join(["services:", *lines, top])
    return parse(text.replace("seed: 5, strategy: 'rr'", "strategy: 'rr'"), str(home.parent / "c"))


def refusal(loaded: LoadedConfig) -> list[str]:
    """The lines that refuse the policies of ``loaded``."""
    with pytest.raises(ConfigError) as caught:
        begun(loaded)
    return list(caught.value.lines)


def test_without_policies_no_directory_is_needed(tmp_path: Path) -> None:
    """The strategies of the house need no directory."""
    registry = begun(config(tmp_path / "nowhere", "rr", "maglev"))
    assert dict(registry) == dict(STRATEGIES)


@pytest.mark.parametrize("family", [4, 6])
def test_a_policy_becomes_a_strategy(home: Path, family: int) -> None:
    """A class in a module beside the configuration picks for a packet path, behind a guard."""
    write(home, "mine.py", GOOD)
    loaded = config(home, "mine:Good", "rr", family=family)
    registry = begun(loaded)
    path = worker_datapath.build(loaded.config, 3, 0.0, registry)
    mine, house = path.services
    balancer = Balancer(ServiceMap(path.services))
    assert isinstance(mine.strategy, PolicyGuard)
    assert not isinstance(house.strategy, PolicyGuard)
    size = 4 if family == 4 else 16
    flow = NewFlow(TCP, bytes(2 * size + 4), 0.0)
    assert balancer.choose(mine, flow, lambda _: False) is mine.pool.backends[-1]
    assert mine.strategy.picked == 1


def test_a_policy_gets_its_context(home: Path) -> None:
    """Service, worker and seed as keywords, in the trial and in each worker."""
    write(home, "told.py", GOOD)
    registry = begun(config(home, "told:Good"))
    create("told:Good", Context("s0", 3, 5), registry)
    assert sys.modules["told"].made == [
        {"service": "s0", "worker": 0, "seed": 5},
        {"service": "s0", "worker": 3, "seed": 5},
    ]


def test_it_is_tried_with_flows_of_its_service(home: Path) -> None:
    """One flow per protocol to the VIP and port; only backends with weight are given to it."""
    text = GOOD.replace("self.flows.append(flow)", "made.append(self.line(flow))")
    text = text.replace("made.append(context)", "pass")
    text += """
    def line(self, flow):
        ends = f"{flow.client_address} {flow.vip_address} {flow.port}"
        return f"{flow.protocol_name} {ends} {[backend.name for backend in self.ready]}"
"""
    write(home, "tried.py", text)
    seen = []
    for family in (4, 6):
        begun(config(home, "tried:Good", family=family))
        seen += sys.modules["tried"].made
    assert seen == [
        "tcp 192.0.2.1 192.168.0.11 80 ['10.0.0.1', '10.0.0.3']",
        "udp 192.0.2.1 192.168.0.11 80 ['10.0.0.1', '10.0.0.3']",
        "tcp 2001:db8::1 2001:db8::11 80 ['fd00:10::1', 'fd00:10::3']",
        "udp 2001:db8::1 2001:db8::11 80 ['fd00:10::1', 'fd00:10::3']",
    ]


def test_packages_and_neighbours(home: Path) -> None:
    """A module may be in a package and import its neighbours, also during a pick."""
    write(home, "lib_of_mine.py", "from operator import itemgetter\nlast = itemgetter(-1)\n")
    text = GOOD.replace("return self", "from lib_of_mine import last\n        return last(self")
    write(home, "pack/deep/mod.py", text.replace("ready[-1]", "ready)"))
    registry = begun(config(home, "pack.deep.mod:Good"))
    assert str(home) not in sys.path
    assert "lib_of_mine" in sys.modules, "what it imports lazily was there before chroot"
    strategy = create("pack.deep.mod:Good", registry=registry)
    backends = (Backend("a", b"a"), Backend("b", b"b"))
    strategy.prepare(backends)
    assert strategy.pick(NewFlow(TCP, bytes(12), 0.0)) is backends[1]


def test_another_directory(home: Path, tmp_path: Path) -> None:
    """`policies: {path: …}` names it."""
    other = tmp_path / "other"
    write(other, "moved.py", GOOD)
    other.chmod(0o755)
    loaded = config(home, "moved:Good", top=f"policies: {{path: {other}}}")
    assert "moved:Good" in begun(loaded)


def test_the_budget_is_the_configurations(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`budget_ms` is the budget of a pick, which takes two milliseconds here."""
    ticks = itertools.count(0, 0.002).__next__
    clock = SimpleNamespace(perf_counter=ticks, monotonic=time.monotonic)
    monkeypatch.setattr(policies, "time", clock)
    write(home, "slow.py", GOOD)
    for budget, slow in ((1, 1), (1000, 0)):
        registry = begun(config(home, "slow:Good", top=f"policies: {{budget_ms: {budget}}}"))
        strategy = create("slow:Good", registry=registry)
        assert isinstance(strategy, PolicyGuard)
        strategy.prepare((Backend("a", b"a"),))
        strategy.pick(NewFlow(TCP, bytes(12), 0.0))
        assert strategy.slow == slow


def test_a_second_load_reads_the_file_again(home: Path) -> None:
    """A changed file counts at the next load, helpers of it too, and nothing is left on disk."""
    write(home, "helper_of_mine.py", "answer = 0\n")
    use = "import helper_of_mine\n" + GOOD.replace("[-1]", "[helper_of_mine.answer]")
    write(home, "again.py", use)
    for answer in (0, 1):
        write(home, "helper_of_mine.py", f"answer = {answer}\n")
        registry = begun(config(home, "again:Good"))
        strategy = create("again:Good", registry=registry)
        backends = (Backend("a", b"a"), Backend("b", b"b"))
        strategy.prepare(backends)
        assert strategy.pick(NewFlow(TCP, bytes(12), 0.0)) is backends[answer]
    assert sorted(entry.name for entry in home.iterdir()) == ["again.py", "helper_of_mine.py"]


MISTAKES: list[tuple[str, str, str]] = [
    ("def f(:\n", "HOME/bad.py:1: invalid syntax; ", "correct the line"),
    (
        "\n\nimport nowhere_to_be\n",
        "importing HOME/bad.py raised ModuleNotFoundError: ",
        "bad.py:3;",
    ),
    (
        "\n1 / 0\n",
        "importing HOME/bad.py raised ZeroDivisionError: division by zero at HOME/",
        ":2;",
    ),
    ("exit(3)\n", "importing HOME/bad.py raised SystemExit: 3 at HOME/bad.py:1;", "policies.md"),
    ("class Other: pass\n", "HOME/bad.py has no class `Bad`; ", "the classes there are: Other"),
    ("Bad = 3\n", "HOME/bad.py has no class `Bad`; ", "the classes there are: none"),
    ("def Bad(**context): pass\n", "HOME/bad.py has no class `Bad`; ", "none"),
    (
        "class Bad:\n def prepare(self, ready): pass\n",
        "class `Bad` in HOME/bad.py has no method `pick`; ",
        "def pick(self, flow)",
    ),
    ("class Bad:\n pick = 3\n", "has no method `prepare`; ", "def prepare(self, ready)"),
    (
        GOOD.replace("**context", "").replace("made", "# "),
        "its constructor raised TypeError",
        "**context",
    ),
    (
        GOOD.replace("self.flows = []", "{}[9]"),
        "its constructor raised KeyError: 9 at HOME/",
        ":7;",
    ),
    (GOOD.replace("self.ready = ready", "ready[9]"), "prepare raised IndexError: ", "bad.py:10;"),
    (GOOD.replace("self.flows.append", "nobody"), "pick raised NameError: ", "bad.py:13;"),
    (
        GOOD.replace("return self.ready[-1]", ""),
        "pick returned NoneType, not a ready backend; ",
        "return",
    ),
]


@pytest.mark.parametrize(("text", "what", "remedy"), MISTAKES)
def test_mistakes_are_the_operators(home: Path, text: str, what: str, remedy: str) -> None:
    """Each error names the place in the configuration, the file and the remedy."""
    write(home, "bad.py", text.replace("Good", "Bad"))
    (line,) = refusal(config(home, "rr", "bad:Bad"))
    place = re.escape(f"{home.parent / 'c'}:3:") + r"\d+: policy `bad:Bad`: "
    assert re.match(place, line)
    assert what.replace("HOME", str(home)) in line
    assert remedy in line[line.index(what.replace("HOME", str(home))) :]


def test_all_mistakes_at_once(home: Path) -> None:
    """A line for each service, in the order of the file."""
    write(home, "bad.py", "class A: pass\n")
    lines = refusal(config(home, "bad:A", "bad:B", "worse:C"))
    assert [line.split(": ")[0].split(":")[1] for line in lines] == ["2", "3", "4"]
    assert f"{home}/worse.py does not exist; put the module there" in lines[2]


def test_one_mistake_does_not_hide_in_another_package(home: Path) -> None:
    """For a package without the module the error names the missing file."""
    write(home, "some/other.py", GOOD)
    (line,) = refusal(config(home, "some.such:X"))
    assert f"{home}/some/such.py does not exist" in line


@pytest.mark.parametrize("name", ["random", "sys", "pytest"])
def test_names_that_are_taken(home: Path, name: str) -> None:
    """A name of a module of Python or of a library is refused with the reason."""
    write(home, f"{name}.py", GOOD)
    (line,) = refusal(config(home, f"{name}:Good"))
    assert f"another module `{name}` hides {home}/{name}.py" in line


def test_no_directory(tmp_path: Path) -> None:
    """The error names the directory, and how to configure another."""
    (line,) = refusal(config(tmp_path / "policies", "mine:Good"))
    assert f"the policy directory {tmp_path}/policies does not exist; create it" in line


def test_a_configured_directory_that_is_none(home: Path) -> None:
    """Then the mistake is at `path`."""
    loaded = config(home, "mine:Good", top=f"policies: {{path: {home}/x}}")
    (line,) = refusal(loaded)
    assert line.startswith(f"{home.parent / 'c'}:3:18: the policy directory {home}/x")


@pytest.mark.root
def test_others_code_is_not_run_as_root(home: Path) -> None:
    """Files that others could have written are refused before any of their code runs."""
    trace = home.parent / "ran"
    write(home, "foreign.py", f"open({str(trace)!r}, 'w')\n").chmod(0o646)
    (line,) = refusal(config(home, "foreign:X"))
    assert f"{home}/foreign.py may be written by others than root" in line
    assert not trace.exists()


def test_without_root_anybodys_code_is_tried(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without root, checking a file runs only the user's own code with the user's own rights."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    write(home, "shared.py", GOOD).chmod(0o666)
    assert "shared:Good" in begun(config(home, "shared:Good"))


def test_a_constructor_that_fails_later(home: Path) -> None:
    """A class that fails only in a worker ends that worker's start with the reason."""
    write(
        home,
        "later.py",
        GOOD.replace("self.flows = []", "self.flows = [][context['worker']:]").replace(
            "made.append(context)", "1 // (1 - context['worker'])"
        ),
    )
    registry = begun(config(home, "later:Good"))
    with pytest.raises(OperatorError, match="policy `later:Good`: its constructor raised ZeroDiv"):
        create("later:Good", Context(worker=1), registry)


RIGHTS = """
import os
status = open("/proc/self/status").read()
if os.geteuid() == 0 or "CapEff:\\t0000000000000000" not in status:
    raise RuntimeError(f"{os.getresuid()}")
try:
    open("/etc/shadow").close()
except PermissionError:
    pass
else:
    raise RuntimeError("it may read all")
"""


@pytest.mark.root
def test_it_never_runs_as_root(home: Path) -> None:
    """Loading imports nothing, and the trial process has no rights; it need not be able to read the
    files.
    """
    write(home, "meek.py", RIGHTS + GOOD)
    home.chmod(0o700)
    registry = policies.load(config(home, "meek:Good"))
    assert "meek:Good" in registry
    assert "meek" not in sys.modules
    assert "raised RuntimeError: (0, 0, 0)" in policies.import_all(registry)[0]  # we are root
    again = policies.load(config(home, "meek:Good"))
    policies.import_as("nobody", again)
    assert os.geteuid() == 0
    assert "meek" in sys.modules


def test_the_next_in_turn_picks_until_it_is_imported(home: Path) -> None:
    """A strategy created before ``import_all`` uses rr until then, and the policy afterwards."""
    write(home, "late.py", GOOD)
    registry = policies.load(config(home, "late:Good"))
    strategy = create("late:Good", registry=registry)
    backends = (Backend("a", b"a"), Backend("b", b"b"), Backend("c", b"c"))
    strategy.prepare(backends)
    assert strategy.pick(NewFlow(TCP, bytes(12), 0.0)) is backends[0]
    assert policies.import_all(registry) == []
    assert strategy.pick(NewFlow(TCP, bytes(12), 60.0)) is backends[2]


def test_one_that_hangs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy whose import does not return is an error of the file."""
    monkeypatch.setattr(policies, "TIMEOUT", 0.5)
    write(home, "slow.py", "import signal; signal.pause()\n" + GOOD)
    assert "took longer than 0.5 s" in refusal(config(home, "slow:Good"))[0]


def test_a_suspended_policy_is_imported_and_not_called(home: Path) -> None:
    """Existing and future strategies, until the suspension ends."""
    write(home, "loops.py", GOOD)
    loaded = config(home, "loops:Good")
    registry = policies.load(loaded)
    (service,) = loaded.config.services

    def make() -> Strategy:
        return create(service.strategy, Context(service=service.name), registry=registry)

    backends = (Backend("a", b"a"), Backend("b", b"b"), Backend("c", b"c"))
    flow = NewFlow(TCP, bytes(12), 0.0)
    early = make()
    policies.suspend(registry, [service.name])
    said: list[str] = []
    assert policies.import_all(registry, said.append) == []
    assert said == [service.name, ""]
    made = [early, make()]
    for strategy in made:
        strategy.prepare(backends)
        assert tuple(strategy.pick(flow) for _ in backends) == backends
    policies.suspend(registry, [])
    for strategy in made:
        assert {strategy.pick(flow) for _ in backends} == {backends[2]}
    policies.suspend(STRATEGIES, [service.name])  # ours always return
