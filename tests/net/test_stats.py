"""The stats page of a running balancer at the socket: its content and its refusals."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import signal
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from browsing import HOST, PORT, answer, ask_page, get, raw, request
from processes import children
from waiting import wait_until

from paraglider.errors import PlatformError
from paraglider.lab.balancer import LabBalancer
from paraglider.lab.topology import VIP, Topology, backend_address

pytestmark = pytest.mark.root

FIRST = backend_address(4, 1)


@pytest.fixture
def web(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any
) -> Callable[..., tuple[Topology, LabBalancer]]:
    """A function that has one service balanced, with a stats page at the balancer's loopback."""

    def start(trouble: bool = False, **stats: Any) -> tuple[Topology, LabBalancer]:
        net = topology()
        serve(net, udp=())
        text = config(service(4, ports=80), stats={"bind": HOST, **stats})
        return net, balancer(net, text, trouble=trouble)

    return start


def test_numbers(web: Any, ask: Any) -> None:
    """JSON, CSV, history and stream have the generated flows, from a process without privileges,
    which exits on request with open streams.
    """
    net, running = web()
    here = net.balancer
    ask(net, "tcp", VIP[4], 80, 30)

    # A sample from before the first report of the workers has no figures.
    wait_until(lambda: get(here, "/api/v1/services")[0]["conns"] == 30)
    rows = get(here, "/api/v1/backends?service=web4")
    assert [row["backend"] for row in rows] == [backend_address(4, n) for n in (1, 2, 3)]
    assert sum(row["conns"] for row in rows) == 30
    assert {row["weight_share"] for row in rows} == {round(1 / 3, 4)}
    assert get(here, "/api/v1/backends?service=none") == []
    # The sample may be of the moment when not every process had begun.
    wait_until(lambda: get(here, "/api/v1/health")["healthy"])
    assert {row["role"] for row in get(here, "/api/v1/workers")} == {
        "worker",
        "host helper",
        "http",
    }

    for path in ("/stats.csv", "/;csv"):
        _, headers, body = ask_page(here, path)
        assert headers["content-type"].startswith("text/csv")
        lines = list(csv.DictReader(io.StringIO(body.decode().removeprefix("# "))))
        assert [line["svname"] for line in lines] == [
            "FRONTEND",
            *(row["backend"] for row in rows),
            "BACKEND",
        ]
        assert [line["stot"] for line in lines] == ["30", "10", "10", "10", "30"]

    wait_until(lambda: get(here, "/api/v1/history")["at"])
    history = get(here, "/api/v1/history?service=web4")
    assert set(history["series"]) == {row["backend"] for row in rows}

    with raw(here) as stream:
        stream.sendall(request("/events"))
        text = stream.makefile("rb")
        samples = []
        while len(samples) < 2:
            if (line := text.readline()).startswith(b"data: "):
                samples.append(json.loads(line.removeprefix(b"data: ")))
        status = Path(f"/proc/{children(running)['paraglider/http']}/status").read_text()
        assert running.stop() == 0
    assert "exited with an error" not in running.log()
    assert samples[0]["services"][0]["conns"] == 30
    assert samples[0]["at"] < samples[1]["at"]
    assert {line.split()[1] for line in status.splitlines() if line.startswith("Cap")} == {"0" * 16}
    assert "NoNewPrivs:\t1" in status


def test_strangers(web: Any) -> None:
    """Another host name, a cross-site origin, a path to other files and malformed requests are
    refused; every answer has the security headers.
    """
    net, _ = web(names=["lb.example.org"])
    here = net.balancer
    get(here, "/api/v1/status")
    for headers, expected in (
        ((), 200),
        (("Host: localhost:1234",), 200),
        (("Host: LB.example.org",), 200),
        (("Host: 127.0.0.1",), 200),
        (("Host: evil.example:9777",), 421),
        (("Host: 127.0.0.1.evil.example",), 421),
        (("Host: [::1",), 421),
        (("Host:",), 421),
        (("Host: 10.0.0.254:9777",), 421),
        (("Host: localhost", "Host: evil.example"), 421),
        ((f"Origin: http://{HOST}",), 200),
        ((f"Origin: https://{HOST}",), 200),
        (("Origin: http://evil.example",), 403),
        (("Origin: null",), 403),
        (("Origin: http://127.0.0.1:80",), 403),
        (("Sec-Fetch-Site: same-origin",), 200),
        (("Sec-Fetch-Site: cross-site",), 403),
        (("Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: navigate"), 403),
    ):
        status, found, body = ask_page(here, "/api/v1/status", *headers)
        assert status in ((expected, 400) if expected == 421 else (expected,)), (headers, body)
        if status != 400:  # that is aiohttp's, of what is no HTTP
            assert "frame-ancestors 'none'" in found["content-security-policy"]
            assert "unsafe" not in found["content-security-policy"]
            assert found["x-content-type-options"] == "nosniff"
            assert found["cache-control"] == "no-store"
    follow = ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate")
    assert ask_page(here, "/", *follow)[0] == 200
    for path in (
        "/static/../routes.py",
        "/static/%2e%2e%2froutes.py",
        "/static/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "//etc/passwd",
        "/static/",
        "/static/__init__.py",
        "/api/v1/flows",
        "/nosuch",
    ):
        assert ask_page(here, path)[0] == 404, path
    with raw(here) as garbage:
        garbage.sendall(b"\x16\x03\x01" * 100 + b"\r\n\r\n")
        assert answer(garbage)[0] == 400
    with raw(here) as headless:
        headless.sendall(b"GET /api/v1/status HTTP/1.0\r\n\r\n")
        assert answer(headless)[0] == 421
    assert ask_page(here, "/" + "a" * 20000)[0] == 400
    assert ask_page(here, "/", "X-Long: " + "a" * 20000)[0] == 400
    change = f"/api/v1/backends/web4/{FIRST}"
    status, _, body = ask_page(here, change, method="POST", body='{"state": "maint"}')
    assert (status, json.loads(body)["error"]) == (400, "this page changes nothing")
    assert ask_page(here, change, method="POST", body="x" * 5000)[0] == 413
    assert ask_page(here, "/api/v1/status", method="DELETE")[0] == 405


def test_probes(web: Any) -> None:
    """200 and 503 follow the health while the backends are drained in all services, one after the
    other; HTTP/1.0 without a Host is answered.
    """
    net, running = web()
    here = net.balancer
    program = [sys.executable, "-m", "paraglider", "-c", str(running.config), "set", "backend"]

    def probe(path: str) -> tuple[int, str]:
        status, _, body = ask_page(here, path)
        return status, body.decode().partition("\n")[0]

    def expect(status: int, word: str) -> None:
        wait_until(lambda: probe("/readyz") == (status, word), running.log)
        assert probe("/healthz") == (status, word)

    expect(200, "healthy")
    with raw(here) as headless:
        headless.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
        assert answer(headless)[0] == 200
    for number, status, word in ((1, 200, "healthy"), (2, 200, "degraded"), (3, 503, "unhealthy")):
        name = backend_address(4, number)
        said = here.run([*program, f"*/{name}", "state", "drain"]).stdout
        assert said == f"web4/{name}: state drain, weight 1\n"
        expect(status, word)
    assert probe("/readyz?of=node") == (200, "healthy")


def test_readers_that_misbehave(web: Any, ask: Any) -> None:
    """A hundred megabytes, incomplete requests, and a thousand unread streams are bounded; the next
    reader is served as soon as some are closed, and traffic continues.
    """
    net, running = web()
    here = net.balancer
    get(here, "/api/v1/status")
    page = children(running)["paraglider/http"]
    with raw(here) as big:
        big.sendall(request("/api/v1/status", "Content-Length: 100000000", method="POST"))
        sent = 0
        with contextlib.suppress(OSError):
            while sent < 100_000_000:
                sent += big.send(b"x" * 1_000_000)
        assert sent < 100_000_000
    crowd: list[socket.socket] = []
    for number in range(1000):
        one = raw(here)
        crowd.append(one)
        with contextlib.suppress(OSError):  # one too many is let go at once
            one.sendall(request("/events") if number % 2 else b"GET /eve")
    for one in crowd:
        one.setblocking(False)
    wait_until(lambda: _refused(crowd) > 800)
    descriptors = len(list(Path(f"/proc/{page}/fd").iterdir()))
    assert descriptors < 200
    assert ask(net, "tcp", VIP[4], 80, 10).total() == 10
    for one in crowd:
        one.close()
    # The sample may be of the moment when not every process had begun.
    wait_until(lambda: get(here, "/api/v1/health")["healthy"])
    assert children(running)["paraglider/http"] == page


def _refused(crowd: list[socket.socket]) -> int:
    """How many of ``crowd`` were refused or disconnected."""
    count = 0
    for one in crowd:
        try:
            found = one.recv(64, socket.MSG_PEEK)
        except BlockingIOError:
            continue
        except OSError:
            found = b""
        count += not found or b" 503 " in found
    return count


def test_changes_need_the_token(web: Any) -> None:
    """With `admin`, a client with the token can drain and set weights, only from the page itself;
    the token's file is root's, and removed with the daemon.
    """
    net, running = web(admin=True)
    here = net.balancer
    path = running.config.parent.parent / "stats.token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    token = path.read_text().strip()
    change = f"/api/v1/backends/web4/{FIRST}"
    good = (f"X-Paraglider-Token: {token}", f"Origin: http://{HOST}", "Sec-Fetch-Site: same-origin")
    body = '{"state": "drain", "weight": 3}'
    for headers, expected in (
        ((), 400),
        (("X-Paraglider-Token: wrong",), 400),
        ((good[0], "Origin: http://evil.example"), 403),
        ((good[0], "Sec-Fetch-Site: cross-site"), 403),
        ((good[0], "Host: evil.example"), 421),
    ):
        assert ask_page(here, change, *headers, method="POST", body=body)[0] == expected
    assert get(here, "/api/v1/backends")[0]["state"] == "ready"
    status, _, text = ask_page(here, change, *good, method="POST", body=body)
    assert (status, json.loads(text)["state"], json.loads(text)["weight"]) == (200, "drain", 3)

    def drained() -> bool:
        row = get(here, "/api/v1/backends")[0]
        return row["state"] == "drain" and row["weight"] == 3 and row["drain"]["left"] == 0

    wait_until(drained)
    mistakes = (('{"state": "gone"}', "no state"), ("[]", "no JSON object"), ("{}", "nothing is"))
    for wrong, words in mistakes:
        status, _, text = ask_page(here, change, *good, method="POST", body=wrong)
        assert status == 400
        assert words in json.loads(text)["error"]
    assert token not in running.log()
    running.stop()
    assert not path.exists()


def test_a_page_that_dies_and_one_that_cannot_be(web: Any, ask: Any) -> None:
    """The socket outlives the process of the page, and so does the balancer. A port in use is an
    error at the start that names the holder; so is an address of another host.
    """
    net, running = web(trouble=True)
    get(net.balancer, "/api/v1/status")
    os.kill(children(running)["paraglider/http"], signal.SIGKILL)
    assert ask(net, "tcp", VIP[4], 80, 3).total() == 3
    wait_until(lambda: get(net.balancer, "/api/v1/health")["problems"] == [], running.log)
    running.stop()
    for bind, words in (
        (HOST, f"`stats.bind`: {HOST} is in use by process {os.getpid()} ("),
        (f"10.9.9.9:{PORT}", "cannot be listened on: Cannot assign requested address; name an"),
    ):
        document = yaml.safe_load(running.config.read_text())
        document["stats"]["bind"] = bind
        running.config.write_text(yaml.safe_dump(document, sort_keys=False))
        with (
            net.balancer.entered(),
            socket.create_server(("127.0.0.1", PORT)),
            pytest.raises(PlatformError) as raised,
        ):
            running.start()
        assert "ended with exit 1" in str(raised.value)
        assert words in str(raised.value)
        assert running.stop(signal.SIGTERM) == 1  # it had ended by itself


def test_other_balancers(web: Any) -> None:
    """The process asks their pages, though it is confined: its own, which is shown once, and one of
    which nobody knows.
    """
    net, _ = web(peers=[f"http://{HOST}", "http://127.0.0.1:9"])

    def nodes() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = get(net.balancer, "/api/v1/peers")["nodes"]
        return found

    wait_until(lambda: [row["error"] for row in nodes()] == [None, "connection refused"])
    wait_until(lambda: nodes()[0]["health"] == "healthy")
    assert nodes()[1]["node"] == "127.0.0.1:9"
    (row,) = (r for r in get(net.balancer, "/api/v1/workers") if r["role"] == "http")
    assert row["filter"] == "http-peers"
