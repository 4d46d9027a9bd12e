"""The stats page beside those of other balancers: a real one, and what only claims to be one."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest
from browsing import PORT, get
from fleet import Fleet, back_address
from processes import children
from waiting import wait_until

from paraglider.lab.namespace import Namespace

pytestmark = pytest.mark.root

OK = b"HTTP/1.0 200 OK\r\n\r\n"
SECOND = f"{back_address(4, 202)}:{PORT}"
SILENT, STRANGE, ENDLESS, ELDER = (f"{back_address(4, number)}:{PORT}" for number in (1, 2, 3, 4))
PEERS = [f"http://{back_address(4, 201)}:{PORT}", f"http://{SECOND}"]
PEERS += [f"http://{where}" for where in (SILENT, STRANGE, ENDLESS, ELDER)]


class Stranger:
    """Gives ``answer`` to whoever asks at ``where``, an address of ``host``."""

    def __init__(self, host: Namespace, where: str, answer: Callable[[socket.socket], Any]) -> None:
        with host.entered():
            self._server = socket.create_server((where.partition(":")[0], PORT))
        self._answer = answer
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):  # it is closed
            while True:
                one, _ = self._server.accept()
                with one, suppress(OSError):  # the page has closed it
                    one.recv(4096)
                    self._answer(one)

    def close(self) -> None:
        """The end."""
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()


def flood(one: socket.socket) -> None:
    """An answer that does not end."""
    one.sendall(OK)
    while True:
        one.sendall(b"[" * 100_000)


def with_page(number: int, document: dict[str, Any]) -> None:
    """The file with a page, the same on all; that of the second is older: a backend is missing."""
    document["stats"] = {"bind": f"0.0.0.0:{PORT}", "peers": PEERS}
    if number == 2:
        document["services"][0]["backends"].pop()


def test_other_balancers(tmp_path: Path) -> None:
    """The page shows what differs at one with an older file, and at one of an older version; one
    that hangs, one that answers garbage, and one whose answer does not end are rows with the
    reason, and keep nobody waiting.
    """
    with closing(Fleet(tmp_path, 2)) as fleet, ExitStack() as stack:
        fleet.balance(edit=with_page, forward="offload")
        here, running = fleet.hosts[0], fleet.balancers[0]
        page = children(running)["paraglider/http"]
        status = get(here, "/api/v1/status")
        elder = {**status, "host": "elder", "daemon": {**status["daemon"], "version": "0.0.1"}}
        fleet.backends[0].ip(f"address add {ELDER.partition(':')[0]}/24 dev eth0")
        kept: list[socket.socket] = []
        for backend, where, answer in (
            (0, SILENT, lambda one: kept.append(one.dup())),
            (1, STRANGE, lambda one: one.sendall(bytes(range(256)))),
            (2, ENDLESS, flood),
            (0, ELDER, lambda one: one.sendall(OK + json.dumps(elder).encode())),
        ):
            stack.enter_context(closing(Stranger(fleet.backends[backend], where, answer)))

        def errors() -> dict[str, str | None]:
            rows = get(here, "/api/v1/peers")["nodes"]
            return {row["node"]: row["error"] for row in rows}

        expected = {
            status["host"]: None,
            SECOND: None,
            SILENT: "no answer within 2 s",
            STRANGE: "no answer of HTTP",
            ENDLESS: "the answer is too long",
            "elder": None,
        }
        wait_until(lambda: errors() == expected, errors)
        rows = get(here, "/api/v1/peers")["services"]
        differs = {(row["service"], row["node"]): row["differs"] for row in rows}
        (fingerprint, missing) = differs.pop(("web4", SECOND))
        assert fingerprint.startswith("fingerprint ")
        assert missing == f"{back_address(4, 3)} missing"
        assert differs == {
            ("web4", status["host"]): [],
            ("web4", "elder"): ["version 0.0.1"],
            ("web6", status["host"]): [],
            ("web6", SECOND): [],
            ("web6", "elder"): ["version 0.0.1"],
        }
        for one in kept:
            one.close()
        assert children(running)["paraglider/http"] == page
        wait_until(lambda: get(here, "/api/v1/health")["healthy"])
