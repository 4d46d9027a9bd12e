"""The cache of nf_tables listings is valid until a change."""

from __future__ import annotations

from typing import Any

import pytest

from paraglider.netfilter.generation import Memo, generation


@pytest.mark.root
def test_every_change_is_another_generation(inside: Any) -> None:
    """Changes by nft and by iptables count; listing does not."""
    first = generation()
    assert first is not None
    inside.run(["nft", "list ruleset"])
    assert generation() == first
    inside.run(["nft", "add table ip t"])
    second = generation()
    assert second != first
    inside.run(["iptables", "-A", "FORWARD", "-j", "ACCEPT"])
    assert generation() not in (first, second)


def test_it_is_read_once_a_generation() -> None:
    """One reading per key and generation; a reading during a change is repeated, and without a
    generation every reading is.
    """
    now: list[int | None] = [1]
    reads: list[str] = []
    memo = Memo(lambda: now[0])

    def get(key: str, after: int | None = None) -> str:
        def read() -> str:
            reads.append(key)
            now[0] = now[0] if after is None else after
            return f"{key} at {now[0]}"

        return memo.get(key, read)

    assert [get("a"), get("a"), get("b")] == ["a at 1", "a at 1", "b at 1"]
    assert reads == ["a", "b"]
    now[0] = 2
    assert get("a", after=3) == "a at 3"
    assert get("a") == "a at 3"
    assert reads == ["a", "b", "a", "a"]
    now[0] = None
    assert [get("a"), get("a")] == ["a at None"] * 2
    assert len(reads) == 6
