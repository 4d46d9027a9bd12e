"""Tests of ``paraglider.host.own_addresses``: a file gets the addresses of the host."""

from __future__ import annotations

from ipaddress import ip_interface

import pytest

from paraglider.config.load import parse
from paraglider.host import own_addresses as module
from paraglider.host.own_addresses import MissingAddressError, with_own_addresses

FILE = """\
services:
  - {name: a, vip: 192.0.2.1/24, protocol: tcp, ports: 80, forward: offload,
     snat: SNAT, backends: [10.0.0.1]}
"""


def test_the_host_is_read_if_the_file_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only then; a choice of several is said, and what is missing refused, at its place."""
    monkeypatch.setattr(module, "host_addresses", lambda: pytest.fail("was read"))
    loaded = parse(FILE.replace("SNAT", "10.0.0.9"), "f")
    assert with_own_addresses(loaded, (4, 6)) == (loaded, [])
    loaded = parse(FILE.replace("SNAT", "{interface: eth1}"), "f")
    two = (ip_interface("10.0.0.2/8"), ip_interface("172.16.0.2/12"))
    monkeypatch.setattr(module, "host_addresses", lambda: {"eth1": two})
    found, notes = with_own_addresses(loaded, (4,))
    assert str(found.config.services[0].snat_address) == "10.0.0.2"
    assert (found.marks, found.file, len(notes)) == (loaded.marks, "f", 1)
    assert str(notes[0]).startswith("f:3:24: `snat`: eth1 has several IPv4 addresses")
    monkeypatch.setattr(module, "host_addresses", lambda: {"eth1": ()})
    with pytest.raises(MissingAddressError, match=r"f:3:24: `snat`: eth1 has no IPv4") as it:
        with_own_addresses(loaded, (4,))
    assert it.value.exit_code == 2
    assert with_own_addresses(loaded, (6,)) == (loaded, [])
