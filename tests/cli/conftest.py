"""What the tests of commands that change a host share: a host, a file, and a look at it all."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import new_prefix

NETWORK = {
    "public": {"interface": "eth0"},
    "private": {"interface": "eth1", "gateway": ["10.0.0.254/8", "fd00:10::fe/64"]},
}
SNAPSHOT = """\
import subprocess
from pathlib import Path
for command in ("iptables-save", "ip6tables-save", "nft list ruleset", "ip -4 address",
                "ip -6 address", "ip -4 route show table all", "ip neighbour show nud permanent"):
    print(command)
    said = subprocess.run(command.split(), capture_output=True, text=True, check=True).stdout
    print("".join(line for line in said.splitlines(True) if not line.startswith("#")))
for file in ["/proc/sys/net/ipv4/ip_forward", *Path("/proc/sys/net").glob("ipv[46]/conf/*/*")]:
    if Path(file).name != "stable_secret":
        print(file, Path(file).read_text().strip())
"""


@pytest.fixture
def host() -> Iterator[Namespace]:
    """A namespace with eth0 and eth1, to which another one answers as both backends."""
    prefix = new_prefix()
    with Namespace(f"{prefix}-host") as namespace, Namespace(f"{prefix}-peer") as peer:
        for name in ("eth0", "eth1"):
            namespace.ip(f"link add {name} type veth peer name {name} netns {peer.name}")
            namespace.ip(f"link set {name} up")
            peer.ip(f"link set {name} up")
        peer.ip("addr add 10.0.0.1/8 dev eth1", "addr add fd00:10::1/64 dev eth1")
        yield namespace


@pytest.fixture
def snapshot(host: Namespace) -> Callable[[], str]:
    """A function that gives all that undoing promises to leave as it was."""
    return lambda: host.run([sys.executable, "-c", SNAPSHOT]).stdout


@pytest.fixture
def foreign(host: Namespace) -> None:
    """The host is lived in: rules, policies, tables, addresses, neighbours and odd sysctls."""
    host.run(["iptables", "-t", "mangle", "-A", "PREROUTING", "-i", "eth9", "-j", "ACCEPT"])
    host.run(["iptables", "-P", "FORWARD", "DROP"])
    host.run(["ip6tables", "-N", "THEIRS"])
    host.run(["nft", "add table inet theirs"])
    host.ip("addr add 192.168.0.1/24 dev eth0", "addr add 10.0.0.254/8 dev eth1")
    host.ip("neigh add 10.0.0.1 lladdr 02:00:00:00:00:01 dev eth1 nud permanent")
    host.sysctl("net.ipv4.conf.eth0.forwarding=1", "net.ipv4.conf.all.accept_redirects=0")
    host.sysctl("net.ipv4.conf.eth1.send_redirects=0", "net.ipv6.conf.eth0.accept_ra=0")


@pytest.fixture
def web() -> dict[str, Any]:
    """An IPv4 service of the default file."""
    return {"name": "web", "vip": "192.168.0.11/24", "protocol": "tcp", "backends": ["10.0.0.1"]}


@pytest.fixture
def six() -> dict[str, Any]:
    """An IPv6 service of the default file."""
    return {"name": "six", "vip": "2001:db8::11/64", "protocol": "any", "backends": ["fd00:10::1"]}


@pytest.fixture
def write(tmp_path: Path, web: dict[str, Any], six: dict[str, Any]) -> Callable[..., str]:
    """A function that writes a configuration file and gives its path."""

    def write_file(*services: dict[str, Any], **top: Any) -> str:
        (tmp_path / "empty").mkdir(exist_ok=True)
        content = {"chroot": str(tmp_path / "empty"), "network": NETWORK, **top}
        file = tmp_path / "paraglider.conf"
        file.write_text(yaml.safe_dump({**content, "services": list(services or (web, six))}))
        return str(file)

    return write_file


@pytest.fixture
def run_in(host: Namespace) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function that runs a module in the host and looks at its exit code; no traceback."""

    def run(module: str, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = host.run([sys.executable, "-m", module, *arguments], check=False)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run
