"""Strategies are found in their folder; names, aliases and stand-ins of the kernel agree."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from paraglider.core import strategies
from paraglider.core.strategies import ALIASES, KINDS, STRATEGIES, canonical, create

FOLDER = Path(strategies.__file__).parent
STRATEGY = """
from paraglider.core.strategies.rr import RoundRobin

class Other(RoundRobin):
    name = "{name}"
    aliases = {aliases}
    in_kernel = {in_kernel}
"""


def test_a_module_is_a_strategy() -> None:
    """Every module of the folder that defines one, and no helper among them."""
    helpers = {"__init__", "base", "hashing", "turns"}
    assert {file.stem for file in FOLDER.glob("*.py")} - helpers == set(KINDS) == set(STRATEGIES)
    for name, each in KINDS.items():
        assert each.__module__ == f"paraglider.core.strategies.{name}"
        assert type(create(name)) is each


def test_an_unknown_name_is_a_key_error() -> None:
    """Configuration checks names; here a wrong one is a programmer's mistake."""
    with pytest.raises(KeyError):
        create("random")


def test_aliases_are_those_of_ipvs_haproxy_and_nginx() -> None:
    """Each alias maps to one strategy; a name and an unknown name map to themselves."""
    assert {
        **dict.fromkeys(("roundrobin", "static-rr"), "wrr"),
        **dict.fromkeys(("wlc", "lc", "leastconn", "least_conn"), "weighted"),
        **dict.fromkeys(("sh", "ip_hash"), "source"),
        "mh": "maglev",
    } == ALIASES
    assert [canonical(name) for name in ("wlc", "rr", "no:Such")] == ["weighted", "rr", "no:Such"]


@pytest.mark.parametrize(
    ("name", "aliases", "in_kernel", "message"),
    [
        ("rr", (), None, r"rr and paraglider.core.strategies.other have the same name or alias"),
        ("new", ("sh",), None, "have the same name or alias"),
        ("wlc", (), None, "have the same name or alias"),
        ("new", ("wrr",), None, "have the same name or alias"),
        ("new", (), "maglev", "other: the kernel has no strategy `maglev`"),
        ("new", (), "weighted", "other: the kernel has no strategy `weighted`"),
    ],
)
def test_a_clash_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
    aliases: tuple[str, ...],
    in_kernel: str | None,
    message: str,
) -> None:
    """A file whose name or alias is taken, or that the kernel cannot stand in for, is named."""
    text = STRATEGY.format(name=name, aliases=aliases, in_kernel=repr(in_kernel))
    (tmp_path / "other.py").write_text(text)
    monkeypatch.setattr(strategies, "__path__", [*strategies.__path__, str(tmp_path)])
    before: dict[str, ModuleType] = dict(sys.modules)
    try:
        with pytest.raises(ImportError, match=message):
            strategies._by_name()
    finally:
        for module in set(sys.modules) - set(before):
            del sys.modules[module]
        vars(strategies).pop("other", None)
