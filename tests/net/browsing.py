"""Requests to the stats page of a balancer in a namespace, from the balancer itself."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import Any

from waiting import TIMEOUT, wait_until

from paraglider.lab.namespace import Namespace

PORT = 9777
HOST = f"127.0.0.1:{PORT}"


def raw(namespace: Namespace) -> socket.socket:
    """A connection to the stats page."""
    with namespace.entered():
        return socket.create_connection(("127.0.0.1", PORT), TIMEOUT)


def request(path: str, *headers: str, method: str = "GET", body: str = "") -> bytes:
    """The text of a request; a Host header comes with it unless there is one."""
    lines = [f"{method} {path} HTTP/1.1", *headers]
    if not any(line.lower().startswith("host:") for line in headers):
        lines.append(f"Host: {HOST}")
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", body]).encode()


def answer(one: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Status, lower-case headers and body of the response."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while part := one.recv(65536):
            data += part
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(first.split()[1]) if first else 0, headers, body


def ask_page(
    namespace: Namespace, path: str, *headers: str, method: str = "GET", body: str = ""
) -> tuple[int, dict[str, str], bytes]:
    """Make one request of the stats page."""
    with raw(namespace) as one:
        one.sendall(request(path, *headers, method=method, body=body))
        return answer(one)


def get(namespace: Namespace, path: str) -> Any:
    """The JSON at ``path``, once there is some."""

    def found() -> str | None:
        status, _, body = ask_page(namespace, path)
        assert status in (200, 503), (status, body)
        return body if status == 200 else None

    return json.loads(wait_until(found))
