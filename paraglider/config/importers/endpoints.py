"""Addresses and ports as other balancers write them: with names, brackets, wildcards.

Lives here: ``port_number``, ``host``, ``host_and_port``, ``listening`` with ``ANY`` and ``ANY6``.
Rules: the names of ports are those of IANA's registry (RFC 6335) that balanced services have; the
file /etc/services of this host is not read, since the foreign file may be another host's.
"""

from __future__ import annotations

from typing import Final

from paraglider.config.types import IPAddress, parse_address
from paraglider.config.wording import shown

#: "every address of the host", of either family or of IPv6 only
ANY: Final = "*"
ANY6: Final = "[::]"
_PORTS: Final = {
    "amqp": 5672,
    "amqps": 5671,
    "bgp": 179,
    "domain": 53,
    "ftp": 21,
    "ftp-data": 20,
    "ftps": 990,
    "git": 9418,
    "http": 80,
    "http-alt": 8080,
    "https": 443,
    "imap": 143,
    "imap2": 143,
    "imaps": 993,
    "iscsi-target": 3260,
    "kerberos": 88,
    "ldap": 389,
    "ldaps": 636,
    "memcache": 11211,
    "microsoft-ds": 445,
    "mqtt": 1883,
    "ms-sql-s": 1433,
    "ms-wbt-server": 3389,
    "mysql": 3306,
    "nfs": 2049,
    "ntp": 123,
    "pop3": 110,
    "pop3s": 995,
    "postgresql": 5432,
    "radius": 1812,
    "radius-acct": 1813,
    "radsec": 2083,
    "redis": 6379,
    "rsync": 873,
    "secure-mqtt": 8883,
    "sip": 5060,
    "sip-tls": 5061,
    "sips": 5061,
    "smtp": 25,
    "smtps": 465,
    "snmp": 161,
    "snmp-trap": 162,
    "ssh": 22,
    "submission": 587,
    "submissions": 465,
    "svn": 3690,
    "syslog": 514,
    "syslog-tls": 6514,
    "telnet": 23,
    "tftp": 69,
    "webcache": 8080,
    "www": 80,
    "xmpp-client": 5222,
    "xmpp-server": 5269,
}


def port_number(text: str) -> int:
    """The port that ``text`` (a number from 0, or a name) is; raises ``ValueError`` ("what;
    remedy").
    """
    if text.isascii() and text.isdigit():
        if len(text) > 5 or int(text) > 65535:
            raise ValueError(f"port {shown(text)} is out of range; write a number up to 65535")
        return int(text)
    if text.lower() not in _PORTS:
        raise ValueError(f"the port {shown(text)} is not known by its name; write its number")
    return _PORTS[text.lower()]


def host(text: str) -> IPAddress | str:
    """The address that ``text`` is, in brackets or not; a name as it is."""
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return parse_address(inner)
    except ValueError:
        return text


def host_and_port(text: str) -> tuple[IPAddress | str, int | None]:
    """The host, an address or a name, and the port of `HOST:PORT`; None without a port.

    An IPv6 address can stand alone without brackets. Raises ``ValueError`` ("what; remedy").
    """
    alone = host(text)
    if not isinstance(alone, str) or ":" not in text:
        return alone, None
    name, _, port = text.rpartition(":")
    return host(name), port_number(port) if port else None


def listening(text: str) -> IPAddress | str:
    """The address to listen on that ``text`` is; ``ANY`` or ``ANY6`` for every one, else a name."""
    found = host(text) if text else ANY
    if isinstance(found, str) or not found.is_unspecified:
        return found
    return ANY if found.version == 4 else ANY6
