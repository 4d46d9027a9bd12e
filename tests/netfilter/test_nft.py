"""Our table through nft's own program, in a namespace of the test's own."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.errors import OperatorError, PlatformError
from paraglider.forward.offload.table import offload_table
from paraglider.netfilter import programs
from paraglider.netfilter.nft import Nft, comparable
from paraglider.netfilter.rules.nft import (
    COUNTED,
    NFT_FAMILY,
    TABLE,
    KernelTable,
    without_counters,
)


def table(family: int, *backends: str) -> KernelTable:
    """The table of one service over ``backends``."""
    vip = "192.168.0.11/24" if family == 4 else "2001:db8::11/64"
    service = {"name": "a", "vip": vip, "protocol": "tcp", "ports": 80, "forward": "offload"}
    config = Config.model_validate({"services": [{**service, "backends": list(backends)}]})
    found = offload_table(config, family, ("eth1",), 7)
    assert found is not None
    return found


def text(family: int, *backends: str) -> str:
    """Its text."""
    return table(family, *backends).text


BACKENDS = {4: ("10.0.0.1", "10.0.0.2", "10.0.0.3"), 6: ("fd00::1", "fd00::2", "fd00::3")}


@pytest.mark.root
@pytest.mark.parametrize("family", [4, 6])
def test_loaded_held_and_removed(inside: Any, family: int) -> None:
    """The kernel's content equals the loaded table, also after loading it again; after the removal
    it is empty.
    """
    nft = Nft()
    assert nft.held(family) == ""
    nft.load(text(family, *BACKENDS[family]))
    held = nft.held(family)
    assert all(backend in held for backend in BACKENDS[family])
    nft.load(text(family, *BACKENDS[family]))
    assert nft.held(family) == held
    assert nft.held(10 - family) == ""
    assert (nft.present(family), nft.present(10 - family)) == ({TABLE}, set())
    nft.remove(family)
    nft.remove(family)
    assert nft.held(family) == ""
    assert nft.present(family) == set()


@pytest.mark.root
@pytest.mark.parametrize("family", [4, 6])
def test_elements_are_swapped(inside: Any, family: int) -> None:
    """A backend that is no longer in the text is no longer in the table, nor anywhere twice."""
    nft = Nft()
    nft.load(text(family, *BACKENDS[family]))
    gone = table(family, BACKENDS[family][0]).marks
    nft.load(text(family, *BACKENDS[family][1:]) + without_counters(family, gone, COUNTED))
    assert BACKENDS[family][0] not in nft.held(family)
    changed = nft.held(family)
    nft.remove(family)
    nft.load(text(family, *BACKENDS[family][1:]))
    assert nft.held(family) == changed


@pytest.mark.root
@pytest.mark.parametrize("family", [4, 6])
def test_a_change_is_what_differs(inside: Any, family: int) -> None:
    """The difference leads to the same table as the whole text, in both directions, and counters
    continue.
    """
    nft, one, two = Nft(), text(family, *BACKENDS[family][:2]), text(family, *BACKENDS[family][1:])
    gone = without_counters(family, table(family, BACKENDS[family][0]).marks, COUNTED)
    nft.load(two)
    wanted = nft.held(family)
    nft.remove(family)
    nft.load(one)
    nft.rehearse_change(one, two + gone)
    assert nft.held(family) != wanted
    nft.change(one, two + gone)
    assert nft.held(family) == wanted
    nft.change(two, two)
    assert nft.held(family) == wanted
    with pytest.raises(PlatformError, match="refuses"):
        nft.rehearse_change("", f"delete chain {NFT_FAMILY[family]} paraglider nosuch\n")


@pytest.mark.root
def test_what_has_not_changed_is_not_read_again(
    inside: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change in nf_tables by any program invalidates the cache."""
    runs: list[Any] = []
    start = subprocess.run

    def counted(argv: Any, **how: Any) -> Any:
        runs.append(argv)
        return start(argv, **how)

    monkeypatch.setattr(programs.subprocess, "run", counted)
    nft = Nft()
    nft.load(text(4, *BACKENDS[4]))
    held = nft.held(4)
    count = len(runs)
    assert [nft.held(4) for _ in range(4)] == [held] * 4
    assert len(runs) == count
    inside.run(["nft", "delete element ip paraglider vips { 192.168.0.11 . 80 }"])
    assert nft.held(4) != held
    assert len(runs) > count


@pytest.mark.root
def test_a_refused_text_changes_nothing(inside: Any) -> None:
    """With one bad line the table stays as it was."""
    nft = Nft()
    nft.load(text(4, *BACKENDS[4]))
    held = nft.held(4)
    with pytest.raises(PlatformError, match="refuses"):
        nft.load(text(4, "10.0.0.9") + "add rule ip paraglider no-such-chain accept\n")
    assert nft.held(4) == held


@pytest.mark.root
def test_a_rehearsal_leaves_nothing(inside: Any) -> None:
    """The result is the kernel's, and this namespace is unchanged."""
    nft = Nft()
    nft.require()
    nft.rehearse(text(4, *BACKENDS[4]))
    assert nft.held(4) == ""
    with pytest.raises(PlatformError, match="the kernel refuses the nft table"):
        nft.rehearse("add rule ip paraglider no-such-chain accept\n")
    assert inside.run(["nft", "list", "tables"]).stdout == ""


def test_a_host_without_nft_has_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undoing nat on such a host is no error."""

    def missing(name: str) -> str:
        raise OperatorError(f"the program {name} is missing")

    for module in ("nft", "programs"):
        monkeypatch.setattr(f"paraglider.netfilter.{module}.find_program", missing)
    assert Nft().held(4) == ""
    assert Nft().counters(4) is None
    Nft().remove(4)
    with pytest.raises(OperatorError, match="missing"):
        Nft().require()


@pytest.mark.parametrize("printed", ["{", '{"nftables"', '{"other": []}', "[]", ""])
def test_what_nft_prints_that_is_no_listing(monkeypatch: pytest.MonkeyPatch, printed: str) -> None:
    """The error is of the platform, with a message."""

    def prints(argv: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(argv, 0, printed, "")

    monkeypatch.setattr("paraglider.netfilter.nft.attempt", prints)
    for ask in (Nft().held, Nft().counters, Nft().present):
        with pytest.raises(PlatformError, match="is not valid"):
            ask(4)


def test_nft_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing table is empty; any other error of nft is raised."""
    said = "Error: No such file or directory\nlist table ip paraglider"

    def fails(argv: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(argv, 1, "", said)

    monkeypatch.setattr("paraglider.netfilter.nft.attempt", fails)
    assert Nft().held(4) == ""
    said = "Error: Could not process rule: Operation not permitted"
    with pytest.raises(PlatformError, match="list table ip paraglider failed: .*not permitted"):
        Nft().held(4)


def test_what_is_equal_compares_equal() -> None:
    """Handles, the order of elements and counter values are ignored, everything else counts."""
    listing = [
        {"metainfo": {"version": "1"}},
        {"map": {"name": "m", "handle": 3, "elem": [[1, "a"], [2, "b"]]}},
        {"counter": {"name": "c", "handle": 4, "packets": 7, "bytes": 70}},
        {"rule": {"chain": "x", "handle": 5, "expr": [1, 2]}},
    ]
    other = [
        {"metainfo": {"version": "2"}},
        {"map": {"name": "m", "handle": 30, "elem": [[2, "b"], [1, "a"]]}},
        {"counter": {"name": "c", "handle": 40, "packets": 0, "bytes": 0}},
        {"rule": {"chain": "x", "handle": 50, "expr": [1, 2]}},
    ]
    assert comparable(listing) == comparable(other)
    other[1] = {"map": {"name": "m", "elem": [[2, "b"]]}}
    assert comparable(listing) != comparable(other)
    other[1] = listing[1]
    other[3] = {"rule": {"chain": "x", "expr": [2, 1]}}
    assert comparable(listing) != comparable(other)
