"""Tests of ``paraglider.config.backend``: the forms in which a file names a backend."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraglider.config.backend import least_ready
from paraglider.config.diagnostics import ConfigError
from paraglider.config.load import parse
from paraglider.config.model import BackendConfig, Service
from paraglider.config.types import parse_backend

SERVICE = "services:\n- {name: a, vip: 'VIP', protocol: tcp, ports: 80, backends: LIST}\n"
SERVICE_HEAD = "services: [{name: a, vip: 192.0.2.1, protocol: tcp, backends: [10.0.0.1]"


def backends(listed: str, vip: str = "192.0.2.1") -> list[tuple[str, int | None]]:
    """Address and port of each backend of a file with them ``listed``."""
    (service,) = parse(SERVICE.replace("VIP", vip).replace("LIST", listed), "f").config.services
    return [(str(each.address), each.port) for each in service.backends]


def test_address_and_port_in_one_text() -> None:
    """As HAProxy and nginx take them; an IPv6 address with a port stands in brackets, quoted."""
    assert backends("[10.0.0.1:8080, 10.0.0.2, {address: 10.0.0.3, port: 81}]") == [
        ("10.0.0.1", 8080),
        ("10.0.0.2", None),
        ("10.0.0.3", 81),
    ]
    found = backends('["[2001:db8::1]:8080", "2001:db8::2", "[2001:db8::3]"]', "2001:db8::9")
    assert found == [("2001:db8::1", 8080), ("2001:db8::2", None), ("2001:db8::3", None)]


@pytest.mark.parametrize(
    ("listed", "mistake"),
    [
        ("[10.0.0.1:99999]", "port 99999 is out of range; write a number from 1 to 65535"),
        ("[10.0.0.1:http]", "'http' is no port number; write a number from 1 to 65535"),
        ("[10.0.0.300:80]", "'10.0.0.300:80' is no ADDRESS[:PORT]; write 10.0.0.1, 10.0.0.1:8080"),
        ("[web.internal:80]", "'web.internal:80' is no ADDRESS[:PORT]; write 10.0.0.1"),
        ('["[10.0.0.1]:80"]', "'[10.0.0.1]:80': an IPv4 address stands without brackets; write"),
        ('["[fd00::1:80"]', "'[fd00::1:80' is no ADDRESS[:PORT]; write 10.0.0.1, 10.0.0.1:8080"),
    ],
)
def test_mistakes(listed: str, mistake: str) -> None:
    """At the item of the list, with the forms that there are."""
    with pytest.raises(ConfigError) as caught:
        backends(listed)
    (line,) = caught.value.lines
    assert line.partition(": ")[2].startswith(f"`backends[0]`: {mistake}")


@pytest.mark.parametrize("listed", ["[[2001:db8::1]:8080]", "\n  - [2001:db8::1]:8080\n"])
def test_brackets_without_quotes(listed: str) -> None:
    """YAML reads them as a list: the message has the quotes, at the place of the bracket."""
    text = f"services:\n- name: a\n  vip: 2001:db8::9\n  protocol: tcp\n  backends: {listed}"
    with pytest.raises(ConfigError) as caught:
        parse(text, "f")
    (line,) = caught.value.lines
    place = "5:14" if listed.startswith("[[") else "6:5"
    assert line == (
        f"f:{place}: YAML reads '[2001:db8::1]:8080' as a list, since it starts with a bracket;"
        ' put it in quotes: "[2001:db8::1]:8080"'
    )


@given(st.ip_addresses(), st.none() | st.integers(1, 65535))
def test_the_name_is_read_again(address: ipaddress.IPv4Address, port: int | None) -> None:
    """What messages and `show` call a backend is what a file may say."""
    backend = BackendConfig(address=address, port=port)
    keys = {"name": "a", "vip": "192.0.2.1", "protocol": "tcp"}
    (found,) = Service.model_validate({**keys, "backends": [backend.name]}).backends
    assert found == backend
    assert dict(parse_backend(backend.name, "")).get("port") == port


@given(
    st.text(max_size=20) | st.from_regex(r"\[?[0-9a-f.:]{1,12}\]?(:[0-9]{0,6})?", fullmatch=True)
)
def test_any_text(text: str) -> None:
    """A text is a backend, or refused with a remedy; nothing else is raised."""
    try:
        found = dict(parse_backend(text, "the shape"))
    except ValueError as error:
        refused = str(error)
    else:
        assert BackendConfig.model_validate(found).address == found["address"]
        return
    assert "; " in refused


@pytest.mark.parametrize(
    ("wanted", "backends", "least"),
    [
        ("50%", 4, 2),
        ("50%", 5, 3),
        ("50%", 1, 1),
        ("0%", 9, 0),
        ("100%", 3, 3),
        (2, 9, 2),
        (5, 3, 5),
    ],
)
def test_how_many_are_needed(wanted: int | str, backends: int, least: int) -> None:
    """A share is rounded up; a number is itself."""
    (service,) = parse(f"{SERVICE_HEAD}, min_ready: {wanted}}}]", "f").config.services
    assert service.min_ready == wanted
    assert least_ready(service.min_ready, backends) == least


@pytest.mark.parametrize("wanted", ["half", "101%", "-1", "1.5", "50 %", "true", "70000"])
def test_no_number_of_backends(wanted: str) -> None:
    """The message has both forms."""
    with pytest.raises(
        ConfigError, match="is no number of backends; write one from 0 to 65535, or"
    ):
        parse(f"{SERVICE_HEAD}, min_ready: {wanted}}}]", "f")
