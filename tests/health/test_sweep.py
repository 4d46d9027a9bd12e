"""Tests of ``paraglider.health.sweep``: the changes that sweeps cause."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from paraglider.config.health import Failover
from paraglider.config.types import IPAddress
from paraglider.health.flapping import PERIOD
from paraglider.health.sweep import MOST, Sweep, SweepResult

A, B, STRANGER = (ipaddress.ip_address(f"10.0.0.{n}") for n in (1, 2, 9))
FAILOVER = Failover(check_cycle=30, rise=2, fall=3)
GOOD, BAD = SweepResult(True, "answers"), SweepResult(False, "port 80: connection refused")


class Story:
    """Sweeps thirty seconds apart; each returns the changes."""

    def __init__(self, failover: Failover = FAILOVER, listed: Iterable[IPAddress] = (A, B)) -> None:
        self.now = 1000.0
        self.rounds = Sweep(failover)
        self.rounds.configure(failover, listed, self.now)

    def round(self, *alive: IPAddress, bad: Iterable[IPAddress] = ()) -> list[str]:
        """A sweep in which ``alive`` serve, and ``bad`` only answer pings."""
        self.now += 30
        answers = {**dict.fromkeys(alive, GOOD), **dict.fromkeys(bad, BAD)}
        return [
            f"{'+' if change.up else '-'}{change.address}{'' if change.listed else '?'}"
            for change in self.rounds.evaluate(answers, self.now)
        ]


def test_the_dead_leave_and_come_back() -> None:
    """Three bad rounds in a row, silence or a closed port, and out; two good ones, and in."""
    story = Story()
    rounds = [story.round(A, B), story.round(A), story.round(A, bad=[B]), story.round(A)]
    assert rounds == [[], [], [], ["-10.0.0.2"]]
    assert not story.rounds.up(B)
    assert [story.round(A, B), story.round(A, B)] == [[], ["+10.0.0.2"]]


def test_listed_and_never_seen() -> None:
    """A listed host is up until the first sweep, which decides."""
    story = Story()
    assert story.rounds.up(A)
    assert story.round(A) == ["-10.0.0.2"]


def test_a_stranger_joins_and_leaves() -> None:
    """A host that serves for two rounds joins, and leaves for good after three without."""
    story = Story()
    assert [story.round(A, B, STRANGER) for _ in range(3)] == [[], ["+10.0.0.9?"], []]
    assert STRANGER in story.rounds.known
    assert [story.round(A, B) for _ in range(4)] == [[], [], ["-10.0.0.9?"], []]
    assert STRANGER not in story.rounds.known


def test_a_stranger_without_the_service_does_not_join() -> None:
    """A host that only answers pings does not join."""
    story = Story()
    assert [story.round(A, B, bad=[STRANGER]) for _ in range(4)] == [[]] * 4


def test_good_rounds_count_in_a_row() -> None:
    """Good rounds count in a row."""
    story = Story()
    rounds = [story.round(A, B, STRANGER), story.round(A, B), story.round(A, B, STRANGER)]
    assert rounds == [[], [], []]
    assert story.round(A, B, STRANGER) == ["+10.0.0.9?"]


def test_without_discover_no_host_joins() -> None:
    """Without discovery only listed hosts change."""
    story = Story(Failover(check_cycle=30, discover=False))
    assert [story.round(A, STRANGER) for _ in range(4)] == [["-10.0.0.2"], [], [], []]


def test_reload_keeps_what_is_known() -> None:
    """A backend that is down stays down when others are listed; a found one may get listed."""
    story = Story()
    story.round(A, STRANGER)
    story.round(A, STRANGER)
    later = Failover(check_cycle=10, rise=1, fall=1)
    story.rounds.configure(later, (B, STRANGER), story.now)
    assert not story.rounds.up(B)
    assert story.rounds.known == {B, STRANGER}
    assert story.round(B, STRANGER) == ["+10.0.0.2"]
    assert story.round(B) == ["-10.0.0.9"]


def test_what_an_earlier_process_knew() -> None:
    """A new checker gets the hosts that are down, and those that were discovered."""
    story = Story(listed=())
    story.rounds.configure(FAILOVER, (A, B), story.now, down={B})
    story.rounds.add_joined(STRANGER, story.now)
    assert (story.rounds.up(A), story.rounds.up(B)) == (True, False)
    assert story.rounds.known == {A, B, STRANGER}
    assert story.round(A, B, STRANGER) == []
    assert story.round(A, B, STRANGER) == ["+10.0.0.2"]


def test_a_network_full_of_answers() -> None:
    """A few hundred others are remembered, and the listed are not among those left out."""
    crowd = [ipaddress.ip_address(0x0A010000 + n) for n in range(2000)]
    story = Story()
    story.round(A, B, *crowd)
    assert len(story.round(*crowd, A, B)) == MOST
    assert story.rounds.up(A)


def test_a_crowd_that_went_leaves_room() -> None:
    """Hosts that are gone are forgotten, so that others may join."""
    crowd = [ipaddress.ip_address(0x0A010000 + n) for n in range(MOST)]
    story = Story(Failover(check_cycle=30, rise=2, fall=1))
    story.round(A, B, *crowd)
    story.round(A, B)
    story.round(A, B, STRANGER)
    assert story.round(A, B, STRANGER) == ["+10.0.0.9?"]


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=40))
def test_joins_and_leaves_alternate(history: list[tuple[bool, bool]]) -> None:
    """With any results, a host joins before it leaves, and never twice."""
    story = Story(Failover(check_cycle=1, rise=1, fall=1))
    last = "-10.0.0.9?"
    for stranger, other in history:
        changes = story.round(*([STRANGER] if stranger else []), *([B] if other else []), A)
        for change in changes:
            if change.endswith("?"):
                assert change != last
                last = change


def test_a_host_that_comes_and_goes_is_held() -> None:
    """Rounds in quick succession do not make a pool flap."""
    rounds = Sweep(Failover(check_cycle=0.1, rise=1, fall=1))
    moves = 0
    for tick in range(int(PERIOD) * 9):
        answers = {STRANGER: GOOD} if tick % 2 else {}
        moves += len(rounds.evaluate(answers, tick / 10))
    assert 2 <= moves <= 6
