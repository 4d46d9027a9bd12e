"""The client of the control socket, for the commands (stdlib http.client).

Lives here: ``ControlClient``, and ``socket_of``, which finds the socket of a configuration file.
Rules: every failure is an error with a remedy; no call waits longer than TIMEOUT.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from paraglider.config import reader
from paraglider.config.diagnostics import ConfigError
from paraglider.config.places import CONTROL_SOCKET
from paraglider.errors import OperatorError, PlatformError, as_root

#: seconds: a little more than the supervisor's longest timeout
TIMEOUT: Final = 30.0
RELOAD: Final = 310.0


class ControlClient:
    """The daemon that listens at ``path``."""

    def __init__(self, path: str = CONTROL_SOCKET, timeout: float = TIMEOUT) -> None:
        self.path = path
        self._timeout = timeout

    def get(self, what: str, **words: str | int | None) -> Any:
        """GET ``what`` from the daemon: services, backends, flows, workers, health, node."""
        given = {name: value for name, value in words.items() if value is not None}
        return self._ask("GET", f"/v1/{what}?{urlencode(given)}" if given else f"/v1/{what}")

    def post(self, what: str, body: Mapping[str, Any]) -> Any:
        """POST ``what`` to the daemon; returns its answer."""
        return self._ask("POST", f"/v1/{what}", json.dumps(body))

    def reload(self, words: Mapping[str, Any]) -> Any:
        """Reload the configuration, which may take as long as the programs that change the host;
        returns the changes.
        """
        return ControlClient(self.path, max(self._timeout, RELOAD)).post("reload", words)

    def set_backend(self, service: str, backend: str, **changes: str | int) -> Any:
        """Set the state or weight of a backend."""
        return self.post(f"backends/{quote(service, safe='')}/{quote(backend, safe='')}", changes)

    def _ask(self, method: str, target: str, body: str | None = None) -> Any:
        connection = _Connection(self.path, self._timeout)
        try:
            with contextlib.suppress(BrokenPipeError):  # it has answered before it received all
                connection.request(method, target, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = json.loads(response.read())
        except OSError as error:
            raise self._unreachable(error) from None
        except (http.client.HTTPException, ValueError):
            raise PlatformError(
                f"what answers at {self.path} is no paraglider", "see what listens there"
            ) from None
        finally:
            connection.close()
        if response.status == http.client.OK:
            return answer
        words = answer if isinstance(answer, dict) else {}
        if isinstance(words.get("lines"), list):
            raise ConfigError(map(str, words["lines"]))
        theirs = response.status < http.client.INTERNAL_SERVER_ERROR
        kind = OperatorError if theirs else PlatformError
        raise kind(str(words.get("error", response.reason)), str(words.get("remedy", "")))

    def _unreachable(self, error: OSError) -> OperatorError | PlatformError:
        if isinstance(error, FileNotFoundError | ConnectionRefusedError):
            return OperatorError(
                f"no paraglider answers at {self.path}",
                "start it, or name its configuration file with -c",
            )
        if isinstance(error, PermissionError):
            remedy = f"run it as root: {as_root('paraglider')}"
            return OperatorError(f"the control socket {self.path} is not yours", remedy)
        if isinstance(error, TimeoutError):
            return PlatformError(f"no answer from {self.path} in {self._timeout:g} s")
        return PlatformError(f"the control socket {self.path} failed: {error.strerror or error}")


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("paraglider", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """See ``http.client``."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def socket_of(file: Path) -> str:
    """The control socket that ``file`` names, else the default.

    The rest of the file may be invalid. Raises ``OperatorError`` if it cannot be read, since the
    default could be another daemon's socket.
    """
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise OperatorError(
            f"{file} cannot be read: {error.strerror}", "name the daemon's configuration file"
        ) from None
    # To read a file with thousands of backends takes longer than the request.
    data = reader.parse(text).data if "control" in text else None
    section = data.get("control") if isinstance(data, dict) else None
    path = section.get("socket") if isinstance(section, dict) else None
    return path if isinstance(path, str) else CONTROL_SOCKET
