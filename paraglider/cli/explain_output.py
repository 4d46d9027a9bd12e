"""The result of `paraglider explain`, as data (`--json`) and as text.

Lives here: ``ExplainReport``, which collects the data; ``lines``, which formats it.
Rules: the text is made from the data only, so both have the same content.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from paraglider.core.client_hello import Hello
from paraglider.core.explain import Explanation
from paraglider.core.impact import Impact
from paraglider.core.strategies import NewFlow
from paraglider.forward.explain import MOST_FLOWS, Capture, ServiceImpact, Situation, spelled

_BY_TURN: Final = "no hash in one of the files, or in both: new flows go by turn"
_PACKETS: Final = {
    "to_services": "of these flows",
    "from_services": "answers of services",
    "of_others": "to and from others",
    "not_flows": "fragments, errors, other protocols",
    "not_ip": "no IP",
    "of_further_flows": f"of further flows: only {MOST_FLOWS} are listed",
}
_IMPACTS: Final = {
    Impact.KEPT: "keep their backend",
    Impact.MOVED: "would get another one if opened again",
    Impact.LOST: "lose their service or backend",
    Impact.OPEN: "go by turn",
}


class ExplainReport:
    """Collects the results in ``data``."""

    def __init__(self, situation: Situation) -> None:
        self._situation = situation
        self.data: dict[str, Any] = {}

    def daemon(self, socket: str, flows: int, more: bool) -> None:
        """Add the daemon at ``socket``, with the number of listed flows; ``more`` exist if set."""
        self.data["daemon"] = {"socket": socket, "flows": flows, "more": more}

    def flow(self, flow: NewFlow, hello: Hello | None = None) -> None:
        """Add one flow, of a client with this ClientHello."""
        self.data["flows"] = [self._explained(flow, hello)]

    def capture(self, capture: Capture) -> None:
        """Add the flows of a capture, and the counts of its packets by kind."""
        found = self.data.setdefault("flows", [])
        for each in capture.flows.values():
            seen = {"packets": each.packets, "begins": each.has_first}
            found.append({**self._explained(each.flow), **seen})
        self.data["packets"] = {name: capture.counts[name] for name in _PACKETS}

    def against(self, file: str, changes: Iterable[ServiceImpact]) -> None:
        """Add the changes of another file."""
        self.data["against"] = {"file": file, "services": [_changed(each) for each in changes]}

    def moved(self, kind: str, impacts: Mapping[str, Counter[Impact]]) -> None:
        """Add the effect on the flows of a capture ("pcap") or on live ones ("live")."""
        self.data["against"][kind] = {
            service: {
                "flows": counts.total(),
                **{impact.value: counts[impact] for impact in Impact},
            }
            for service, counts in impacts.items()
        }

    def _explained(self, flow: NewFlow, hello: Hello | None = None) -> dict[str, Any]:
        found = self._situation.explain(flow, hello)
        return {
            "protocol": flow.protocol_name,
            "client": str(flow.client_address),
            "client_port": flow.client_port,
            "vip": str(flow.vip_address),
            "port": flow.port,
            "service": found.service.name if found.service is not None else None,
            "backend": found.backend.name if found.backend is not None else None,
            "candidates": [
                {"backend": each.backend.name, "weight": each.backend.weight, "share": each.share}
                for each in found.candidates
            ],
            "why": [{"about": step.about, "text": step.text} for step in found.why]
            + self._unlisted(found),
        }

    def _unlisted(self, found: Explanation) -> list[dict[str, str]]:
        """A step for a service whose backends are not in the file."""
        service = found.service
        if service is None or service.pool.backends:
            return []
        source = self._situation.source_of(service)
        text = f"its backends come from {source}; give the daemon's states with --backends"
        return [{"about": "state", "text": text}]


def _changed(change: ServiceImpact) -> dict[str, Any]:
    moved = change.moved
    return {
        "service": change.before.name,
        "of": [spelled(piece) for piece in change.pieces],
        "becomes": change.after.name if change.after is not None else None,
        "hash_space": None
        if moved is None
        else {"moved": moved.moved, "of": moved.of, "sampled": moved.sampled},
        "shares": {
            name: {"before": before, "after": after}
            for name, (before, after) in change.shares.items()
        },
        "decides": {"before": change.decides[0], "after": change.decides[1] or None},
    }


#: what decides about new flows, as text
_DECIDERS: Final = {
    "worker": "a worker",
    "kernel": "the kernel",
    "hash": "the kernel for each packet",
}


def lines(data: Mapping[str, Any]) -> Iterator[str]:
    """The lines of a report's ``data``."""
    flows = data.get("flows", [])
    if "packets" in data:
        for flow in flows:
            yield _short(flow)
        yield from _packets(data["packets"])
    else:
        for flow in flows:
            yield from _long(flow)
    if "against" in data:
        if flows or "packets" in data:
            yield ""
        yield from _against(data["against"])
    if "daemon" in data:
        daemon = data["daemon"]
        some = f", {daemon['flows']} of its flows" if daemon["more"] else ""
        yield f"States and flows are those of the daemon at {daemon['socket']}{some}."


def _long(flow: Mapping[str, Any]) -> Iterator[str]:
    yield _head(flow)
    yield f"  {'backend':<9} {_answer(flow)}"
    for candidate in flow["candidates"]:
        share = _percent(candidate["share"])
        yield f"  {'':<9} {candidate['backend']:<22} {share:>7}  weight {candidate['weight']}"
    for step in flow["why"]:
        yield f"  {step['about']:<9} {step['text']}"


def _short(flow: Mapping[str, Any]) -> str:
    middle = "" if flow["begins"] else " (no opening captured: only a known flow goes there)"
    service = f"`{flow['service']}`, " if flow["service"] is not None else ""
    return f"{_head(flow)}: {service}{_answer(flow)}; {flow['why'][-1]['text']}{middle}"


def _head(flow: Mapping[str, Any]) -> str:
    client, vip = (_bracketed(flow[key]) for key in ("client", "vip"))
    if flow["protocol"] in ("icmp", "icmp6"):
        return f"{flow['protocol']} {flow['client']} → {flow['vip']} (echo {flow['client_port']})"
    return f"{flow['protocol']} {client}:{flow['client_port']} → {vip}:{flow['port']}"


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _answer(flow: Mapping[str, Any]) -> str:
    if flow["backend"] is not None:
        return str(flow["backend"])
    return f"one of {len(flow['candidates'])}" if flow["candidates"] else "none"


def _percent(share: float | None) -> str:
    return "?" if share is None else f"{share * 100:.1f} %"


def _packets(counts: Mapping[str, int]) -> Iterator[str]:
    yield f"{sum(counts.values())} packets:"
    for name, words in _PACKETS.items():
        if counts[name]:
            yield f"  {counts[name]:>9} {words}"


def _against(against: Mapping[str, Any]) -> Iterator[str]:
    yield f"against {against['file']}:"
    for change in against["services"]:
        yield from _change(change)
    for kind, words in (("live", "live flows"), ("pcap", "flows of the capture")):
        for service, counts in against.get(kind, {}).items():
            parts = (
                f"{counts[impact]} {text}" for impact, text in _IMPACTS.items() if counts[impact]
            )
            yield f"  `{service}`, {counts['flows']} {words}: {', '.join(parts)}"
    if "live" in against:
        yield "  A reload moves no live flow whose backend stays."


def _change(change: Mapping[str, Any]) -> Iterator[str]:
    what = f"`{change['service']}` ({', '.join(change['of'])})"
    if change["becomes"] is None:
        yield f"  {what}: removed"
        return
    if change["becomes"] != change["service"]:
        what += f", now `{change['becomes']}`"
    space = change["hash_space"]
    if space is None:
        yield f"  {what}: {_BY_TURN}"
    else:
        unit = "flows that were tried" if space["sampled"] else "entries of the table"
        share = _percent(space["moved"] / space["of"])
        counted = f"{space['moved']} of {space['of']} {unit}"
        yield f"  {what}: {share} of the hash space moves ({counted})"
    decides = change["decides"]
    if decides["before"] != decides["after"]:
        yield f"    {_DECIDERS[decides['before']]} → {_DECIDERS[decides['after']]} decides"
    for name, share in change["shares"].items():
        before, after = _percent(share["before"]), _percent(share["after"])
        yield f"    {name:<22} {before:>7} → {after:>7} of new flows"
