"""Reads listings of a running daemon: its flows, and the states of its backends.

Lives here: ``LiveState``, ``flows_in``, ``backends_in``, ``deciding_in``, which read what
`paraglider flows --json`, `show backends --json` and `show services --json` print.
Rules: listings are validated; an error names the item. No I/O.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from paraglider.config.types import parse_address, parse_endpoint, parse_port
from paraglider.config.wording import shown
from paraglider.core.flow import ICMP, ICMP6, TCP, UDP
from paraglider.core.pool import Backend, State
from paraglider.core.strategies import NewFlow
from paraglider.errors import OperatorError

PROTOCOLS: Final = {"tcp": TCP, "udp": UDP, "icmp": ICMP, "icmp6": ICMP6}


@dataclass(frozen=True, slots=True)
class LiveFlow:
    """A live flow, with the names of its service and its backend."""

    flow: NewFlow
    service: str
    backend: Backend


@dataclass(frozen=True, slots=True)
class LiveBackend:
    """The present state and weight of a backend; None: as configured."""

    service: str
    backend: Backend
    state: State
    weight: int | None


@dataclass(frozen=True, slots=True)
class LiveState:
    """The known state of a running daemon; empty if it was not queried. ``deciding`` is why workers
    decide, by service; empty where the kernel does.
    """

    flows: tuple[LiveFlow, ...] = ()
    backends: tuple[LiveBackend, ...] = ()
    deciding: Mapping[str, str] = field(default_factory=dict)

    def after_a_change(self) -> LiveState:
        """The part that survives a reload: the states."""
        return LiveState((), tuple(replace(backend, weight=None) for backend in self.backends))


NOTHING: Final = LiveState()


def flows_in(text: str, file: str) -> tuple[LiveFlow, ...]:
    """The flows of a listing; raises ``OperatorError`` that names ``file``."""
    data = _json(text, file)
    found = data.get("flows") if isinstance(data, dict) else data
    return tuple(map(_flow, _items(found, file, "paraglider flows --json")))


def backends_in(text: str, file: str) -> tuple[LiveBackend, ...]:
    """The backends of a listing; raises ``OperatorError`` that names ``file``."""
    found = _json(text, file)
    return tuple(map(_backend, _items(found, file, "paraglider show backends --json")))


def deciding_in(text: str, file: str) -> dict[str, str]:
    """``LiveState.deciding`` by a listing of services, where they have it; raises
    ``OperatorError`` that names ``file``.
    """
    found = _items(_json(text, file), file, "paraglider show services --json")
    return {
        item.text("service"): item.text("why_python") for item in found if item.has("why_python")
    }


def flow_key(client: Any, client_port: int, vip: Any, port: int) -> bytes:
    """The key of a flow by its ends; ``client`` and ``vip`` are addresses of one family."""
    ports = client_port.to_bytes(2, "big") + port.to_bytes(2, "big")
    return bytes(client.packed) + bytes(vip.packed) + ports


class _Item:
    """One item of a listing; each value must be present and of the right type."""

    def __init__(self, data: Any, place: str, source: str) -> None:
        self._data = data
        self._place = place
        self._source = source

    def invalid(self, what: str) -> OperatorError:
        return OperatorError(f"{self._place}: {what}", f"give what `{self._source}` prints")

    def text(self, key: str) -> str:
        value = self._value(key)
        if not isinstance(value, str):
            raise self.invalid(f"`{key}` is {shown(value)}, no text")
        return value

    def number(self, key: str, most: int = 65535) -> int:
        value = self._value(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
            raise self.invalid(f"`{key}` is {shown(value)}, no number from 0 to {most}")
        return value

    def has(self, key: str) -> bool:
        return isinstance(self._data, dict) and self._data.get(key) is not None

    def _value(self, key: str) -> Any:
        if not isinstance(self._data, dict) or key not in self._data:
            raise self.invalid(f"there is no `{key}`")
        return self._data[key]


def _json(text: str, file: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise OperatorError(f"{file} is nested too deep", "give a listing of the daemon") from None
    except ValueError as error:
        raise OperatorError(
            f"{file} is no JSON ({error})", "give a listing of the daemon"
        ) from None


def _items(data: Any, file: str, source: str) -> Iterator[_Item]:
    if not isinstance(data, list):
        raise OperatorError(f"{file} has no list", f"give what `{source}` prints")
    return (_Item(item, f"{file}: item {index}", source) for index, item in enumerate(data))


def _flow(item: _Item) -> LiveFlow:
    name = item.text("protocol")
    if name not in PROTOCOLS:
        raise item.invalid(f"`protocol` {shown(name)} is not known")
    try:
        client, vip = parse_address(item.text("client")), parse_address(item.text("vip"))
    except ValueError as error:
        raise item.invalid(str(error).partition(";")[0]) from None
    if client.version != vip.version:
        raise item.invalid("`client` and `vip` are of two families")
    key = flow_key(client, item.number("client_port"), vip, item.number("port"))
    flow = NewFlow(PROTOCOLS[name], key, 0.0)
    return LiveFlow(flow, item.text("service"), _named(item))


def _backend(item: _Item) -> LiveBackend:
    state = item.text("state")
    if state not in list(State):
        raise item.invalid(f"`state` {shown(state)} is not known")
    return LiveBackend(item.text("service"), _named(item), State(state), item.number("weight"))


def _named(item: _Item) -> Backend:
    """A backend by its name: ADDRESS, or ADDRESS:PORT where its port is mapped."""
    name = item.text("backend")
    try:
        return Backend(name, parse_address(name).packed)
    except ValueError:
        pass
    try:
        address, port = parse_endpoint(name)
    except ValueError as error:
        raise item.invalid(str(error).partition(";")[0]) from None
    return Backend(name, address.packed, parse_port(port))
