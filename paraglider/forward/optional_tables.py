"""The optional nft tables, and the names of all our tables.

Lives here: ``optional_tables``, ``table_names``.
Rules: pure; the methods define their tables.
"""

from __future__ import annotations

from collections.abc import Iterator

from paraglider.config.model import Config
from paraglider.forward import openings, registry
from paraglider.forward.host_needs import NftTable


def optional_tables(config: Config, family: int, workers: int) -> Iterator[NftTable]:
    """The optional tables of ``family`` (4 or 6) for a number of ``workers``, in the order of their
    creation.
    """
    for method in registry.methods():
        yield from method.nft_tables(config, family)
    text = openings.openings_table(config, family, workers)
    if text is not None:
        yield NftTable(openings.TABLE, text, "limits of new flows", terse=True)


def table_names() -> tuple[str, ...]:
    """The names of all tables that a set-up may make, including the required ones."""
    return (*(name for method in registry.methods() for name in method.table_names), openings.TABLE)
