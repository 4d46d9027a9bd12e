"""Devices that end tunnels: the commands, by a program in ip(8)'s place that answers as it does,
and by the kernel where it has the devices.
"""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from paraglider.errors import PlatformError
from paraglider.host.tunnel_devices import TunnelDevice, TunnelDevices, TunnelPort

FOUR, SIX = TunnelDevice(ip_address("10.1.0.1")), TunnelDevice(ip_address("fd00:10::1"))
PORT = TunnelPort(ip_address("10.1.0.1"), 6080)
PORT6 = TunnelPort(ip_address("fd00:10::1"), 6080)

#: keeps its arguments in a file, and prints and returns what the first matching rule says
STANDIN = """\
#!/usr/bin/python3
import json, sys
arguments = " ".join(sys.argv[1:])
with open({log!r}, "a") as log:
    print(arguments, file=log)
for part, code, out, err in json.load(open({rules!r})):
    if part in arguments:
        sys.stdout.write(out)
        sys.stderr.write(err)
        sys.exit(code)
"""


class Programs:
    """Programs in the place of ip, unshare and modprobe; ``says`` adds a rule before the others."""

    def __init__(self, directory: Path) -> None:
        self._log, self._rules = directory / "log", directory / "rules"
        self._made: list[tuple[str, int, str, str]] = []
        self.says("nothing", 0)
        text = STANDIN.format(log=str(self._log), rules=str(self._rules))
        for name in ("ip", "unshare", "modprobe"):
            (directory / name).write_text(text)
            (directory / name).chmod(0o755)

    def says(self, part: str, code: int, out: str = "", err: str = "") -> None:
        """Answer commands with ``part`` in their arguments."""
        self._made.insert(0, (part, code, out, err))
        self._rules.write_text(json.dumps(self._made))

    def ran(self) -> list[str]:
        """What was run since the last question."""
        text = self._log.read_text() if self._log.exists() else ""
        self._log.write_text("")
        return text.splitlines()


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """The stand-ins, first on PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return Programs(tmp_path)


def shown(device: TunnelDevice, **changes: Any) -> str:
    """How iproute2 6.1 shows ``device``, but for ``changes``."""
    data = {"proto": "ipip", "remote": "any", "local": str(device.address)}
    link = {"info_kind": device.kind, "info_data": data}
    whole = {"ifname": device.name, "flags": ["NOARP", "UP", "LOWER_UP"], "linkinfo": link}
    return json.dumps([whole | changes])


def test_names() -> None:
    """They fit the kernel's 15 bytes, and say the address where that is possible."""
    assert FOUR.name == "ipip-0a010001"
    assert SIX.name.startswith("ip6tnl-")
    assert len(SIX.name) == 15
    assert SIX.name != TunnelDevice(ip_address("fd00:10::2")).name


def test_a_device_is_made(programs: Programs) -> None:
    """For one address, up; an IPv6 one without a link-local address."""
    programs.says("link show", 1)
    TunnelDevices().add(FOUR)
    assert programs.ran()[1:] == [
        "link add name ipip-0a010001 type ipip mode ipip local 10.1.0.1",
        "address add 192.0.0.8/32 dev ipip-0a010001 scope host",
        "link set dev ipip-0a010001 up",
    ]
    TunnelDevices().add(SIX)
    assert programs.ran()[1:] == [
        f"link add name {SIX.name} type ip6tnl mode ip6ip6 local fd00:10::1",
        f"link set dev {SIX.name} addrgenmode none",
        f"link set dev {SIX.name} up",
    ]


def test_a_device_that_exists_stays(programs: Programs) -> None:
    """One that is down is made anew. One of its name with another address or of another kind, which
    is not ours, is an error and stays.
    """
    programs.says("link show", 0, shown(FOUR))
    assert TunnelDevices().has(FOUR)
    TunnelDevices().add(FOUR)
    assert not [line for line in programs.ran() if "show" not in line]
    programs.says("link show", 0, shown(FOUR, flags=["NOARP"]))
    assert not TunnelDevices().has(FOUR)
    programs.ran()
    TunnelDevices().add(FOUR)
    verbs = [line.removeprefix("-d -j ").split()[:2] for line in programs.ran()]
    wanted = ["link show", "link del", "link add", "address add", "link set"]
    assert [" ".join(verb) for verb in verbs] == wanted
    others: list[dict[str, Any]] = [
        {"info_kind": "ipip", "info_data": {"local": "10.9.0.1"}},
        {"info_kind": "dummy"},
        {},
    ]
    for link in others:
        programs.says("link show", 0, shown(FOUR, linkinfo=link))
        assert not TunnelDevices().has(FOUR)
        with pytest.raises(PlatformError, match="there is another device ipip-0a010001") as caught:
            TunnelDevices().add(FOUR)
        assert "ip link del dev ipip-0a010001" in str(caught.value.remedy)
        assert not [line for line in programs.ran() if "show" not in line]


def test_another_device_has_the_address(programs: Programs) -> None:
    """The kernel takes one device for an address; the error says where to look."""
    programs.says("link show", 1)
    programs.says("link add", 2, err="RTNETLINK answers: File exists\n")
    with pytest.raises(PlatformError, match=r"File exists") as caught:
        TunnelDevices().add(FOUR)
    assert "ip -d link show type ipip" in str(caught.value.remedy)


def test_a_device_is_removed(programs: Programs) -> None:
    """A missing one is no error; any other refusal is."""
    TunnelDevices().remove(FOUR)
    assert programs.ran() == ["link del dev ipip-0a010001"]
    programs.says("link del", 2, err="RTNETLINK answers: Operation not permitted\n")
    with pytest.raises(PlatformError, match="not permitted"):
        TunnelDevices().remove(FOUR)


def test_a_port_is_bound_and_released(programs: Programs) -> None:
    """Once, at the address of the backend; the module is loaded before. What iproute2 shows of
    ports is of both families.
    """
    programs.says("fou show", 0, "[]")
    ends = TunnelDevices()
    ends.add_port(PORT)
    assert programs.ran()[1:] == ["-q fou", "-4 fou add port 6080 gue local 10.1.0.1"]
    ends.add_port(PORT6)
    assert programs.ran()[-1] == "-6 fou add port 6080 gue local fd00:10::1"
    ends.remove_port(PORT)
    assert programs.ran() == ["-j fou show"]
    ports = [
        {"port": 6080, "gue": None, "family": "inet6", "local": "fd00:10::1"},
        {"port": 6080, "gue": None, "family": "inet", "local": "10.1.0.1"},
        {"port": 6081, "gue": None, "family": "inet"},
    ]
    programs.says("fou show", 0, json.dumps(ports))
    assert ends.has_port(PORT)
    assert ends.has_port(PORT6)
    assert not ends.has_port(TunnelPort(PORT.address, 6081))
    programs.ran()
    ends.add_port(PORT)
    assert programs.ran() == ["-j fou show"]
    ends.remove_port(PORT6)
    assert programs.ran()[-1] == "-6 fou del port 6080 local fd00:10::1"


def test_the_port_is_taken(programs: Programs) -> None:
    """By a program of the host: the error says how to find it."""
    programs.says("fou show", 0, "[]")
    programs.says("fou add", 2, err="RTNETLINK answers: Address already in use\n")
    with pytest.raises(PlatformError, match="Address already in use") as caught:
        TunnelDevices().add_port(PORT)
    assert "ss -lnup" in str(caught.value.remedy)


@pytest.mark.parametrize("answer", ["", "[", '["text"]', "{}"])
def test_whatever_is_shown(programs: Programs, answer: str) -> None:
    """An old ip(8) has no such output: the object does not exist."""
    programs.says("show", 0, answer)
    assert not TunnelDevices().has(FOUR)
    assert not TunnelDevices().has_port(PORT)


REFUSED = [
    (False, "Error: Unknown device type.\nCommand failed -:1\n", "ipip: Unknown device type"),
    (
        True,
        "RTNETLINK answers: No such file or directory\nCommand failed -:2\n",
        "fou: No such file or directory",
    ),
    (
        False,
        "unshare: unshare failed: Operation not permitted\n",
        "ipip: unshare: unshare failed: Operation not permitted",
    ),
]


@pytest.mark.parametrize(("gue", "words", "reason"), REFUSED)
def test_what_the_kernel_lacks(programs: Programs, gue: bool, words: str, reason: str) -> None:
    """The part, and the kernel's own words; it is asked once."""
    programs.says("--net", 1, err=words)
    ends = TunnelDevices()
    assert ends.refusal(4, gue) == reason
    assert ends.refusal(4, gue) == reason
    assert len([line for line in programs.ran() if "--net" in line]) == 1


def test_what_the_kernel_has(programs: Programs) -> None:
    """No reason. Only GUE needs the module of ports."""
    assert TunnelDevices().refusal(6, False) == ""
    (line,) = programs.ran()
    assert line.endswith("-6 -batch -")
    assert TunnelDevices().refusal(6, True) == ""
    assert programs.ran()[0] == "-q fou"


@pytest.mark.root
@pytest.mark.parametrize(("device", "port"), [(FOUR, PORT), (SIX, PORT6)])
def test_in_this_kernel(inside: Any, device: TunnelDevice, port: TunnelPort) -> None:
    """A kernel that has them takes the commands; a second time changes nothing; nothing is left.
    One that lacks the device says so when it is asked, and when it is to be made.
    """
    ends = TunnelDevices()
    family = device.address.version
    if ends.refusal(family, True):
        if ends.refusal(family, False):
            with pytest.raises(PlatformError, match="Unknown device type"):
                ends.add(device)
        else:
            with pytest.raises(PlatformError, match="No such file"):
                ends.add_port(port)
        return
    bits = device.address.max_prefixlen
    inside.ip(f"address add {device.address}/{bits} dev eth0{' nodad' * (bits == 128)}")
    for _ in range(2):
        ends.add(device)
        ends.add_port(port)
        assert ends.has(device)
        assert ends.has_port(port)
    for _ in range(2):
        ends.remove(device)
        ends.remove_port(port)
        assert not ends.has(device)
        assert not ends.has_port(port)
