"""Kernel parameters, on a directory that stands for /proc/sys."""

from __future__ import annotations

from pathlib import Path

import pytest

from paraglider.errors import PlatformError
from paraglider.host.sysctl import Sysctl, conf, dotted


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two interfaces, one of a VLAN, with one parameter each."""
    for name in ("all", "default", "eth0", "eth0.5"):
        place = tmp_path / "net" / "ipv4" / "conf" / name
        place.mkdir(parents=True)
        (place / "forwarding").write_text("0\n")
    return tmp_path


def test_values_are_read_without_the_line_end(root: Path) -> None:
    """The kernel ends a value with a newline."""
    assert Sysctl(root).read("net/ipv4/conf/eth0/forwarding") == "0"


def test_what_the_kernel_lacks_reads_as_none(root: Path) -> None:
    """A parameter or an interface that is not there is no error."""
    assert Sysctl(root).read("net/ipv4/conf/eth7/forwarding") is None
    assert Sysctl(root).read("net/ipv6/conf/all/forwarding") is None


def test_written_values_are_read_back(root: Path) -> None:
    """Writing sets, and creates nothing."""
    sysctl = Sysctl(root)
    sysctl.write("net/ipv4/conf/eth0.5/forwarding", "1")
    assert sysctl.read("net/ipv4/conf/eth0.5/forwarding") == "1"
    with pytest.raises(PlatformError, match=r"cannot set net\.ipv4\.conf\.eth7\.forwarding to 1"):
        sysctl.write("net/ipv4/conf/eth7/forwarding", "1")
    assert not (root / "net/ipv4/conf/eth7").exists()


def test_interfaces_are_those_with_parameters(root: Path) -> None:
    """`all` and `default` are no interfaces; a family may be missing as a whole."""
    assert Sysctl(root).interfaces(4) == ("eth0", "eth0.5")
    assert Sysctl(root).interfaces(6) == ()


def test_a_snapshot_has_every_match(root: Path) -> None:
    """The keys are paths below the root."""
    assert set(Sysctl(root).snapshot("net/ipv4/conf/*/forwarding")) == {
        conf(4, name, "forwarding") for name in ("all", "default", "eth0", "eth0.5")
    }


def test_dots_of_an_interface_become_slashes() -> None:
    """As sysctl(8) accepts it, so that a dry run can be pasted."""
    assert dotted(conf(6, "eth0.5", "accept_ra")) == "net.ipv6.conf.eth0/5.accept_ra"
