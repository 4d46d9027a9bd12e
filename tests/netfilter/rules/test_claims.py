"""Maps connections of conntrack to marks."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from paraglider.config.model import Config
from paraglider.config.types import Address
from paraglider.netfilter.rules.claims import Claims
from paraglider.netfilter.rules.marks import backend_marks

TCP, UDP, ICMP = 6, 17, 1
ONE, TWO = ("10.0.0.1", "10.0.0.2")
ADDRESS: TypeAdapter[Any] = TypeAdapter(Address)


def found(*services: dict[str, Any]) -> Any:
    """A function that finds the (service, backend's position) of a connection to 192.0.2.1."""
    offloaded = {"vip": "192.0.2.1/32", "protocol": "tcp", "forward": "offload"}
    made = [{"name": f"s{n}", **offloaded, **service} for n, service in enumerate(services)]
    config = Config.model_validate({"services": made})
    marks = backend_marks(config)
    claims = Claims(config.services, marks)
    owners = {m: (name, at) for name, every in marks.items() for at, m in enumerate(every)}

    def find(protocol: int, port: int, backend: str, backend_port: int) -> Any:
        ends = (ADDRESS.validate_python(text).packed for text in ("192.0.2.1", backend))
        vip, to = ends
        mark = claims.mark(protocol, vip, port, to, backend_port)
        return None if mark is None else owners[mark]

    return find


def test_the_port_selects_the_service() -> None:
    """Two services with the same backends, one with several ports: each has its own."""
    find = found(
        {"ports": 80, "backends": [ONE, TWO]}, {"ports": [443, "8000-8010"], "backends": [ONE]}
    )
    assert find(TCP, 80, TWO, 80) == ("s0", 1)
    assert find(TCP, 443, ONE, 443) == find(TCP, 8005, ONE, 8005) == ("s1", 0)
    assert find(TCP, 443, TWO, 443) is None
    assert find(TCP, 81, ONE, 81) is None
    assert find(UDP, 80, ONE, 80) is None


def test_the_narrower_service_has_its_ports() -> None:
    """In any order of the services, also if the narrower one's pool lacks the backend."""
    find = found({"backends": [ONE, TWO]}, {"ports": 80, "backends": [TWO]})
    assert find(TCP, 81, ONE, 81) == ("s0", 0)
    assert find(TCP, 80, TWO, 80) == ("s1", 0)
    assert find(TCP, 80, ONE, 80) is None


def test_a_mapped_port_is_the_backends() -> None:
    """Two backends with one address differ by it; where the port is kept it is the client's."""
    mapped = [{"address": ONE, "port": 8080}, {"address": ONE, "port": 8081}]
    find = found({"ports": 80, "backends": mapped}, {"ports": "90-91", "backends": [ONE]})
    assert find(TCP, 80, ONE, 8081) == ("s0", 1)
    assert find(TCP, 80, ONE, 80) is None
    assert find(TCP, 90, ONE, 91) is None


def test_echo_has_no_port() -> None:
    """Echo belongs to the service with `protocol: any`."""
    find = found({"protocol": "any", "ports": "80-81", "backends": [ONE]})
    assert find(ICMP, 0, ONE, 0) == ("s0", 0)
    assert find(UDP, 81, ONE, 81) == ("s0", 0)
