"""Why a host cannot carry by BPF: each reason is a sentence with a remedy."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from paraglider.config.model import Config
from paraglider.host import carrier_support
from paraglider.host.carrier_support import (
    CarrierUnavailableError,
    not_carried,
    require_kernel,
    unavailable,
)
from paraglider.lab.namespace import Namespace


@pytest.mark.parametrize("release", ["5.15.0-91-generic", "6.1.0-18-amd64", "6.5.13"])
def test_old_kernels_are_refused(release: str) -> None:
    """tcx came with 6.6."""
    with pytest.raises(CarrierUnavailableError, match=r"use Linux 6\.6, or set `carrier: worker`"):
        require_kernel(release)


@pytest.mark.parametrize("release", ["6.6.0", "6.18.44-fc", "7.0-rc1", "weird"])
def test_newer_kernels_pass(release: str) -> None:
    """And one that does not say: the kernel's own refusal will."""
    require_kernel(release)


def test_an_object_that_was_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without clang there is none; the remedy says where one comes from."""
    monkeypatch.setattr(carrier_support, "OBJECT", "none.bpf.o")
    with pytest.raises(CarrierUnavailableError, match=r"none\.bpf\.o was not built"):
        carrier_support.object_file()


@pytest.mark.parametrize(
    ("number", "what", "remedy"),
    [
        (errno.ENOSYS, "x", "set `carrier: worker`"),
        (errno.EPERM, "refused", "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN"),
        (errno.ENOENT, "libbpf.so.1 cannot be loaded", "apt-get install libbpf1"),
        (errno.ENOMEM, "no memory", "lower `flows.max`"),
        (errno.E2BIG, "too big", "lower `flows.max`"),
        (0, "strange", "report it"),
    ],
)
def test_refusals_have_remedies(number: int, what: str, remedy: str, tmp_path: Path) -> None:
    """By the kernel's number; the worker is always one."""
    error = unavailable(number, what, tmp_path / "none")
    assert remedy in error.remedy
    assert "`carrier: worker`" in error.remedy


def test_a_locked_down_kernel_is_named(tmp_path: Path) -> None:
    """The same refusal has another remedy there."""
    lockdown = tmp_path / "lockdown"
    lockdown.write_text("none [integrity] confidentiality\n")
    assert "locked down" in unavailable(errno.EPERM, "refused", lockdown).what
    lockdown.write_text("[none] integrity confidentiality\n")
    assert "locked down" not in unavailable(errno.EPERM, "refused", lockdown).what


@pytest.mark.root
def test_interfaces_without_a_header_are_named(inside: Namespace) -> None:
    """Those of the file, where a service wants BPF; each once."""
    inside.ip("tuntap add tun0 mode tun")

    def lines(public: str, private: str, carrier: str = "auto") -> list[str]:
        one = {"name": "web", "vip": "192.0.2.1/24", "protocol": "tcp", "backends": ["192.0.2.9"]}
        sides = {"public": {"interface": public}, "private": {"interface": private}}
        services = [{**one, "carrier": carrier}]
        return not_carried(Config.model_validate({"network": sides, "services": services}))

    assert lines("eth0", "eth1") == []
    assert lines("tun0", "tun0", "worker") == []
    assert lines("eth0", "nowhere0") == []
    said = "interface tun0: packets that come in have no Ethernet header, workers carry them"
    assert lines("tun0", "tun0") == [said]
