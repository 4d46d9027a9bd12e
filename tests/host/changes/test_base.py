"""Tests of ``paraglider.host.changes.base``: the interface of changes, and the edges."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest

from paraglider.host import changes
from paraglider.host.changes.base import Change, Host

MEMBERS = [name for name, value in vars(Change).items() if inspect.isfunction(value)]
MEMBERS = [name for name in (*MEMBERS, "family", "identity") if not name.startswith("_")]


def kinds() -> Iterator[type[Any]]:
    """The classes of the package with a kind of their own."""
    for found in pkgutil.iter_modules(changes.__path__):
        module = importlib.import_module(f"{changes.__name__}.{found.name}")
        for value in vars(module).values():
            own = isinstance(value, type) and value.__module__ == module.__name__
            if own and "kind" in vars(value):
                yield value


EVERY = list(kinds())


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_every_change_has_the_whole_interface(kind: type[Any]) -> None:
    """A plan and the state take any of them."""
    names = set(dir(kind)) | {field.name for field in fields(kind)}
    assert names.issuperset(MEMBERS)


def test_kinds_are_unique() -> None:
    """A state file identifies a change by its kind."""
    named = [kind.kind for kind in EVERY]
    assert len(named) > 5
    assert sorted(named) == sorted(set(named))


def test_a_host_has_edges_of_its_own() -> None:
    """Two hosts share no interface to the kernel, so a test that replaces one does not affect
    others.
    """
    one, other = Host(), Host()
    assert len(fields(Host)) == 9
    for edge in fields(Host):
        assert getattr(one, edge.name) is not getattr(other, edge.name)
