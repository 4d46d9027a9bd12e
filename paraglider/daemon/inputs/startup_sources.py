"""The lists of backends at a start: from files, and from the DNS (fresh or cached).

Lives here: ``gathered``; ``dns_names_in``, the DNS names of a configuration; functions shared with
``sources``: ``backends_of``, ``validate``, and the names of sources in messages.
Rules: a list is validated as if the configuration contained it. Sends no query and logs nothing, so
that the set-up uses it too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence

from pydantic import ValidationError

from paraglider.config.diagnostics import ConfigError
from paraglider.config.model import BackendConfig, BackendSource, Config, Service
from paraglider.config.sources import FileListing, Found, refusals, resolved
from paraglider.daemon.inputs.dns_cache import DnsCache
from paraglider.daemon.messages import DnsFailure, DnsName, DnsUpdate
from paraglider.errors import ParagliderError
from paraglider.host.dns_records import Record


def dns_names_in(config: Config) -> list[DnsName]:
    """The DNS names of the services of ``config``, without duplicates."""
    names = (dns_name_of(s.source, s.family) for s in config.services if s.source is not None)
    return list(dict.fromkeys(name for name in names if name is not None))


def backends_of(service: Service, records: Iterable[Record]) -> tuple[BackendConfig, ...]:
    """The ``records`` as backends of ``service``, which has one port; raises
    ``ValidationError``.
    """
    return tuple(
        BackendConfig(
            address=record.address,
            port=None if record.port == service.single_port else record.port,
            weight=record.weight,
        )
        for record in records
    )


def validate(
    config: Config,
    service: str,
    backends: tuple[BackendConfig, ...],
    listing: FileListing | None = None,
) -> None:
    """Raise ``ConfigError`` if ``config`` is invalid with ``backends`` in ``service``; ``listing``
    is the file that lists them, if any.
    """
    problems = refusals(config, {service: backends})
    if not problems:
        return
    lines = [f"{problem.what}; {problem.remedy}" for problem in problems]
    if listing is not None and listing.has(problems[0]):
        lines[:1] = map(str, listing.findings(problems[0]))
    raise ConfigError([first_line(lines)])


def gathered(
    config: Config,
    found: Found,
    answers: Iterable[DnsUpdate | DnsFailure],
    say: Callable[[str], None],
    kept: DnsCache,
) -> Config:
    """``config`` with the valid backends of its files (``found``) and of the DNS answers, fresh or
    cached (``kept``); ``say`` prints a line for each name without an answer.
    """
    config = resolved(config, found)
    by_name = {news.name: news for news in answers}
    for service in config.services:
        name = None if service.source is None else dns_name_of(service.source, service.family)
        if name is None:
            continue
        news = by_name.get(name)
        why = "no answer" if news is None else news.why if isinstance(news, DnsFailure) else ""
        if isinstance(news, DnsUpdate):
            try:
                config = _begun(config, service, news)
            except (ParagliderError, ValidationError) as error:
                why = " ".join(str(error).split())[:200]
            else:
                kept.add(news)
                continue
        so = f"`{service.name}` has no backends until there are some"
        if (last := kept.get(name)) is not None:
            with contextlib.suppress(ParagliderError, ValidationError):
                config = _begun(config, service, last)
                so = f"`{service.name}` begins with what it answered last"
        say(f"{shown(name)}: {why}; {so}")
    return config


def _begun(config: Config, service: Service, answer: DnsUpdate) -> Config:
    """``config`` with the answer for ``service``; raises if that is invalid."""
    backends = backends_of(service, answer.records)
    validate(config, service.name, backends)
    return resolved(config, {service.name: backends})


def first_line(lines: Sequence[str]) -> str:
    """The first of ``lines``, and how many more there are."""
    return lines[0] + (f" (and {len(lines) - 1} more)" if len(lines) > 1 else "")


def dns_name_of(origin: BackendSource, family: int) -> DnsName | None:
    """The DNS name of a source; None for a file."""
    return (
        DnsName(origin.dns, origin.server or "", 4 if family == 4 else 6)
        if origin.dns is not None
        else None
    )


def shown(name: DnsName) -> str:
    """``name`` as messages show it."""
    return f"DNS {name.name}" + (f" at {name.server}" if name.server else "")
