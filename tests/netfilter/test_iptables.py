"""The real packet filter in a network namespace, with iptables-nft and iptables-legacy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from paraglider.errors import OperatorError, PlatformError
from paraglider.lab.namespace import Namespace
from paraglider.netfilter.iptables import Iptables
from paraglider.netfilter.programs import run

pytestmark = pytest.mark.root
TEXT = """\
*mangle
:PARAGLIDER-PRE - [0:0]
:PARAGLIDER-TO - [0:0]
-I PREROUTING 1 -j PARAGLIDER-PRE
-A PARAGLIDER-PRE -p tcp -g PARAGLIDER-TO
-A PARAGLIDER-TO -j NFQUEUE --queue-num 3
COMMIT
"""
# iptables finds nothing wrong with it; the kernel does: the chain leads to itself.
IMPOSSIBLE = """\
*mangle
:PARAGLIDER-PRE - [0:0]
-A PARAGLIDER-PRE -j PARAGLIDER-PRE
-I PREROUTING 1 -j PARAGLIDER-PRE
COMMIT
"""


@pytest.fixture(params=["nft", "legacy"])
def iptables(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Both implementations of iptables, selected by PATH."""
    for name in ("iptables", "ip6tables"):
        for tool in ("restore", "save"):
            target = Path(f"/usr/sbin/{name}-{request.param}-{tool}")
            (tmp_path / f"{name}-{tool}").symlink_to(target)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/sbin:/usr/bin:/sbin:/bin")
    return str(request.param)


def test_a_changed_implementation_is_noticed(
    inside: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which one it is is asked once for a file, and again when another one has its place."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/sbin:/usr/bin:/sbin:/bin")
    link, netfilter = tmp_path / "iptables-restore", Iptables()
    for name, tables in (("nft", {}), ("legacy", None), ("nft", {})):
        link.unlink(missing_ok=True)
        link.symlink_to(f"/usr/sbin/iptables-{name}-restore")
        assert netfilter.tables(4) == tables


@pytest.mark.parametrize("family", [4, 6])
def test_rules_come_and_go(inside: Namespace, iptables: str, family: int) -> None:
    """Restored rules are saved as ours, and removed without a trace."""
    netfilter = Iptables()
    netfilter.require(family)
    before = netfilter.tables(family)
    netfilter.restore(family, TEXT)
    ours = netfilter.ours(family)
    assert "-A PARAGLIDER-TO -j NFQUEUE --queue-num 3" in ours
    netfilter.remove_ours(family)
    netfilter.remove_unused(family, before)
    assert netfilter.ours(family) == ""
    if iptables == "nft":
        assert run(["nft", "list", "ruleset"]) == ""


def test_restoring_again_changes_nothing(inside: Namespace, iptables: str) -> None:
    """The chains are refilled, and our text stays the same."""
    netfilter = Iptables()
    netfilter.restore(4, TEXT)
    ours = netfilter.ours(4)
    netfilter.restore(4, TEXT.replace("-I PREROUTING 1 -j PARAGLIDER-PRE\n", ""))
    assert netfilter.ours(4) == ours


def test_a_rehearsal_leaves_no_trace(inside: Namespace, iptables: str) -> None:
    """Neither a trial that succeeds nor one that the kernel refuses (a loop of chains) changes
    anything.
    """
    netfilter = Iptables()
    before = netfilter.saved(4)
    netfilter.rehearse(4, TEXT)
    with pytest.raises(PlatformError, match="the kernel refuses the IPv4 rules"):
        netfilter.rehearse(4, IMPOSSIBLE)
    assert netfilter.saved(4) == before


def test_a_refusal_has_the_message_of_iptables(inside: Namespace, iptables: str) -> None:
    """The complaint is passed on."""
    with pytest.raises(PlatformError, match="IPv6 rules: restore failed: .*line"):
        Iptables().restore(6, "*mangle\n-A PARAGLIDER-NONE -j NOSUCHTARGET\nCOMMIT\n")


CHAIN = "chain ip mangle FORWARD { type filter hook forward priority -150; policy accept; }"


@pytest.mark.parametrize(
    ("theirs", "left"),
    [
        ("", "table ip mangle {\n}\n"),
        ("add set ip mangle s { type mark; }", "set s"),
        (f"add {CHAIN}", "chain FORWARD"),
    ],
)
def test_tables_of_others_stay(inside: Namespace, theirs: str, left: str) -> None:
    """An empty table, a set in it and an empty built-in chain of others stay."""
    run(["nft", "-f", "-"], f"add table ip mangle\n{theirs}\n")
    before, text = Iptables().tables(4), run(["nft", "list", "ruleset"])
    Iptables().restore(4, TEXT)
    Iptables().remove_ours(4)
    Iptables().remove_unused(4, before)
    assert left in text
    assert run(["nft", "list", "ruleset"]) == text


@pytest.mark.parametrize(
    "theirs",
    [
        "*mangle\n-A PREROUTING -i lo -j ACCEPT\nCOMMIT\n",
        "*mangle\n:PREROUTING DROP [0:0]\nCOMMIT\n",
        "*mangle\n:THEIRS - [0:0]\nCOMMIT\n",
    ],
)
def test_what_others_added_meanwhile_stays(inside: Namespace, theirs: str) -> None:
    """A rule, a policy or a chain in a table that came with us keeps that table."""
    netfilter = Iptables()
    before = netfilter.tables(4)
    netfilter.restore(4, TEXT)
    netfilter.restore(4, theirs)
    netfilter.remove_ours(4)
    netfilter.remove_unused(4, before)
    saved = netfilter.saved(4)
    assert "PARAGLIDER" not in saved
    for line in theirs.splitlines()[1:-1]:
        assert line in saved


def test_what_will_be_unused_is_known_beforehand(inside: Namespace) -> None:
    """The dry run of an undo prints the same nft commands that the undo runs."""
    netfilter = Iptables()
    before = netfilter.tables(4)
    netfilter.restore(4, TEXT)
    told = netfilter.unused_text(4, before)
    netfilter.remove_ours(4)
    assert told == netfilter.unused_text(4, before)
    assert told.endswith("delete table ip mangle\n")


def test_a_missing_program_is_found_first(
    monkeypatch: pytest.MonkeyPatch, which_without: Callable[[str], None]
) -> None:
    """Before anything runs, with the package to install."""
    which_without("ip6tables-save")
    with pytest.raises(OperatorError, match=r"ip6tables-save is missing; .* install iptables"):
        Iptables().require(6)


@pytest.fixture
def which_without(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A function that makes one program not to be found."""
    import shutil

    which = shutil.which

    def hide(hidden: str) -> None:
        monkeypatch.setattr(
            "shutil.which",
            lambda name, **options: None if name == hidden else which(name, **options),
        )

    return hide
