"""The carrier of a namespace: made, taken over by the next daemon, replaced where it does not fit,
removed without a trace. With the real program; of packets tests/net says more.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from waiting import wait_until

from paraglider.bpf import layout, loader, syscall
from paraglider.bpf.maps import FLOW_MAPS, SHAPES
from paraglider.config.model import Config
from paraglider.errors import PlatformError
from paraglider.host import (
    bpffs,
    carrier,
    carrier_check,
    carrier_links,
    carrier_record,
    carrier_support,
)
from paraglider.host.carrier import LoadedCarrier
from paraglider.host.carrier_support import CarrierUnavailableError
from paraglider.host.ownership import announce
from paraglider.host.xdp_devices import XdpUnavailableError
from paraglider.lab.namespace import Namespace
from tests.xdp import ready_for_xdp

pytestmark = pytest.mark.root

KEY = b"k" * 12


def config(carrier: str = "auto", flows: int = 1000, **service: Any) -> Config:
    """A configuration with one service."""
    one = {"name": "web", "vip": "192.0.2.1", "protocol": "tcp", "ports": 80}
    one |= {"backends": ["192.0.2.9"], "carrier": carrier, **service}
    return Config.model_validate({"services": [one], "flows": {"max": flows}})


@pytest.fixture
def there(inside: Namespace, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A namespace whose carrier is removed afterwards; the self-check has a test of its own. There
    is a daemon in it: without one, its pins would be a leftover to other tests' daemons.
    """
    for name in ("self_check", "checked"):
        monkeypatch.setattr(carrier, name, lambda *_: "")
    with contextlib.closing(announce()):
        yield
        carrier.remove()


def loaded(workers: int = 2, *, resteered: bool = False, **changes: Any) -> LoadedCarrier:
    """As the daemon gets it."""
    found, why = carrier.load_wanted(config(**changes), workers, resteered=resteered)
    assert why == ""
    assert found is not None
    return found


def names() -> list[str]:
    """What is pinned."""
    pins = bpffs.find_pins()
    if pins is None:
        return []
    found = bpffs.names(pins)
    os.close(pins)
    return found


def pinned(workers: int) -> set[str]:
    """What is pinned for ``workers``, without links."""
    rings = [f"ring-{index}" for index in range(workers)]
    return {f"{name}-{layout.LAYOUT_VERSION}" for name in (*SHAPES, *rings)}


def test_it_is_made_and_removed(there: None) -> None:
    """Maps, rings and links are pinned while it lives, and nothing is left."""
    found = loaded()
    assert {name for name in names() if not name.startswith("link-")} == pinned(2)
    assert sum(name.startswith("link-") for name in names()) == 2
    assert list(found.maps.rings) == [0, 1]
    found.close()
    assert carrier.remove()
    assert names() == []
    assert bpffs.pins_path() is None
    assert not carrier.remove()


def test_what_another_process_removes_is_passed_over(
    there: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that begins takes for a leftover what is being undone: pins vanish after the list
    of them was read.
    """
    found = loaded()
    listed = bpffs.names
    monkeypatch.setattr(bpffs, "names", lambda pins: [*listed(pins), "link-99", "tcp4-0"])
    assert carrier.remove()
    monkeypatch.undo()
    assert bpffs.pins_path() is None
    assert not carrier_links.is_attached(found.pins)
    found.close()


def test_flows_outlive_the_daemon(there: None) -> None:
    """The next one has the same maps and rings, whatever became of the first."""
    first = loaded()
    first.maps.flows[6, 4].insert(KEY, b"v" * layout.FLOW.size)
    first.close()
    second = loaded()
    assert second.maps.flows[6, 4].get(KEY) == b"v" * layout.FLOW.size
    second.close()


@pytest.mark.parametrize(
    "changes",
    [{"workers": 3}, {"workers": 1}, {"flows": 100_000}, {"resteered": True}],
    ids=["more workers", "fewer workers", "more room", "other steering"],
)
def test_flows_that_do_not_fit_are_the_workers(there: None, changes: dict[str, Any]) -> None:
    """Their entries name a worker or lack room; the workers' journals have the flows."""
    first = loaded()
    first.maps.flows[6, 4].insert(KEY, bytes(layout.FLOW.size))
    first.close()
    second = loaded(**changes)
    assert second.maps.flows[6, 4].get(KEY) is None
    workers = changes.get("workers", 2)
    assert {name for name in names() if not name.startswith("link-")} == pinned(workers)
    second.close()


def test_less_room_is_no_reason_to_begin_anew(there: None) -> None:
    """A larger map stays."""
    first = loaded(flows=100_000)
    first.maps.flows[6, 4].insert(KEY, bytes(layout.FLOW.size))
    first.close()
    second = loaded()
    assert second.maps.flows[6, 4].get(KEY) is not None
    second.close()


def test_pins_of_another_version_are_replaced(there: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new program runs in the old links, with maps of its own, and the old pins are gone."""
    first = loaded()
    first.maps.flows[6, 4].insert(KEY, bytes(layout.FLOW.size))
    first.close()
    links = [name for name in names() if name.startswith("link-")]
    monkeypatch.setattr(carrier, "LAYOUT_VERSION", layout.LAYOUT_VERSION + 1)
    second = loaded()
    assert second.maps.flows[6, 4].get(KEY) is None
    assert all(n.endswith(f"-{layout.LAYOUT_VERSION + 1}") for n in names() if n not in links)
    assert set(links) <= set(names())
    second.close()


def test_a_map_of_another_shape_is_replaced(there: None) -> None:
    """Its name alone does not make it fit; the flows that refer to it go with it."""
    first = loaded()
    first.maps.flows[6, 4].insert(KEY, bytes(layout.FLOW.size))
    pin = f"translations-{layout.LAYOUT_VERSION}"
    os.unlink(pin, dir_fd=first.pins)
    strange = syscall.create_map(syscall.ARRAY, 4, 8, 3)
    syscall.pin(strange, first.pins, pin)
    os.close(strange)
    first.close()
    second = loaded()
    assert second.maps.translations.get(bytes(4)) == bytes(layout.TRANSLATION.size)
    assert second.maps.flows[6, 4].get(KEY) is None
    second.close()


def test_another_daemons_carrier_stays(there: None) -> None:
    """A second daemon of the namespace neither takes it nor removes it."""
    loaded().close()
    before = names()
    assert carrier.load_wanted(config("worker"), 2, claimed=False)[0] is None
    assert "another daemon" in carrier.load_wanted(config(), 2, claimed=False)[1]
    with pytest.raises(CarrierUnavailableError, match="another daemon has the BPF carrier"):
        carrier.load_wanted(config("bpf"), 2, claimed=False)
    assert names() == before


def test_maps_are_as_large_as_workers_need(there: None) -> None:
    """Those without a service are small."""
    found = loaded(flows=100_000)
    sizes = {
        name: syscall.map_info(found.maps.flows[key].fd).entries for key, name in FLOW_MAPS.items()
    }
    assert sizes == {"tcp4": 200_000, **dict.fromkeys(("tcp6", "udp4", "udp6"), layout.FLOWS)}
    found.close()
    most = loaded(flows=10_000_000)
    assert syscall.map_info(most.maps.flows[6, 4].fd).entries == carrier.MOST_FLOWS
    most.close()


def test_without_a_service_that_wants_it_nothing_is_left(there: None) -> None:
    """Also nothing of an earlier daemon."""
    loaded().close()
    assert carrier.load_wanted(config("worker"), 2) == (
        None,
        "no service wanted it when the daemon was started",
    )
    assert names() == []


REFUSALS = {
    "libbpf": (
        loader.LoadError("libbpf.so.1 cannot be loaded (no such file)", errno.ENOENT),
        "apt-get install libbpf1",
    ),
    "verifier": (
        loader.LoadError("the kernel refuses the program: R1 !read_ok", 13),
        "R1 !read_ok",
    ),
    "capabilities": (OSError(errno.EPERM, "Operation not permitted"), "CAP_BPF"),
    "no bpf": (OSError(errno.ENOSYS, "Function not implemented"), r"without bpf\(2\)"),
    "memory": (OSError(errno.ENOMEM, "Cannot allocate memory"), "lower `flows.max`"),
    "mount": (PlatformError("no bpffs can be mounted", "run it"), "no bpffs can be mounted"),
    "self-check": (CarrierUnavailableError("the self-check failed: x", "y"), "self-check failed"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_host_that_cannot_has_the_workers(
    there: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """With `auto` the reason is returned, with `bpf` it is an error with the service; and what an
    earlier daemon left is removed, since no worker would have its flows.
    """
    loaded().close()
    error, sentence = REFUSALS[name]

    def refuse(*_: Any) -> int:
        raise error

    monkeypatch.setattr(loader, "load_programs", refuse)
    found, why = carrier.load_wanted(config(), 2)
    assert found is None
    assert why
    assert names() == []
    with pytest.raises(CarrierUnavailableError, match=sentence) as caught:
        carrier.load_wanted(config("bpf"), 2)
    assert caught.value.what.startswith("service `web` has `carrier: bpf`, but ")
    assert "carrier: worker" in caught.value.remedy or name in ("mount", "self-check")


@pytest.mark.parametrize("refused", [1, 2], ids=["one", "every-one"])
def test_interfaces_that_refuse_the_program(
    there: None, monkeypatch: pytest.MonkeyPatch, refused: int
) -> None:
    """With `carrier: bpf` one interface is enough; if every one refuses, the error has the reasons,
    and nothing is left. With `auto` workers carry until there is room.
    """
    attach, left = syscall.attach_tcx, []

    def refuse(program: int, interface: int) -> int:
        if len(left) < refused:
            left.append(interface)
            raise OSError(errno.ERANGE, "Numerical result out of range")
        return attach(program, interface)

    monkeypatch.setattr(syscall, "attach_tcx", refuse)
    if refused == 1:
        loaded(carrier="bpf").close()
        assert sum(name.startswith("link-") for name in names()) == 1
        return
    with pytest.raises(CarrierUnavailableError) as caught:
        carrier.load_wanted(config("bpf"), 2)
    what = "service `web` has `carrier: bpf`, but no interface takes the BPF program: "
    assert caught.value.what.startswith(what)
    assert caught.value.what.count("other programs have all places at its tc ingress") == 2
    assert "carrier: auto" in caught.value.remedy
    assert names() == []
    left.clear()
    loaded().close()
    assert not any(name.startswith("link-") for name in names())


def test_the_program_at_xdp(inside: Namespace, there: None) -> None:
    """It is attached for a service with `carrier: xdp`, taken over by the next daemon, and detached
    by one whose services want the program at tc alone.
    """
    ready_for_xdp(inside)
    first = loaded(carrier="xdp")
    assert first.early is not None
    assert sum(name.startswith("xdp-") for name in names()) == 2
    assert not list(first.maps.slots.dump())
    assert sum(count for _, _, count in first.maps.devices.dump()) == 2
    first.close()
    second = loaded(carrier="xdp")
    assert sum(name.startswith("xdp-") for name in names()) == 2
    again = second.duplicate()
    assert again.early is not None
    again.close()
    second.close()
    third = loaded(carrier="bpf")
    assert third.early is None
    assert sum(name.startswith("link-") for name in names()) == 2
    assert not any(name.startswith("xdp-") for name in names())
    third.close()


def test_interfaces_that_have_no_xdp(inside: Namespace, there: None) -> None:
    """A service with `carrier: xdp` is refused by its name, beside one that works without."""
    ready_for_xdp(inside, tags=True)
    plain = config("bpf").services[0].model_copy(update={"name": "plain"})
    both = config("xdp").model_copy(update={"services": (plain, config("xdp").services[0])})
    with pytest.raises(CarrierUnavailableError) as caught:
        carrier.load_wanted(both, 2)
    assert caught.value.what.startswith("service `web` has `carrier: xdp`, but interface eth")
    assert "rxvlan off" in caught.value.remedy
    assert names() == []
    assert "rx-vlan-offload" in carrier.prepare(both)[0]


def test_leftovers_of_namespaces_that_are_gone_are_removed(there: None) -> None:
    """Their maps would stay in memory; those of a namespace that lives stay."""
    with Namespace(f"kern{os.getpid()}-gone") as other:
        code = (
            "import sys; from paraglider.bpf import syscall; from paraglider.host import bpffs\n"
            "sys.path.insert(0, '.'); from tests.bpf.programs import returns\n"
            "pins = bpffs.open_pins(); number = syscall.create_map(2, 4, 8, 1)\n"
            "syscall.pin(number, pins, 'left'); syscall.pin(syscall.attach_tcx(returns(-1), 1),"
            " pins, 'link-1'); print(bpffs._name())"
        )
        root = bpffs.mounted()  # in `ip netns exec` a mount would end with the program
        cookie = int(other.run([sys.executable, "-c", code]).stdout, 16)
        loaded().close()
        assert (bpffs.PINS / f"{cookie:x}").exists()

    def removed() -> bool:
        loaded().close()
        return not (bpffs.PINS / f"{cookie:x}").exists()

    wait_until(removed)  # the kernel takes the namespace down by and by
    os.close(root)


def test_a_self_check_that_fails_at_xdp_alone(
    inside: Namespace, there: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who needs XDP is named, and nothing is attached; without such a service it is not made."""
    ready_for_xdp(inside)

    def failing(_: bytes, program: str = carrier_support.PROGRAM) -> str:
        if program == carrier_support.EARLY_PROGRAM:
            raise XdpUnavailableError("the self-check failed: x", "y")
        return ""

    for name in ("self_check", "checked"):
        monkeypatch.setattr(carrier, name, failing)
    services = (config("bpf").services[0], config("xdp", name="fast", ports=81).services[0])
    with pytest.raises(CarrierUnavailableError, match="service `fast` has `carrier: xdp`, but the"):
        carrier.load_wanted(config().model_copy(update={"services": services}), 2)
    assert names() == []
    assert carrier.check(config("bpf")) == ("", {})
    assert carrier.check_xdp(config("bpf")) == ""
    assert "the self-check failed: x" in carrier.check_xdp(config("xdp"))
    loaded(carrier="bpf").close()


def test_why_xdp_cannot_carry(inside: Namespace, there: None) -> None:
    """The interfaces are named, where a service wants it."""
    ready_for_xdp(inside, tags=True)
    assert "interface eth" in carrier.check_xdp(config("xdp"))
    assert carrier.check_xdp(config("bpf")) == ""
    ready_for_xdp(inside)
    assert carrier.check_xdp(config("xdp")) == ""


def test_what_paraglider_config_prepares(
    inside: Namespace, there: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """The mount and the self-check, for a daemon that may not; undone with the rest."""
    records = {name: tmp_path / name for name in carrier_record.RECORDS}
    monkeypatch.setattr(carrier, "RECORDS", records)
    monkeypatch.setattr(carrier, "record", lambda *of: carrier_check.record(*of, records))
    assert carrier.prepare(config("worker")) == []
    assert list(tmp_path.iterdir()) == []
    assert carrier.prepare(config()) == []
    assert bpffs.PINS.is_mount()
    assert list(tmp_path.iterdir()) == [records[carrier_support.PROGRAM]]
    ready_for_xdp(inside)
    assert carrier.prepare(config("xdp")) == []
    assert set(tmp_path.iterdir()) == set(records.values())
    monkeypatch.setattr(carrier, "object_file", lambda: b"not an object")
    (line,) = carrier.prepare(config())
    assert line.startswith("BPF will carry no flow: the object file cannot be read")
    carrier.undo()
    assert list(tmp_path.iterdir()) == []


def test_an_old_kernel_is_a_reason(there: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is made."""
    monkeypatch.setattr(carrier, "require_kernel", lambda: carrier_support.require_kernel("6.1.0"))
    assert carrier.load_wanted(config(), 2)[1] == "Linux 6.1.0 has no BPF links at tc ingress"
    assert names() == []
