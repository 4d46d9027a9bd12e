"""Kernel parameters that the set-up changes: single ones, and forwarding, which changes others.

Rules: the revert skips a parameter whose interface was removed, and one that no longer has our
value, because another program has set it since.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from paraglider.host.changes.base import Action, Host
from paraglider.host.sysctl import conf, dotted


@dataclass(frozen=True, slots=True)
class SysctlChange:
    """A new value of one kernel parameter."""

    kind: ClassVar[str] = "sysctl"
    family: int
    key: str
    before: str
    after: str

    @property
    def identity(self) -> tuple[str, ...]:
        """The parameter."""
        return (self.kind, self.key)

    def describe(self, action: Action) -> str:
        """The parameter in sysctl(8)'s syntax, with both values."""
        return f"sysctl {dotted(self.key)} {_arrow(self.before, self.after, action)}"

    def script(self, host: Host) -> str:
        """sysctl(8)."""
        return _write(self.key, self.after)

    def revert_script(self, host: Host) -> str:
        """sysctl(8); empty if another program has set the parameter since."""
        if host.sysctl.read(self.key) not in (self.before, self.after):
            return ""
        return _write(self.key, self.before)

    def apply(self, host: Host) -> None:
        """Write the new value."""
        host.sysctl.write(self.key, self.after)

    def revert(self, host: Host) -> None:
        """Write the old value if the present one is ours."""
        if host.sysctl.read(self.key) == self.after != self.before:
            host.sysctl.write(self.key, self.before)


FORWARDING = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}
"""The parameters that turn forwarding on for the namespace."""

_SWITCHED = {
    # Linux, net/ipv4/devinet.c: inet_forward_change.
    4: ("net/ipv4/conf/*/forwarding", "net/ipv4/conf/all/accept_redirects"),
    # Linux, net/ipv6/addrconf.c: addrconf_fixup_forwarding.
    6: ("net/ipv6/conf/*/forwarding",),
}


@dataclass(frozen=True, slots=True)
class ForwardingChange:
    """Turns forwarding on; the kernel then changes further parameters (``switched``)."""

    kind: ClassVar[str] = "forwarding"
    family: int
    switched: dict[str, str]

    @classmethod
    def of(cls, family: int, host: Host) -> ForwardingChange:
        """The change with the kernel's present values."""
        switched: dict[str, str] = {}
        for pattern in _SWITCHED[family]:
            switched.update(host.sysctl.snapshot(pattern))
        # conf/all/forwarding is the switch itself (in IPv4 under another name): writing it in the
        # revert would change all the others again.
        switched.pop(conf(family, "all", "forwarding"), None)
        return cls(family, switched)

    @property
    def key(self) -> str:
        """The switch."""
        return FORWARDING[self.family]

    @property
    def after(self) -> str:
        """Its value when it is on."""
        return "1"

    @property
    def identity(self) -> tuple[str, ...]:
        """The switch."""
        return (self.kind, self.key)

    def describe(self, action: Action) -> str:
        """The parameter with both values."""
        text = f"sysctl {dotted(FORWARDING[self.family])} {_arrow('0', '1', action)}"
        return f"{text}, and what the kernel wrote with it" if action == "revert" else text

    def script(self, host: Host) -> str:
        """sysctl(8)."""
        return _write(FORWARDING[self.family], "1")

    def revert_script(self, host: Host) -> str:
        """sysctl(8), the switch first, because it changes the others; empty if it is off."""
        if host.sysctl.read(FORWARDING[self.family]) != "1":
            return ""
        values = {FORWARDING[self.family]: "0", **self._present(host)}
        return "".join(_write(key, value) for key, value in values.items())

    def apply(self, host: Host) -> None:
        """Turn forwarding on."""
        host.sysctl.write(FORWARDING[self.family], "1")

    def revert(self, host: Host) -> None:
        """Turn forwarding off, then restore the parameters that the kernel changed with it."""
        if host.sysctl.read(FORWARDING[self.family]) != "1":
            return
        wanted = self._present(host)
        host.sysctl.write(FORWARDING[self.family], "0")
        for key, value in wanted.items():
            if host.sysctl.read(key) != value:
                host.sysctl.write(key, value)

    def _present(self, host: Host) -> dict[str, str]:
        """The parameters' values for after the revert: those from before, except that a parameter
        that another program has set since keeps its value.
        """
        found: dict[str, str] = {}
        for key, before in self.switched.items():
            if (now := host.sysctl.read(key)) is not None:
                written = "0" if key.endswith("/accept_redirects") else "1"
                found[key] = before if now == written else now
        return found


def _arrow(before: str, after: str, action: Action) -> str:
    if action == "keep":
        return f"= {after}"
    return f"{before} -> {after}" if action == "apply" else f"{after} -> {before}"


def _write(key: str, value: str) -> str:
    return f"sysctl -w {dotted(key)}={value}\n"
