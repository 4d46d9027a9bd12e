"""The control socket of a running balancer: views, changes, refusals."""

from __future__ import annotations

import contextlib
import json
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from carrying import both, by_workers
from clients import asked, hold
from failing import await_counted, settle
from processes import children
from sharing import Shared
from waiting import TIMEOUT, wait_until

from paraglider.daemon.http.client import ControlClient
from paraglider.errors import OperatorError
from paraglider.lab.balancer import LabBalancer
from paraglider.lab.topology import VIP, Topology, backend_address

pytestmark = pytest.mark.root

FAMILIES = (4, 6)


def socket_path(running: LabBalancer) -> Path:
    """The path of its control socket."""
    return running.config.parent.parent / "control.sock"


def daemon(running: LabBalancer) -> ControlClient:
    """A client of it: Unix sockets do not depend on network namespaces."""
    return ControlClient(str(socket_path(running)))


def command(running: LabBalancer, *arguments: str) -> str:
    """The output of `paraglider ARGUMENTS`; standard error if it fails."""
    program = [sys.executable, "-m", "paraglider", "-c", str(running.config)]
    done = running.namespace.run([*program, *arguments], check=False)
    assert (done.returncode == 0) == (done.stderr == "")
    return done.stdout or done.stderr


def members(running: LabBalancer, service: str = "web4") -> dict[str, dict[str, Any]]:
    """The backends of ``service`` by their names."""
    return {row["backend"]: row for row in daemon(running).get("backends", service=service)}


@pytest.fixture(scope="module")
def shared(sharing: Any) -> Shared:
    """The network of all tests, with nginx in the backends."""
    made: Shared = sharing()
    made.serve(udp=())
    return made


@pytest.fixture
def web(shared: Shared, service: Any, carrier: str) -> Callable[..., tuple[Topology, LabBalancer]]:
    """A function that has a service a family balanced, by ``workers`` workers, with no flow and all
    backends ready.
    """

    def start(workers: int = 2, **changes: Any) -> tuple[Topology, LabBalancer]:
        changes = {"ports": 80, "carrier": carrier or "bpf", **changes}
        text = shared.config(*(service(f, **changes) for f in FAMILIES), workers=workers)
        running = shared.balancer(text)
        daemon(running).post("flows/kill", {"all": True})
        for family in FAMILIES:
            for row in members(running, f"web{family}").values():
                if (row["state"], row["weight"]) != ("ready", 1):
                    name = f"web{family}", row["backend"]
                    daemon(running).set_backend(*name, state="ready", weight=1)
        return shared.net, running

    return start


@pytest.fixture
def holding() -> Iterator[Callable[[Topology, int, int], Any]]:
    """A function that has the client hold connections, see ``hold``, until the test ends."""
    made: list[Any] = []

    def start(net: Topology, family: int, count: int) -> Any:
        made.append(hold(net, family, count))
        return made[-1]

    yield start
    for holder in made:
        holder.communicate(timeout=TIMEOUT)


def conns(running: LabBalancer) -> dict[str, int]:
    """The connections that each service has had, once they are known."""

    def known() -> dict[str, int] | None:
        found = {row["service"]: row["conns"] for row in daemon(running).get("services")}
        return None if None in found.values() else found

    found = wait_until(known, running.log)
    assert found is not None
    return found


@by_workers
def test_show(web: Any, ask: Any) -> None:
    """Services, backends with their counters, flows and processes, as text and as JSON."""
    net, running = web()
    await_counted(running)
    before = conns(running)
    total = before["web4"] + 30
    ask(net, "tcp", VIP[4], 80, 30)
    wait_until(lambda: conns(running)["web4"] == total, running.log)
    rows = members(running)
    assert set(rows) == {backend_address(4, n) for n in (1, 2, 3)}
    assert sum(row["conns"] for row in rows.values()) == total
    for row in rows.values():
        assert row["state"] == "ready"
        assert row["weight"] == row["configured_weight"] == 1
        assert row["packets_in"] >= 3 * row["conns"]
        assert row["bytes_out"] > row["packets_out"] > 0
    (web4, web6) = daemon(running).get("services")
    assert (web4["service"], web4["vip"], web4["ports"]) == ("web4", VIP[4], "80")
    assert (web4["conns"], web4["ready"], web4["backends"]) == (total, 3, 3)
    assert web6["conns"] == before["web6"]
    processes = daemon(running).get("workers")
    assert [row["role"] for row in processes] == ["worker", "worker", "host helper", "http"]
    assert all(row["up"] for row in processes)
    text = command(running, "show")
    assert f"web6 tcp [{VIP[6]}]:80" in text
    assert f"-> {backend_address(6, 3)}" in text
    assert "3 of 3 ready" in text
    assert "worker 1 on core" in command(running, "show", "workers")
    (printed, _) = json.loads(command(running, "show", "services", "--json"))
    assert printed.keys() == web4.keys()
    assert all(printed[key] == web4[key] for key in ("service", "vip", "conns", "ready"))


@pytest.mark.parametrize("family", FAMILIES)
@both
def test_flows_are_listed_and_ended(web: Any, holding: Any, family: int) -> None:
    """Filters select flows; the client of an ended flow gets RST at its next request."""
    net, running = web()
    holder = holding(net, family, 9)
    before = asked(holder)
    control = daemon(running)
    listed = control.get("flows", service=f"web{family}")
    assert listed["more"] is False
    assert len(listed["flows"]) == 9
    (one, *_) = listed["flows"]
    assert (one["vip"], one["port"], one["state"]) == (VIP[family], 80, "established")
    backend = backend_address(family, 2)
    found = control.get("flows", backend=backend, client=one["client"])["flows"]
    assert len(found) == before.count("backend2")
    assert {flow["backend"] for flow in found} == {backend}
    assert control.get("flows", client="203.0.113.0/24")["flows"] == []
    few = control.get("flows", limit=2)
    assert (len(few["flows"]), few["more"]) == (2, True)
    assert f"web{family}" in command(running, "flows")

    ended = command(running, "flows", "--backend", backend, "kill")
    count = before.count("backend2")
    assert ended == f"{count} flow{'' if count == 1 else 's'} ended\n"
    after = asked(holder)
    for was, now in zip(before, after, strict=True):
        assert now == ("ECONNRESET" if was == "backend2" else was)
    with pytest.raises(OperatorError, match="which flows are meant"):
        control.post("flows/kill", {})
    assert control.post("flows/kill", {"all": True}) == {"killed": 9 - count}
    assert set(asked(holder)) <= {"ECONNRESET", "EPIPE"}  # those that had it already: EPIPE


def test_show_and_top_agree(web: Any, ask: Any, in_terminal: Any) -> None:
    """The list, the live screen and the JSON have the same numbers."""
    net, running = web()
    await_counted(running)
    total = conns(running)["web6"] + 12
    ask(net, "tcp", VIP[6], 80, 12)

    def ended() -> bool:
        """Whether the numbers are those of now, which change no more."""
        found = members(running, "web6").values()
        return sum(r["conns"] for r in found) == total and not any(r["flows"] for r in found)

    wait_until(ended, running.log)
    told = json.loads(command(running, "top", "--json", "--interval", "0.1"))
    assert told["services"][1]["conns"] == total
    assert told["services"][1]["rates"]["conns"] == 0.0
    program = [sys.executable, "-m", "paraglider", "-c", str(running.config)]
    screen = in_terminal([*program, "top", "--interval", "0.2"], columns=120, rows=40)
    for row in told["backends"]:
        begin = f"  -> {row['backend']}"
        (listed,) = [x for x in command(running, "show").splitlines() if x.startswith(begin)]
        assert f" {row['picked']} " in listed
        words = [row["state"], str(row["weight"]), str(row["flows"]), "0", "0", "0", "0", "0", "-"]

        def drawn(begin: str = begin, words: list[str] = words) -> bool:
            found = [line.split() for line in screen.lines if line.startswith(begin + " ")]
            return [[line[2], *line[4:]] for line in found] == [words]

        screen.until(drawn)
    screen.press("q")
    assert screen.end() == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_drain(web: Any, ask: Any, holding: Any, family: int) -> None:
    """A drained backend keeps its flows and gets no new ones; ready again it does."""
    net, running = web()
    begin = len(running.log())
    holder = holding(net, family, 12)
    before = asked(holder)
    assert "backend1" in before
    name = backend_address(family, 1)
    said = command(running, "set", "backend", f"web{family}/{name}", "state", "drain")
    assert said == f"web{family}/{name}: state drain, weight 1\n"
    settle(running)
    assert set(ask(net, "tcp", VIP[family], 80, 20)) == {"backend2", "backend3"}
    assert asked(holder) == before
    row = members(running, f"web{family}")[name]
    assert (row["state"], row["why"]) == ("drain", "set by the operator")
    wait_until(
        lambda: members(running, f"web{family}")[name]["flows"] >= before.count("backend1"),
        running.log,
    )
    daemon(running).set_backend(f"web{family}", name, state="ready")
    settle(running)
    assert set(ask(net, "tcp", VIP[family], 80, 20)) == {"backend1", "backend2", "backend3"}
    assert running.log()[begin:].count("backend changed") == 2


def test_health(web: Any) -> None:
    """Exit code 0 without conditions. A service without a ready backend: a condition, and exit code
    1 with the option.
    """
    _, running = web()
    program = [sys.executable, "-m", "paraglider", "-c", str(running.config), "health"]

    def said() -> tuple[int, str]:
        done = running.namespace.run([*program, "--exit-code"], check=False)
        return done.returncode, done.stdout

    # A busy machine may have conditions of its own for a moment.
    wait_until(lambda: said() == (0, "healthy\n"), running.log)
    for number in (1, 2, 3):
        daemon(running).set_backend("web6", backend_address(6, number), state="drain")
    no_backend = "service web6: no backend takes new flows; see `paraglider show backends`"
    wait_until(lambda: said() == (1, f"unhealthy\n{no_backend}\n"), lambda: (said(), running.log()))


def test_maint_and_weight(web: Any, ask: Any) -> None:
    """In maint a backend gets no new flows; the others share by the new weights."""
    net, running = web(workers=1, strategy="wrr")
    first, second, third = (backend_address(4, n) for n in (1, 2, 3))
    daemon(running).set_backend("web4", first, state="maint")
    answer = daemon(running).set_backend("web4", second, weight=3)
    assert answer["weight"] == 3
    settle(running)
    assert ask(net, "tcp", VIP[4], 80, 20) == {"backend2": 15, "backend3": 5}
    daemon(running).set_backend("web4", third, weight=0)
    settle(running)
    assert ask(net, "tcp", VIP[4], 80, 5) == {"backend2": 5}
    row = members(running)[backend_address(4, 2)]
    assert (row["weight"], row["configured_weight"]) == (3, 1)
    assert ask(net, "tcp", VIP[6], 80, 9) == {"backend1": 3, "backend2": 3, "backend3": 3}


def test_mistakes_are_reported(web: Any) -> None:
    """An unknown name or an invalid value is one line with a remedy and exit code 1."""
    _, running = web(workers=1, strategy="wrr")
    control = daemon(running)
    good = ("web4", backend_address(4, 1))
    for wrong, words in (
        (lambda: control.set_backend("wbe4", "10.0.0.1", state="drain"), "did you mean web4"),
        (lambda: control.set_backend("web4", "1.2.3.4", state="drain"), "no backend of `web4` cal"),
        (lambda: control.set_backend(*good, state="gone"), "write ready or drain or maint"),
        (lambda: control.set_backend(*good, weight=70000), "write 0 to 65535"),
        (lambda: control.set_backend(*good, weight=-1), "write 0 to 65535"),
        (lambda: control.set_backend(*good, weight="3"), "`weight` is not valid"),
        (lambda: control.set_backend(*good), "nothing is to be set"),
        (lambda: control.get("flows", client="here"), "no address and no network"),
        (lambda: control.get("flows", service="nosuch"), "no service called `nosuch`"),
        (lambda: control.get("flows", limit=5000), "less than or equal to 1000"),
        (lambda: control.get("nosuch"), "not found"),
        (lambda: control.post("health", {}), "method not allowed"),
    ):
        with pytest.raises(OperatorError, match=words):
            wrong()
    assert command(running, "set", "backend", "web4", "state", "drain").startswith(
        "paraglider: 'web4' is not SERVICE/BACKEND; for example"
    )


def raw(path: Path) -> socket.socket:
    """A connection to the control socket."""
    made = socket.socket(socket.AF_UNIX)
    made.settimeout(TIMEOUT)
    made.connect(str(path))
    return made


def test_clients_that_misbehave(web: Any, ask: Any) -> None:
    """Half a request, 100 MB, garbage, and more connections than are served: each is refused or
    ended, traffic goes on, and a well-behaved client is answered meanwhile.
    """
    net, running = web(workers=1, strategy="wrr")
    path = socket_path(running)
    api = children(running)["paraglider/http"]
    with raw(path) as big:
        big.sendall(b"POST /v1/flows/kill HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
        sent = 0
        try:
            while sent < 100_000_000:
                sent += big.send(b"x" * 1_000_000)
        except OSError:
            pass
        assert sent < 100_000_000
    with raw(path) as garbage:
        garbage.sendall(b"\x16\x03\x01" * 100 + b"\r\n\r\n")
        assert b" 400 " in garbage.recv(100).splitlines()[0]
    half = [raw(path) for _ in range(64)]
    for one in half:
        with contextlib.suppress(OSError):  # the first is closed when there are too many
            one.sendall(b"GET /v1/hea")
    assert b" 200 " in first_line(path)
    assert ask(net, "tcp", VIP[4], 80, 10).total() == 10
    for one in half:
        one.close()
    assert b" 200 " in first_line(path)
    assert children(running)["paraglider/http"] == api


def first_line(path: Path) -> bytes:
    """The first line of the response to a request for health."""
    with raw(path) as one:
        one.sendall(b"GET /v1/health HTTP/1.1\r\nHost: a\r\n\r\n")
        return one.recv(100).splitlines()[0]


def test_the_socket_is_the_owners(web: Any, shared: Shared) -> None:
    """Mode 0600; other users are refused; the process behind it has no privileges; it is removed at
    the end.
    """
    _, running = web(workers=1, strategy="wrr")
    path = socket_path(running)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = Path(f"/proc/{children(running)['paraglider/http']}/status").read_text()
    sets = [line.split()[1] for line in found.splitlines() if line.startswith("Cap")]
    assert set(sets) == {"0" * 16}
    assert "NoNewPrivs:\t1" in found
    shared.end()
    assert not path.exists()
    assert f"no paraglider answers at {path}; start it" in command(running, "show")
