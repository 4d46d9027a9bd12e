"""Several balancers side by side: what each of them has, and in what they differ.

Lives here: ``Fleet``, its rows for the page and `fleet show`, and ``Finding``, the lines of `fleet
check`.
Rules: pure. A value is marked where most balancers have another one; without a majority every one
is. A balancer of an older version may lack a value: it is not compared then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from paraglider.errors import OperatorError
from paraglider.host.remote import Unreached

Row = Mapping[str, Any]

_WORDS: Final = (("node", "state"), ("health", "status"), ("daemon", "version"))
_DRAINING: Final = ("drain", "drain-down")
#: what to do about a section of the file that differs; about others: make the files equal
_REMEDIES: Final = {
    "seed": "write the same `seed` in each file",
    "services": "make the files or backend lists equal",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that the balancers do not agree about: ``what`` it is, the service if it is about
    one, and the value that each balancer has.
    """

    what: str
    service: str | None
    values: dict[str, str]
    remedy: str

    @property
    def line(self) -> str:
        """In one line: each value with the balancers that have it."""
        holders: dict[str, list[str]] = {}
        for node, value in self.values.items():
            holders.setdefault(value, []).append(node)
        parts = "; ".join(f"{value} on {', '.join(nodes)}" for value, nodes in holders.items())
        place = "" if self.service is None else f"{self.service}: "
        return f"{place}{self.what}: {parts}; {self.remedy}"

    def words(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def outliers(values: Mapping[str, object]) -> set[str]:
    """The balancers whose value is not that of most; all of them if no value has a majority."""
    counts = Counter(values.values()).most_common(1)
    if not counts or counts[0][1] == len(values):
        return set()
    common, holders = counts[0]
    if 2 * holders <= len(values):
        return set(values)
    return {node for node, value in values.items() if value != common}


class Fleet:
    """The balancers in the order in which they were named: the ``statuses`` of those that answered,
    and the ``errors`` of the others.
    """

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self.nodes = tuple(answers)
        self.statuses: dict[str, Row] = {}
        self.errors: dict[str, str] = {}
        for node, answer in answers.items():
            if isinstance(answer, Unreached):
                self.errors[node] = answer.why
            elif _is_status(answer):
                self.statuses[node] = answer
            else:
                self.errors[node] = "its answer is no status of a balancer"
        self._services: dict[str, dict[str, Row]] = {
            node: {row["service"]: row for row in status["services"]}
            for node, status in self.statuses.items()
        }
        self._backends: dict[str, dict[str, dict[str, Row]]] = {}
        for node, status in self.statuses.items():
            for row in status["backends"]:
                of = self._backends.setdefault(row["service"], {}).setdefault(node, {})
                of[row["backend"]] = row

    def obstacle(self, service: str, backend: str, state: str) -> OperatorError | None:
        """Why ``backend`` of ``service`` should not get ``state`` now, None if nothing speaks
        against it.
        """
        if self.errors:
            node, why = next(iter(self.errors.items()))
            return OperatorError(
                f"{node}: {why}; nothing was changed",
                "leave it out of --nodes, or give --force to change the others",
            )
        for node in self.nodes:
            if backend not in self._members(service, node):
                return OperatorError(
                    f"{node} has no backend {service}/{backend}; nothing was changed",
                    "`paraglider fleet check` compares the files",
                )
        for node in self.nodes if state != "ready" else ():
            if (other := self._draining_unseen(service, backend, node)) is not None:
                return OperatorError(
                    f"{other} of {service} drains at {node}; a second change would end flows",
                    f"wait until it has no flows, then `paraglider fleet maint {service} {other}`",
                )
        return None

    def node_rows(self) -> list[dict[str, Any]]:
        """One row a balancer: its version, health and drain, or why there is no answer."""
        return [self._node_row(node) for node in self.nodes]

    def service_rows(self) -> list[dict[str, Any]]:
        """One row for each service at each balancer that answered; ``differs`` has the words for
        what others have otherwise.
        """
        apart = self._apart()
        return [
            self._service_row(name, node, [*differs, *apart[node]])
            for name in self._names()
            for node, differs in self._differences(name).items()
        ]

    def findings(self) -> Iterator[Finding]:
        """Everything that the balancers do not agree about; a drained balancer is nothing of it."""
        versions = {node: each["daemon"]["version"] for node, each in self.statuses.items()}
        if outliers(versions):
            yield Finding("version", None, versions, "upgrade one balancer after the other")
        digests = {node: each["config"].get("digests", {}) for node, each in self.statuses.items()}
        for section in dict.fromkeys(name for each in digests.values() for name in each):
            values = {node: each[section] for node, each in digests.items() if section in each}
            if outliers(values):
                remedy = _REMEDIES.get(section, "make the files equal")
                yield Finding(f"`{section}` of the file", None, values, remedy)
        for name in self._names():
            differences = self._differences(name)
            if any(differences.values()):
                values = {
                    node: ", ".join(words) or "as most" for node, words in differences.items()
                }
                yield Finding("new flows", name, values, "compare states")

    def _members(self, service: str, node: str) -> Mapping[str, Row]:
        """The backends of ``service`` at ``node`` by name."""
        return self._backends.get(service, {}).get(node, {})

    def _draining_unseen(self, service: str, backend: str, node: str) -> str | None:
        """A backend besides ``backend`` that drains at ``node``, if the answers do not pass it."""
        if self._services[node][service].get("return", "direct") != "direct":
            return None
        found = self._members(service, node).items()
        names = (name for name, row in found if row["state"] in _DRAINING and name != backend)
        return next(names, None)

    def _node_row(self, node: str) -> dict[str, Any]:
        status = self.statuses.get(node)
        if status is None:
            return {"node": node, "error": self.errors[node]}
        return {
            "node": node,
            "error": None,
            "version": status["daemon"]["version"],
            "health": status["health"]["status"],
            "draining": _drained(status),
        }

    def _service_row(self, name: str, node: str, differs: list[str]) -> dict[str, Any]:
        row = self._services[node].get(name, {})
        return {
            "service": name,
            "node": node,
            **{key: row.get(key) for key in ("ready", "backends", "flows", "fingerprint")},
            "announced": self._announced(node, row),
            "conns_per_second": row.get("rates", {}).get("conns", row.get("flows_per_second")),
            "differs": differs,
        }

    def _announced(self, node: str, row: Row) -> bool | None:
        """Whether ``node`` has the VIP of ``row`` announced; None if its file does not say."""
        vips = self.statuses[node].get("announced", {})
        found = vips.get(row.get("vip"))
        return None if found is None else bool(found["announce"])

    def _apart(self) -> dict[str, list[str]]:
        """In what each whole balancer differs from most."""
        versions = {node: each["daemon"]["version"] for node, each in self.statuses.items()}
        drained = {node for node, status in self.statuses.items() if _drained(status)}
        odd = outliers(versions)
        return {
            node: [f"version {version}"] * (node in odd) + ["drained"] * (node in drained)
            for node, version in versions.items()
        }

    def _differences(self, name: str) -> dict[str, list[str]]:
        """In what the service called ``name`` differs at each balancer."""
        found: dict[str, list[str]] = {node: [] for node in self.statuses}
        known = {node: rows[name] for node, rows in self._services.items() if name in rows}
        for node in found.keys() - known.keys():
            found[node].append("no such service")
        prints = {n: row["fingerprint"] for n, row in known.items() if "fingerprint" in row}
        for node in outliers(prints):
            found[node].append(f"fingerprint {prints[node]}")
        told = {node: self._announced(node, row) for node, row in known.items()}
        for node in outliers(told):
            found[node] += [] if told[node] else ["not announced"]
        members = {node: self._members(name, node) for node in known}
        for backend in dict.fromkeys(each for of in members.values() for each in of):
            rows = {node: of[backend] for node, of in members.items() if backend in of}
            states = {n: rows[n]["state"] if n in rows else "missing" for n in members}
            weights = {node: f"weight {row['weight']}" for node, row in rows.items()}
            for values in (states, weights):
                for node in outliers(values):
                    found[node].append(f"{backend} {values[node]}")
        return found

    def _names(self) -> Iterable[str]:
        return dict.fromkeys(name for rows in self._services.values() for name in rows)


def _drained(status: Row) -> bool:
    return bool(status["node"]["state"] == "drain")


def _is_status(answer: Any) -> bool:
    """Whether ``answer`` has everything that is read here: it may come from another program."""
    try:
        rows = [
            (row["service"], row["ready"], row.get("fingerprint")) for row in answer["services"]
        ]
        names = ("service", "backend", "state", "weight")
        rows += [tuple(row[name] for name in names) for row in answer["backends"]]
        told = answer.get("announced", {}).values()
        words = (answer[part][key] for part, key in _WORDS)
        hash((*rows, *words, *(each["announce"] for each in told)))
        hash(tuple(answer["config"].get("digests", {}).values()))
        return all(isinstance(row.get("rates", {}), dict) for row in answer["services"])
    except (KeyError, TypeError, AttributeError):
        return False
