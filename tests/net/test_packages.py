"""The output of `scripts/package`: installed, run under systemd with real packets, removed.

dpkg installs the Debian package in a disposable machine (``machine``), whose files are this host's
under an overlay and whose process 1 is its own systemd.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from clients import Client
from machine import Machine

import paraglider
from paraglider.host import privileges
from paraglider.lab.topology import VIP, Topology

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(900),  # the build compiles, and nothing promises how fast
    # One build for all, also where tests run in several processes.
    pytest.mark.xdist_group("packages"),
]

ROOT = Path(__file__).resolve().parents[2]
UNIT = "paraglider.service"
HOST = "paraglider-host.service"
STATIC = "paraglider-static.service"
ANNOUNCE = "paraglider-announce.service"
CONFIG = "/etc/paraglider/paraglider.conf"
EXAMPLES = "/usr/share/doc/paraglider/examples"
SCHEMA = "/usr/share/paraglider/paraglider.schema.json"
#: the VIP of a service that comes by a reload
MORE = "192.168.0.13"
#: where the package may leave something
PLACES = (
    "/etc",
    "/opt",
    "/run",
    "/usr/bin",
    "/usr/lib/systemd",
    "/usr/sbin",
    "/usr/share",
    "/var/lib",
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `scripts/package` filled."""
    place = tmp_path_factory.mktemp("dist")
    subprocess.run([str(ROOT / "scripts/package"), str(place)], check=True, cwd="/")
    return place


@pytest.fixture
def machine(topology: Any, tmp_path: Path) -> Iterator[tuple[Topology, Machine]]:
    """A machine as the balancer of a network."""
    net = topology()
    made = Machine(net.balancer, tmp_path)
    yield net, made
    made.close()


def only(folder: Path, pattern: str) -> Path:
    """The one file of ``folder`` that matches."""
    (found,) = folder.glob(pattern)
    return found


def install(machine: Machine, package: Path) -> None:
    """Install ``package`` as an administrator does (man-db's index, which takes long, aside)."""
    machine.path("/tmp/package.deb").write_bytes(package.read_bytes())
    machine.run("dpkg", "--no-triggers", "-i", "/tmp/package.deb")


def ours(machine: Machine) -> list[str]:
    """Every file of the machine with our name."""
    found = machine.run("find", *PLACES, "-xdev", "-name", "*paraglider*", check=False)
    return sorted(found.stdout.split())


def test_the_wheel_is_compiled_and_installs(built: Path, tmp_path: Path) -> None:
    """pip takes it, and the packet path that it brings is the compiled one."""
    wheel = only(built, f"paraglider-{paraglider.__version__}-*.whl")
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(tmp_path), str(wheel)], check=True)
    code = "import paraglider.forward.nat.datapath as nat; print(nat.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"{tmp_path}/paraglider/forward/nat/datapath.")
    assert done.stdout.strip().endswith(".so")
    carrier = Path("paraglider/bpf/carrier.bpf.o")
    assert (tmp_path / carrier).read_bytes() == (ROOT / carrier).read_bytes()


def test_the_sdist_is_whole_and_clean(built: Path) -> None:
    """It has all files for building and running, and no build products."""
    base = f"paraglider-{paraglider.__version__}"
    with tarfile.open(only(built, f"{base}.tar.gz")) as archive:
        names = {name.removeprefix(f"{base}/") for name in archive.getnames()}
    wanted = {
        *("CONTRIBUTING.md", "LICENSE", "conf/paraglider.service", "docs/operations.md"),
        *("paraglider/bpf/carrier.bpf.c", "paraglider/bpf/layout.h", "paraglider/py.typed"),
        "paraglider/forward/nat/datapath.pxd",
        *("scripts/bootstrap", "scripts/debian/postinst"),
    }
    assert wanted <= names
    built = {name for name in names if name.endswith((".so", ".o", ".pyc", ".c"))}
    assert built == {"paraglider/bpf/carrier.bpf.c", "paraglider/bpf/decap.bpf.c"}


def test_installed_run_removed(
    built: Path, machine: Any, serve: Any, serve_peer: Any, config: Any, service: Any, ask: Any,
    tmp_path: Path,
) -> None:  # fmt: skip
    """After the installation nothing runs; started, it balances with the privileges of its unit;
    after a restart, a kill or a hang no connection is lost; stopped, the host is as before; purged,
    nothing is left.
    """
    net, host = machine
    serve(net, udp=())
    serve_peer(net, 9000)
    addresses = host.run("ip", "-brief", "address").stdout
    host.run("rm", "-rf", "/var/lib/paraglider")  # the seed of the host below
    before = ours(host)
    install(host, only(built, "*.deb"))
    quiet(host)

    services = [
        service(4, ports=80),
        service(6, ports=80),
        service(4, name="peer", ports=9000),
        service(4, name="kernel", ports="8000-8080", forward="offload"),
    ]
    top = {"chroot": "/var/run/empty", "control": {}, "stats": {"bind": "127.0.0.1:9777"}}
    host.write(CONFIG, config(*services, **top))
    host.run("systemctl", "start", UNIT)
    confined(host)
    for place, part in (("", "<html"), ("metrics", "paraglider_backend_")):
        assert part in host.run("curl", "-sf", f"http://127.0.0.1:9777/{place}").stdout
    for family in (4, 6):
        answers = ask(net, "tcp", VIP[family], 80)
        assert answers == {"backend1": 10, "backend2": 10, "backend3": 10}

    client = Client(net.client, tmp_path / "client", "rounds", VIP[4], 9000, 100_000)

    def ended() -> bool:
        return client.process.poll() is not None

    def goes_on() -> None:
        before = len(client.lines())
        host.until(lambda: len(client.lines()) >= before + 2 or ended())
        assert not ended(), client.output.read_text() + host.log()

    goes_on()
    first = main(host)
    reloaded(host)
    goes_on()
    assert ask(net, "tcp", VIP[4], 80) == {"backend1": 15, "backend2": 15}
    assert main(host) == first
    # The test cannot wait half a minute for a daemon that hangs.
    host.write(f"/etc/systemd/system/{UNIT}.d/soon.conf", "[Service]\nWatchdogSec=5\n")
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "restart", UNIT)
    goes_on()
    assert main(host) not in (0, first)
    for how in ("KILL", "STOP"):  # dies · hangs, which only the watchdog sees
        last = main(host)
        host.run("kill", f"-{how}", str(last))
        host.until(lambda last=last: main(host) not in (0, last) and active(host))
        goes_on()
    assert host.systemctl("show", "-P", "NRestarts", UNIT) == "2"
    assert client.end().startswith('{"rounds": ')
    refused(host)
    late(host)
    drained(host)
    last = main(host)
    kept(host)
    for address in (VIP[4], MORE):
        assert ask(net, "tcp", address, 80).total() == 30
    assert main(host) == last
    announced(host)

    host.run("systemctl", "stop", UNIT)
    host.until(lambda: host.systemctl("is-active", HOST) == "inactive")
    assert host.run("ip", "-brief", "address").stdout == addresses
    assert host.run("nft", "list", "ruleset").stdout == ""
    assert list(host.path("/run/paraglider").iterdir()) == []

    kernel_alone(host)
    assert ask(net, "tcp", VIP[4], 80).total() == 30
    host.run("systemctl", "stop", STATIC)
    assert host.run("ip", "-brief", "address").stdout == addresses
    assert host.run("nft", "list", "ruleset").stdout == ""

    host.run("systemctl", "start", UNIT)
    host.run("dpkg", "--no-triggers", "--purge", "paraglider")
    assert host.run("ip", "-brief", "address").stdout == addresses
    assert host.run("nft", "list", "ruleset").stdout == ""
    assert host.systemctl("is-active", UNIT) == "inactive"
    host.path(f"/etc/systemd/system/{UNIT}.d/soon.conf").unlink()
    host.path(f"/etc/systemd/system/{UNIT}.d").rmdir()
    assert ours(host) == before


def quiet(host: Machine) -> None:
    """After the installation programs and pages exist, and nothing runs."""
    for unit in (UNIT, HOST):
        assert host.systemctl("is-active", unit) == "inactive"
    assert host.systemctl("is-enabled", UNIT) == "disabled"
    version = f"paraglider {paraglider.__version__}\n"
    assert host.run("/usr/bin/paraglider", "--version").stdout == version
    assert host.run("/usr/sbin/paraglider.config", "--version").stdout.endswith(version[11:])
    example = f"{CONFIG}.example"
    assert f"{example}: ok" in host.run("paraglider", "check", "-c", example).stdout
    assert not host.path(CONFIG).exists()
    first = host.path(example).read_text().partition("\n")[0]
    assert first == f"# yaml-language-server: $schema={SCHEMA}"
    assert host.path(SCHEMA).read_bytes() == (ROOT / "conf/paraglider.schema.json").read_bytes()
    assert host.path(f"/usr/lib/systemd/system/{UNIT}").is_file()
    assert "procps" in host.run("dpkg-query", "-Wf", "${Depends}", "paraglider").stdout
    for page in ("man8/paraglider.8", "man8/paraglider.config.8", "man5/paraglider.conf.5"):
        assert host.path(f"/usr/share/man/{page}.gz").exists()
    for file in ("bash-completion/completions/", "zsh/vendor-completions/_"):
        assert host.path(f"/usr/share/{file}paraglider").exists()
    assert host.path("/usr/share/fish/vendor_completions.d/paraglider.fish").exists()
    verified = host.run("systemd-analyze", "verify", "--man=no", UNIT, HOST, ANNOUNCE)
    assert verified.stdout + verified.stderr == ""
    # The programs' own checks of their examples, where the interfaces and the command are.
    for example in ("keepalived", "keepalived-routed"):
        host.run("keepalived", "-t", "-f", f"{EXAMPLES}/{example}.conf")
    for example in ("bird", "bird-router"):
        host.run("bird", "-p", "-c", f"{EXAMPLES}/{example}.conf")
    host.run("/usr/sbin/exabgp", "--env", "/dev/null", "--test", f"{EXAMPLES}/exabgp.conf")
    # Everything is bundled, but what Debian's python3 brings itself.
    code = (
        "import sys, aiohttp, paraglider.forward.nat.datapath as n;"
        " print(sys.prefix, aiohttp.__file__, n)"
    )
    told = host.run("/opt/paraglider/bin/python3", "-I", "-c", code).stdout
    assert told.startswith("/opt/paraglider /opt/paraglider/lib/")
    assert ".so" in told
    code = "import paraglider.bpf as b, pathlib; print(pathlib.Path(b.__file__).parent)"
    folder = host.run("/opt/paraglider/bin/python3", "-I", "-c", code).stdout.strip()
    assert host.path(f"{folder}/carrier.bpf.o").exists()


def confined(host: Machine) -> None:
    """Its main process has the unit's restrictions, with which BPF carries, and the service manager
    gets its notifications.
    """
    fields = status(host)
    needed = (*privileges.PARENT_CAPABILITIES, *privileges.CARRIER_CAPABILITIES)
    bounding = sum(1 << capability for capability in needed)
    assert int(fields["CapBnd"], 16) == int(fields["CapEff"], 16) == bounding
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
    assert 'event="carrier of flows" carrier=bpf' in host.log()
    told = ("show", "-P", "StatusText", UNIT)
    host.until(lambda: host.systemctl(*told) == "1 of 1 workers serve")
    mounts = host.path(f"/proc/{main(host)}/mounts").read_text().splitlines()
    assert [mount.split()[3].split(",")[0] for mount in mounts if mount.split()[1] == "/"] == ["ro"]


def reloaded(host: Machine) -> None:
    """A reload takes a backend out; a file with a mistake is refused, and nothing changes."""
    right = host.path(CONFIG).read_text()
    host.write(CONFIG, right + "mistake: 1\n")
    assert host.run("systemctl", "reload", UNIT, check=False).returncode == 1
    assert "`mistake`" in host.log()
    backends = "  - 10.0.0.1\n  - 10.0.0.2\n  - 10.0.0.3\n"
    assert backends in right  # of the first service, as it comes first
    host.write(CONFIG, right.replace(backends, backends[:26], 1))
    host.run("systemctl", "reload", UNIT)
    assert active(host)


def refused(host: Machine) -> None:
    """A restart with a mistake in the file fails with the mistake, and is not retried; with a
    correct file it starts.
    """
    right = host.path(CONFIG).read_text()
    host.write(CONFIG, right + "blunder: 1\n")
    host.run("systemctl", "restart", UNIT, check=False)
    host.until(lambda: host.systemctl("is-active", UNIT) == "failed")
    assert "`blunder`" in host.log()
    assert host.systemctl("show", "-P", "ExecMainStatus", UNIT) == "1"
    host.until(lambda: host.systemctl("is-active", HOST) == "inactive")
    host.write(CONFIG, right)
    host.run("systemctl", "start", UNIT)
    assert active(host)


def late(host: Machine) -> None:
    """An interface whose address the file means may get it after the start, as at a boot; until
    then systemd tries again, and BPF carries as ever.
    """
    right = host.path(CONFIG).read_text()
    document = yaml.safe_load(right)
    document["network"]["private"]["gateway"].append({"interface": "late"})
    host.write(CONFIG, yaml.safe_dump(document))
    host.run("ip", "link", "add", "late", "type", "bridge")
    host.run("systemctl", "stop", UNIT)
    host.run("systemctl", "start", UNIT, check=False)
    host.until(lambda: "late has no IPv4 or IPv6 address" in host.log())
    assert not active(host)
    host.run("ip", "address", "add", "198.18.0.1/24", "dev", "late")
    host.until(lambda: active(host))
    assert " /run/paraglider/bpf bpf " in host.path(f"/proc/{main(host)}/mounts").read_text()
    host.write(CONFIG, right)
    host.run("systemctl", "restart", UNIT)
    host.run("ip", "link", "delete", "late")


def drained(host: Machine) -> None:
    """A stop has drained the balancer until the next start; a drain by the operator holds over
    it.
    """
    assert "balancer drained" in host.log()
    assert host.run("paraglider", "node", "show").stdout == "ready\n"
    host.run("paraglider", "node", "drain")
    host.run("systemctl", "restart", UNIT)
    assert host.run("paraglider", "node", "show").stdout.startswith("draining")
    host.run("paraglider", "node", "ready")


def announced(host: Machine) -> None:
    """Its unit runs as another user without capabilities, and withdraws at its end."""
    document = yaml.safe_load(host.path(CONFIG).read_text())
    own = {"name": "routed", "vip": "192.0.2.77/32", "return": "via"}
    routed = {**document["services"][0], **own}
    section = {"via": "exec", "exec": ["/usr/bin/true"], "rise": 0}
    services = [*document["services"], routed]
    host.write(CONFIG, yaml.safe_dump({**document, "announce": section, "services": services}))
    host.run("systemctl", "restart", UNIT)  # since the socket is for one more user
    host.run("systemctl", "start", ANNOUNCE)
    host.until(lambda: "vip=192.0.2.77 route=announced" in host.log())
    fields = status(host, ANNOUNCE)
    assert "0" not in fields["Uid"].split()
    assert {int(fields[name], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")} == {0}
    host.run("systemctl", "stop", ANNOUNCE)
    assert "vip=192.0.2.77 route=withdrawn" in host.log()


def kernel_alone(host: Machine) -> None:
    """`paraglider start --watch` with the privileges of its unit: it restores removed objects, is
    restarted after a kill, and applies another file by a reload.
    """
    document = yaml.safe_load(host.path(CONFIG).read_text())
    plain = {key: document[key] for key in ("network", "services")}
    host.write(CONFIG, yaml.safe_dump(plain))
    host.run("systemctl", "start", STATIC)

    def whole() -> bool:
        return "table ip paraglider " in host.run("nft", "list", "ruleset").stdout

    assert whole()
    for how in ("flush", "kill"):
        if how == "kill":
            last = main(host, STATIC)
            host.run("kill", "-KILL", str(last))
            host.until(lambda last=last: main(host, STATIC) not in (0, last))
            host.until(lambda: host.systemctl("is-active", STATIC) == "active")
            assert whole()
        host.run("nft", "flush", "ruleset")
        host.until(whole)
    host.until(lambda: host.systemctl("show", "-P", "StatusText", STATIC) == "healthy")
    host.run("systemctl", "reload", STATIC)


def kept(host: Machine) -> None:
    """Rules, tables, addresses and sysctls that others remove are restored by the daemon with the
    privileges of its unit; it also sets up a service that a reload adds.
    """

    def there() -> list[bool]:
        addresses = host.run("ip", "-brief", "address").stdout
        return [
            "192.168.0.11/24" in addresses,
            f"{MORE}/24" in addresses,
            host.run("sysctl", "-n", "net.ipv4.ip_forward").stdout == "1\n",
            "PARAGLIDER" in host.run("iptables-save", "-t", "mangle").stdout,
            *(f"table ip {name} " in tables() for name in ("paraglider", "paraglider-long")),
        ]

    def tables() -> str:
        return host.run("nft", "list", "ruleset").stdout

    document = yaml.safe_load(host.path(CONFIG).read_text())
    more = {**document["services"][0], "name": "more", "vip": f"{MORE}/24"}
    host.write(CONFIG, yaml.safe_dump({**document, "services": [*document["services"], more]}))
    host.run("systemctl", "reload", UNIT)
    assert all(there()), there()
    host.run("nft", "flush", "ruleset")
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
    host.run("ip", "address", "del", f"{MORE}/24", "dev", "eth0")
    host.until(lambda: all(there()))


def main(host: Machine, unit: str = UNIT) -> int:
    """The unit's process id in its machine; 0 while none runs."""
    return int(host.systemctl("show", "-P", "MainPID", unit) or 0)


def status(host: Machine, unit: str = UNIT) -> dict[str, str]:
    """What the kernel says of its process, by name."""
    lines = host.path(f"/proc/{main(host, unit)}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def active(host: Machine) -> bool:
    """Whether the daemon has notified that it is ready."""
    return host.systemctl("is-active", UNIT) == "active"
