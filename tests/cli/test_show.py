"""`paraglider show`: the requests to the daemon, and the output as text and JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from paraglider.host.ownership import STARTED
from paraglider.host.static_status import StaticBackend, StaticService

pytestmark = pytest.mark.root  # the socket is root's

NAMES = ("flows", "inactive", "conns", "packets_in", "packets_out", "bytes_in", "bytes_out")
COUNTS = dict.fromkeys(NAMES, 7)
SERVICE = {
    "service": "web",
    "vip": "2001:db8::11",
    "protocol": "tcp",
    "ports": "80",
    "forward": "nat",
    "strategy": "rr",
    "affinity": "flow",
    "backends": 1,
    "ready": 1,
    **COUNTS,
}
READY = {"state": "ready", "since": "x", "seconds": 5.0, "kept": True}
BACKEND = {
    "service": "web",
    "backend": "fd00::1",
    "state": "ready",
    "seconds": 1.0,
    "weight": 1,
    "check": None,
    **COUNTS,
}


def status(services: list[Any], **node: Any) -> dict[str, Any]:
    """The status of a daemon with ``services`` and one backend."""
    return {"services": services, "backends": [BACKEND], "node": {**READY, **node}}


@pytest.fixture(autouse=True)
def _no_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """This host is not set up by `paraglider start`."""
    monkeypatch.setattr("paraglider.cli.show.owner_of", lambda _path: None)


def test_backends_are_the_default(daemon: Any, say: Any) -> None:
    """One request, so that services and backends are of the same instant."""
    daemon.answers["/v1/status"] = (200, status([SERVICE]))
    code, out, err = say("show")
    assert (code, err) == (0, "")
    assert "web tcp [2001:db8::11]:80 nat rr 1 of 1 ready" in out
    assert "  -> fd00::1       ready " in out
    assert daemon.asked == [("GET", "/v1/status", None)]


@pytest.mark.parametrize("what", ["services", "backends"])
def test_why_a_worker_decides(daemon: Any, say: Any, what: str) -> None:
    """Below the table, where the kernel should; else there is nothing below."""
    service = {**SERVICE, "carrier": "bpf", "decided_by": "python", "why_python": "too many ports"}
    for decide, line in (("auto", "a worker decides for web: too many ports"), ("python", None)):
        rows = [{**service, "decide": decide}]
        daemon.answers["/v1/status"] = (200, status(rows))
        lines = say("show", what)[1].splitlines()
        assert (lines[-1] == line) == (line is not None)
        assert ("worker decides" in "".join(lines)) == (line is not None)


@pytest.mark.parametrize("what", ["services", "backends", "workers", "flows"])
def test_json_is_the_answer(daemon: Any, say: Any, what: str) -> None:
    """With --json the daemon's answer is printed unchanged."""
    answer: dict[str, object] = {"any": ["thing", 1]}
    daemon.answers[f"/v1/{what}"] = (200, answer)
    code, out, _ = say("show", what, "--json")
    assert (code, json.loads(out)) == (0, answer)
    assert daemon.asked == [("GET", f"/v1/{what}", None)]


def test_a_service(daemon: Any, say: Any) -> None:
    """Its line and its backends, and no others; the same as JSON."""
    other = {**SERVICE, "service": "mail", "vip": "2001:db8::12"}
    answer = status([other, SERVICE])
    answer["backends"] += [{**BACKEND, "service": "mail", "backend": "fd00::9"}]
    daemon.answers["/v1/status"] = (200, answer)
    code, out, err = say("show", "web")
    assert (code, err) == (0, "")
    assert "web tcp [2001:db8::11]:80 nat rr 1 of 1 ready" in out
    assert "fd00::1" in out
    assert "mail" not in out
    assert "fd00::9" not in out
    code, out, _ = say("show", "web", "--json")
    assert (code, json.loads(out)) == (0, {**SERVICE, "backends": [BACKEND]})


@pytest.mark.parametrize(
    ("word", "hint"),
    [("wbe", "did you mean web? "), ("backend", "did you mean backends? "), ("zzz", "")],
)
def test_no_service(daemon: Any, say: Any, word: str, hint: str) -> None:
    """The nearest word or name, and all of them."""
    daemon.answers["/v1/status"] = (200, status([SERVICE]))
    assert say("show", word) == (
        1,
        "",
        (
            f"paraglider: there is no service called `{word}`; {hint}write services, backends,"
            " flows, workers, or one of the services: web\n"
        ),
    )


def test_services_and_workers(daemon: Any, say: Any) -> None:
    """A line each."""
    daemon.answers["/v1/status"] = (200, status([SERVICE]))
    process = {"name": "api", "up": True, "pid": 9, "seconds": 1.0}
    daemon.answers["/v1/workers"] = (200, [process])
    assert "tcp [2001:db8::11]:80" in say("show", "services")[1]
    assert " up " in say("show", "workers")[1]


@pytest.mark.parametrize("what", ["services", "backends"])
def test_a_drained_balancer(daemon: Any, say: Any, what: str) -> None:
    """A line below the table, until it is ready."""
    line = "this balancer: draining for 5s, not to be announced until `paraglider node ready`"
    for state, shown in (("drain", True), ("ready", False)):
        daemon.answers["/v1/status"] = (200, status([SERVICE], state=state))
        assert (line in say("show", what)[1].splitlines()) is shown


def test_more_flows_than_are_listed(daemon: Any, say: Any) -> None:
    """A note below the list says so."""
    daemon.answers["/v1/flows"] = (200, {"flows": [], "more": True})
    code, out, err = say("show", "flows")
    assert (code, len(out.splitlines())) == (0, 1)
    assert "there are more flows; filter them" in err


def test_no_daemon(say: Any, tmp_path: Any) -> None:
    """The -c after the command is used; without a listener it prints one line and exits with 1."""
    file = tmp_path / "other.conf"
    file.write_text("control: {socket: /run/no-such.sock}\n")
    code, out, err = say("show", "-c", str(file))
    assert (code, out) == (1, "")
    assert err.startswith("paraglider: no paraglider answers at /run/no-such.sock; start it")


def test_a_service_that_start_set_up(say: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name too; the words show all of them."""
    backends = (StaticBackend("10.0.0.1", None, 1, 1.0, 0, 0, 0, 0, 0),)
    found = [StaticService(n, "192.0.2.1", "tcp", "80", "rr", "flow", backends) for n in ("a", "b")]
    monkeypatch.setattr("paraglider.cli.show.owner_of", lambda _path: STARTED)
    monkeypatch.setattr("paraglider.cli.show_static.started_services", lambda _families: found)
    names = [row["name"] for row in json.loads(say("show", "services", "--json")[1])["services"]]
    assert names == ["a", "b"]
    names = [row["name"] for row in json.loads(say("show", "b", "--json")[1])["services"]]
    assert names == ["b"]
    code, out, err = say("show", "c")
    assert (code, out) == (1, "")
    assert err.startswith("paraglider: there is no service called `c`; write services, backends")
