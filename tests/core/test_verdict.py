"""The table of reasons: whole, in the order of its constants, and each with its verdict."""

from __future__ import annotations

from paraglider.core import verdict

REASONS = [name for name, _, _ in verdict.REASONS]


def test_every_constant_names_its_row() -> None:
    """The constant NO_SERVICE is the index of the row "no_service", and so on for all."""
    assert [getattr(verdict, name.upper()) for name in REASONS] == list(range(len(REASONS)))


def test_names_are_distinct() -> None:
    """No two reasons share a counter's name."""
    assert len(set(REASONS)) == len(REASONS)


def test_a_reason_passes_or_drops() -> None:
    """Every reason passes or drops, and has a meaning."""
    for name, outcome, meaning in verdict.REASONS:
        assert outcome in (verdict.PASS, verdict.DROP), name
        assert meaning, name


def test_kinds_fit_below_the_mark() -> None:
    """The kind stands in the low byte, so that a mark can stand above it."""
    kinds = (verdict.PASS, verdict.REWRITTEN, verdict.DROP, verdict.MARK)
    assert sorted(set(kinds)) == [0, 1, 2, 3]


def test_the_tables_for_the_packet_path_agree() -> None:
    """VERDICT_OF and REASON_NAMES are columns of REASONS."""
    assert list(verdict.REASON_NAMES) == REASONS
    assert list(verdict.VERDICT_OF) == [outcome for _, outcome, _ in verdict.REASONS]


def test_what_is_not_ours_passes_and_what_is_broken_drops() -> None:
    """The complete list of reasons that pass; every other one drops. Two of ours pass, because the
    local stack refuses at once, while clients would wait after a drop.
    """
    passing = {name for name, outcome, _ in verdict.REASONS if outcome == verdict.PASS}
    assert passing == {
        "no_service",
        "no_flow",
        "other_protocol",
        "other_icmp",
        "source_routed",
        "short_error",
        "refused",
        "flow_lost",
    }
