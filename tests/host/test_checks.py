"""The checks before a set-up or a start."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from paraglider.config.model import Service
from paraglider.errors import OperatorError
from paraglider.host.checks import (
    DEFAULT_CHROOT,
    check_chroot,
    check_root,
    check_user,
    check_vips,
)
from paraglider.lab.namespace import Namespace


def test_an_existing_user_has_its_ids() -> None:
    """The numbers are those of the password database."""
    assert check_user("root") == (0, 0)


def test_an_unknown_user_is_named() -> None:
    """The message names the user and the key of the file."""
    with pytest.raises(OperatorError, match=r"no user 'nosuchuser'.*`user`"):
        check_user("nosuchuser")


def test_a_directory_is_a_chroot(tmp_path: Path) -> None:
    """Any directory will do."""
    check_chroot(str(tmp_path))


def test_a_missing_chroot_is_to_be_made(tmp_path: Path) -> None:
    """A directory of the operator's own is made by the operator."""
    with pytest.raises(OperatorError, match="create it: (sudo )?mkdir -p"):
        check_chroot(str(tmp_path / "none"))


def test_the_default_chroot_comes_from_the_setup(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a reboot it is missing until the set-up has run."""
    monkeypatch.setattr(Path, "exists", lambda _: False)
    with pytest.raises(OperatorError, match=r"run paraglider\.config"):
        check_chroot(DEFAULT_CHROOT)


def test_a_file_is_no_chroot(tmp_path: Path) -> None:
    """Another kind of file has another message than a missing one."""
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(OperatorError, match="is not a directory"):
        check_chroot(str(file))


def test_without_root_sudo_is_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The remedy is the command to type."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr("shutil.which", lambda _name: "/usr/bin/sudo")
    with pytest.raises(OperatorError, match=r"run it as root: sudo paraglider\.config"):
        check_root("paraglider.config")


def service(vip: str, forward: str) -> Service:
    """A service on ``vip`` with a backend of its family."""
    backend = "fd00::1" if ":" in vip else "10.0.0.1"
    given = {"vip": vip, "forward": forward, "protocol": "tcp", "ports": 80, "backends": [backend]}
    return Service.model_validate({"name": "web", **given})


@pytest.mark.root
def test_an_address_without_a_local_route_is_an_address_of_the_host(inside: Namespace) -> None:
    """As long as its duplicates are looked for, a minute here, the kernel does not route it."""
    inside.ip("link add one type veth peer name two", "link set two up")
    looks = [f"net.ipv6.conf.one.{key}" for key in ("accept_dad=1", "dad_transmits=60")]
    inside.sysctl("net.ipv6.conf.all.accept_dad=1", *looks)
    lines = "link set one up\naddress add 2001:db8::11/64 dev one\n"
    inside.run(["ip", "-batch", "-"], text=lines)  # without waiting
    assert "2001:db8::11" not in inside.run(["ip", "-6", "route", "show", "table", "all"]).stdout
    with pytest.raises(OperatorError, match="the VIP 2001:db8::11 of `web` is an address of this"):
        check_vips([service("2001:db8::11", "dsr")])


@pytest.mark.root
def test_a_local_route_is_an_address_of_the_host(inside: Namespace) -> None:
    """The kernel delivers packets by its local table, whoever filled it."""
    inside.ip("link set lo up", "route add local 192.168.0.0/24 dev lo")
    with pytest.raises(OperatorError, match=r"the VIP 192\.168\.0\.11 of `web` is an address"):
        check_vips([service("192.168.0.11", "dsr")])


@pytest.mark.root
@pytest.mark.parametrize("vip", ["192.168.0.11", "2001:db8::11"])
def test_a_vip_of_dsr_is_no_address_of_the_host(inside: Namespace, vip: str) -> None:
    """Without a route to it and with one; VIPs of other methods may be."""
    check_vips([service(vip, "dsr")])
    inside.ip("link set lo up", f"route add {vip} dev lo")
    check_vips([service(vip, "dsr")])
    inside.ip(f"address add {vip} dev lo")
    check_vips([service(vip, "nat")])
    with pytest.raises(OperatorError, match=f"the VIP {vip} of `web` is an address of this host"):
        check_vips([service(vip, "nat"), service(vip, "dsr")])
