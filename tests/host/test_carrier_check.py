"""The self-check: the real program passes, one that does something else does not."""

from __future__ import annotations

import errno
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from paraglider.bpf import loader
from paraglider.core.encapsulation import flow_hash
from paraglider.core.siphash import siphash13
from paraglider.host import carrier_check, carrier_record
from paraglider.host.carrier_check import checked, record, self_check
from paraglider.host.carrier_record import RECORDS
from paraglider.host.carrier_support import (
    EARLY_PROGRAM,
    PROGRAM,
    CarrierUnavailableError,
    object_file,
)
from paraglider.host.xdp_devices import XdpUnavailableError
from paraglider.lab.namespace import Namespace
from tests.bpf.carrying import XDP_PASS, XDP_REDIRECT
from tests.bpf.programs import OK, XDP, returns, without_source

pytestmark = pytest.mark.root


@pytest.mark.parametrize("program", RECORDS)
def test_the_program_translates_as_the_core_does(inside: Namespace, program: str) -> None:
    """TCP and UDP over both families, out and back; this namespace has no interface more."""
    before = socket.if_nameindex()
    self_check(object_file(), program)
    assert socket.if_nameindex() == before


def test_a_program_that_carries_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason has the kind of packet."""
    monkeypatch.setattr(loader, "load", lambda *_: returns(OK))
    with pytest.raises(CarrierUnavailableError, match="does not carry a packet of IPv4 tcp"):
        self_check(b"")


def test_a_program_that_changes_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redirected is not translated."""
    monkeypatch.setattr(loader, "load", lambda *_: returns(7))
    with pytest.raises(
        CarrierUnavailableError, match="not translate a packet of IPv4 tcp as a worker does"
    ):
        self_check(b"")


def test_a_check_that_is_killed_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing said is not a pass."""
    monkeypatch.setattr(carrier_check, "_said", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(CarrierUnavailableError, match="the self-check was broken off"):
        self_check(b"")


def test_another_answer_of_the_core_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two are compared byte by byte."""
    expected = carrier_check._expected

    def changed(family: int, protocol: int) -> Any:
        for sent, wanted in expected(family, protocol):
            yield sent, wanted[:-1] + b"?" if (family, protocol) == (6, 17) else wanted

    monkeypatch.setattr(carrier_check, "_expected", changed)
    with pytest.raises(CarrierUnavailableError, match="not translate a packet of IPv6 udp"):
        self_check(object_file())


def test_a_program_that_hashes_otherwise_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slot that Python computes is the only one with a backend."""
    monkeypatch.setattr(carrier_check, "siphash13", lambda *key: siphash13(*key) + 1)
    with pytest.raises(CarrierUnavailableError, match="does not carry a packet of IPv4 tcp"):
        self_check(object_file())


def test_a_program_with_another_outer_header_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its port is that of the hash."""
    monkeypatch.setattr(carrier_check, "flow_hash", lambda packet: flow_hash(packet) + 1)
    with pytest.raises(CarrierUnavailableError, match="not translate a packet of IPv4 tcp"):
        self_check(object_file())


def test_what_is_no_object_is_a_reason() -> None:
    """As libbpf says it."""
    with pytest.raises(CarrierUnavailableError, match="the object file cannot be read"):
        self_check(b"no object")


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        (XDP_PASS, "the program at XDP does not carry a packet of IPv4 tcp"),
        (XDP_REDIRECT, "the program at XDP does not translate a packet of IPv4 tcp"),
    ],
)
def test_another_program_at_xdp_fails(
    monkeypatch: pytest.MonkeyPatch, value: int, wrong: str
) -> None:
    """The remedy is the program at tc."""
    monkeypatch.setattr(loader, "load", lambda *_: returns(value, XDP))
    with pytest.raises(XdpUnavailableError, match=wrong) as error:
        self_check(b"", EARLY_PROGRAM)
    assert "set `carrier: bpf`" in error.value.remedy


@pytest.mark.parametrize(
    ("at", "leaves", "wrong"),
    [
        (0, False, "not translate a packet of IPv4 tcp"),
        (3, False, "not translate a packet of IPv4 tcp"),
        (0, True, "not leave a packet of IPv4 tcp to tc"),
    ],
    ids=["nat", "dsr", "left"],
)
def test_each_case_at_xdp_can_fail(
    monkeypatch: pytest.MonkeyPatch, at: int, leaves: bool, wrong: str
) -> None:
    """The bytes are compared, with the MAC addresses; what XDP leaves is not carried."""
    cases = carrier_check._cases

    def other(family: int, protocol: int, *, at_xdp: bool) -> Any:
        found = list(cases(family, protocol, at_xdp=at_xdp))
        sent, wanted, method, flags = found[at]
        assert wanted is not None
        found[at] = (sent, None if leaves else wanted[:-1] + b"?", method, flags)
        return found

    monkeypatch.setattr(carrier_check, "_cases", other)
    with pytest.raises(XdpUnavailableError, match=wrong):
        self_check(object_file(), EARLY_PROGRAM)


def test_dsr_is_decided_by_the_hash_at_xdp(monkeypatch: pytest.MonkeyPatch) -> None:
    """For this case alone the check at XDP needs the hash."""
    monkeypatch.setattr(carrier_check, "siphash13", lambda *key: siphash13(*key) + 1)
    with pytest.raises(XdpUnavailableError, match="does not carry a packet of IPv4 tcp"):
        self_check(object_file(), EARLY_PROGRAM)


@pytest.mark.parametrize("program", RECORDS)
def test_where_no_namespace_is_permitted_the_record_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    """That of the same function of the same object on the same kernel; without one BPF does not
    carry.
    """
    kept, image = {name: tmp_path / name for name in RECORDS}, object_file()
    record(image, program, kept)
    monkeypatch.setattr(carrier_check, "_checked", _refused)
    self_check(image, program, kept)
    reason = "self-check cannot be made: Operation not permitted; run paraglider.config"
    kind = XdpUnavailableError if program == EARLY_PROGRAM else CarrierUnavailableError
    with pytest.raises(kind, match=reason):
        self_check(image + b"x", program, kept)
    (other,) = kept.keys() - {program}
    kept[program].rename(kept[other])
    for name in kept:
        with pytest.raises(CarrierUnavailableError, match=reason):
            self_check(image, name, kept)


def test_a_daemon_checks_where_no_pass_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record counts for one object, function, version and kernel; a recorded failure is checked
    again.
    """
    kept = {name: tmp_path / name for name in RECORDS}
    found, made = ["\nno tunnels"], []

    def check(image: bytes, program: str) -> carrier_record.Outcome:
        made.append((image, program))
        return carrier_record.Outcome.of(f"0 {found[0]}")

    def checks(image: bytes = b"image", program: str = PROGRAM) -> int:
        made.clear()
        assert checked(image, program, kept) == "no tunnels"
        return len(made)

    monkeypatch.setattr(carrier_check, "_outcome", check)
    assert checks() == 1
    assert record(b"image", PROGRAM, kept) == "no tunnels"
    assert checks() == 0
    assert checks(image=b"image2") == 1
    assert checks(program=EARLY_PROGRAM) == 1
    with monkeypatch.context() as patch:
        patch.setattr(carrier_record, "__version__", "0.0")
        assert checks() == 1
    with monkeypatch.context() as patch:
        other = os.uname_result(("Linux", "host", "6.99", "1", "x86_64"))
        patch.setattr(os, "uname", lambda: other)
        assert checks() == 1
    found[0] = "it differs"
    with pytest.raises(CarrierUnavailableError, match="it differs"):
        record(b"image", PROGRAM, kept)
    found[0] = "\nno tunnels"
    assert checks() == 1


def test_a_failure_is_recorded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a confined daemon has the reason."""
    kept = {PROGRAM: tmp_path / "check"}
    with monkeypatch.context() as patch:
        patch.setattr(loader, "load", lambda *_: returns(OK))
        with pytest.raises(CarrierUnavailableError):
            record(b"image", PROGRAM, kept)
    monkeypatch.setattr(carrier_check, "_checked", _refused)
    with pytest.raises(CarrierUnavailableError, match="does not carry a packet"):
        self_check(b"image", PROGRAM, kept)


def test_a_kernel_without_the_source_of_a_route(tmp_path: Path) -> None:
    """The program leaves tunnels to the workers, and carries all else; XDP misses nothing. The
    record has the same.
    """
    image, kept = without_source(object_file()), {name: tmp_path / name for name in RECORDS}
    why = self_check(image)
    assert why.startswith("the program does not carry a packet of IPv4 tcp in a tunnel: it needs")
    assert why.endswith(f"since 6.7 (this is {os.uname().release})")
    assert self_check(image, EARLY_PROGRAM) == self_check(object_file()) == ""
    assert record(image, PROGRAM, kept) == why
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(carrier_check, "_checked", _refused)
        assert self_check(image, PROGRAM, kept) == why


def _refused(*_: object) -> str:
    raise PermissionError(errno.EPERM, "Operation not permitted")
