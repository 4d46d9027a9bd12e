"""Golden files of `start` in ``golden/static``, and the computation of turns and hashes.

``UPDATE_GOLDEN=1 pytest tests/forward`` rewrites the files; read the difference.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from paraglider.config.model import Config
from paraglider.forward.static import rules as static
from paraglider.forward.static.checks import kernel_only
from paraglider.forward.static.rules import COUNTED, rounded, served, static_rules, static_table
from paraglider.netfilter.iptables import Iptables
from paraglider.netfilter.nft import Nft
from paraglider.netfilter.rules.nft import KernelTable, removal_text, without_counters

GOLDEN = Path(__file__).parents[1] / "golden" / "static"
SEED = 0x0C0FFEE0


def golden() -> Config:
    """The golden configuration, as the rules read it."""
    document = yaml.safe_load((GOLDEN / "services.yaml").read_text(encoding="utf-8"))
    del document["cores"], document["hairpin"]
    return kernel_only(Config.model_validate(document))


def table(family: int, config: Config | None = None) -> KernelTable:
    """The table of ``config``, the golden one when None."""
    found = static_table(config or golden(), family, ("eth1",), SEED)
    assert found is not None
    return found


def weighing(*weights: int, **changes: Any) -> Config:
    """One IPv4 service whose backends have ``weights``."""
    backends = [
        {"address": f"10.0.{number // 250}.{number % 250 + 1}", "weight": weight}
        for number, weight in enumerate(weights)
    ]
    service = {"name": "web", "vip": "192.168.0.11/24", "protocol": "tcp", "strategy": "wrr"}
    services = [{**service, "backends": backends, **changes}]
    return kernel_only(Config.model_validate({"services": services}))


def numbers(text: str) -> dict[int, list[int]]:
    """For each map from numbers to marks in ``text``: the count of numbers,
    and the mark of each.
    """
    found = {}
    for total, content in re.findall(r" mod (\d+).* map \{ ([^}]*) \}", text):
        marks: list[int] = []
        for element in content.split(", "):
            span, mark = element.split(" : ")
            first, _, last = span.partition("-")
            assert int(first) == len(marks)
            marks += [int(mark, 16)] * (int(last or first) - int(first) + 1)
        found[int(total)] = marks
    return found


@pytest.mark.parametrize("family", [4, 6])
def test_the_text_is_the_golden_one(family: int) -> None:
    """The text equals the reviewed file, byte for byte."""
    rules = static_rules(golden(), family)
    assert rules is not None
    for suffix, text in ((f"nft{family}", table(family).text), (f"v{family}", rules.text())):
        file = GOLDEN / f"services.{suffix}"
        if os.environ.get("UPDATE_GOLDEN"):
            file.write_text(text, encoding="utf-8")
        assert text == file.read_text(encoding="utf-8")


@pytest.mark.root
@pytest.mark.parametrize("family", [4, 6])
def test_the_kernel_takes_the_text(family: int) -> None:
    """Twice, and the removal of counters, and that of all; the rules beside it too."""
    found = table(family)
    gone = without_counters(family, [*found.marks, 0x51123456], COUNTED)
    # Without the elements the counters are free to go.
    emptied = "".join(line for line in found.text.splitlines(True) if "add element" not in line)
    Nft().rehearse(found.text + found.text + emptied + gone + removal_text(family))
    rules = static_rules(golden(), family)
    assert rules is not None
    Iptables().rehearse(family, rules.text())


def test_a_family_without_services_has_no_table() -> None:
    """And no rules."""
    config = weighing(1)
    assert static_table(config, 6, (), SEED) is None
    assert static_rules(config, 6) is None


def test_base_chains_are_added_and_flushed_but_never_deleted() -> None:
    """Removing one would drop all packets that wait in a queue of the namespace."""
    words = set(re.findall(r"^(\w+)", table(4).text, re.MULTILINE))
    assert words == {"add", "flush"}


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(any))
def test_every_backend_has_its_weight_of_the_turns(weights: list[int]) -> None:
    """Exactly, in every round."""
    config = weighing(*weights)
    ((total, marks),) = numbers(table(4, config).text).items()
    assert len(marks) == total
    (service,) = served(config, 4)
    turns = Counter(marks)
    for backend in service["backends"]:
        assert turns[backend["mark"]] * sum(weights) == backend["weight"] * total
        assert backend["share"] == pytest.approx(backend["weight"] / sum(weights), abs=1e-6)


def test_turns_are_interleaved() -> None:
    """Smooth: a backend with half of the turns is not met in a burst."""
    ((_, marks),) = numbers(table(4, weighing(30, 20, 10)).text).items()
    assert all(left != right for left, right in pairwise(marks))


def test_rr_knows_no_weights_but_0() -> None:
    """As in the daemon: one turn each, none for weight 0."""
    ((total, marks),) = numbers(table(4, weighing(5, 0, 1, strategy="rr")).text).items()
    assert total == 2
    assert len(set(marks)) == 2


def test_too_many_turns_are_rounded() -> None:
    """Close to the weights, at least one turn each, with a caution; without rounding no caution."""
    config = weighing(65535, 32767, 1)
    ((total, marks),) = numbers(table(4, config).text).items()
    assert total <= static.MAX_TURN + 3
    shares = sorted(count / total for count in Counter(marks).values())
    assert shares == pytest.approx([1 / total, 1 / 3, 2 / 3], abs=1e-3)
    (problem,) = rounded(config)
    assert "rounded" in problem.what
    for exact in (
        weighing(65535, 65535, 0),
        weighing(60000, 20000),
        weighing(65535, 32767, 1, strategy="source"),
        weighing(*[1] * 5000),
    ):
        assert rounded(exact) == []


def test_a_hash_is_by_weight_too() -> None:
    """`source` has the file's seed, `affinity: client` the host's; both the client's address."""
    source = table(4, weighing(3, 0, 1, strategy="source", seed=9)).text
    assert "jhash ip saddr mod 4 seed 0x00000009 map" in source
    ((_, marks),) = numbers(source).items()
    assert sorted(Counter(marks).values()) == [1, 3]
    kept = table(4, weighing(3, 1, affinity="client")).text
    assert f"jhash ip saddr mod 4 seed 0x{SEED:08x} map" in kept


def test_what_is_exempt_comes_first() -> None:
    """Ahead of every service, both ways."""
    rules = [line for line in table(4).text.splitlines() if "rule ip paraglider prerouting" in line]
    assert [rule.split("prerouting ")[1] for rule in rules[:3]] == [
        'iifname "lo" return',
        "ip daddr 192.168.0.1 udp dport 53 return",
        "ip saddr 192.168.0.1 udp sport 53 return",
    ]


def test_what_the_marks_stand_for() -> None:
    """Every mark of the table, with its backend's address, port, weight and part."""
    rows = {row["name"]: row for family in (4, 6) for row in served(golden(), family)}
    assert set(rows) == {"web", "rest", "voice", "sticky", "turns"}
    web = rows["web"]
    assert (web["vip"], web["protocol"], web["ports"]) == ("192.168.0.11", "tcp", "80")
    assert [(b["address"], b["port"], b["weight"], b["share"]) for b in web["backends"]] == [
        ("10.0.0.1", 80, 30, 0.5),
        ("10.0.0.2", 8080, 20, pytest.approx(1 / 3, abs=1e-6)),
        ("10.0.0.3", 80, 10, pytest.approx(1 / 6, abs=1e-6)),
        ("10.0.0.4", 80, 0, 0.0),
    ]
    assert rows["rest"]["ports"] == ""
    assert [b["port"] for b in rows["rest"]["backends"]] == [None, None]
    assert [b["share"] for b in rows["rest"]["backends"]] == [0.5, 0.5]
    for family in (4, 6):
        marks = [b["mark"] for row in served(golden(), family) for b in row["backends"]]
        assert sorted(marks) == list(table(family).marks)
