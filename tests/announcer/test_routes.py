"""Tests of ``paraglider.announcer.routes``: what holds for each VIP. The clock is an argument.

The property that matters to routers is checked against flaps of any kind: few changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from itertools import chain, pairwise
from math import inf
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paraglider.announcer.routes import Policy, VipChange, VipRoute, VipRoutes, VipStatus
from paraglider.config.announce import AnnounceConfig
from paraglider.health.flapping import PERIOD

VIP, OTHER = ip_address("203.0.113.11"), ip_address("2001:db8::11")
WELL: Final = VipStatus(True, "healthy", "")
ILL: Final = VipStatus(False, "unhealthy", "service web: no backend takes new flows")
DRAINED: Final = VipStatus(False, "draining", "this balancer is drained")
UP, WORSE, DOWN = "announced", "not-preferred", "withdrawn"
#: an event: a status that the daemon tells, or that it is gone (None)
Events = Iterable[tuple[float, VipStatus | None]]


def policy(**keys: object) -> Policy:
    """Of a file with these keys."""
    return Policy.of(AnnounceConfig.model_validate(keys))


def play(events: Events, wanted: Policy | None = None, until: float = inf) -> list[VipChange]:
    """What is said of one VIP, with the seconds in place of the address."""
    routes, found, now = VipRoutes(wanted or policy(), [VIP], 0.0), [], 0.0
    left = sorted(events, key=lambda event: event[0])
    while True:
        now = min([now + routes.wait(now), *(at for at, _ in left[:1])])
        if now > until or now == inf:
            return found
        while left and left[0][0] <= now:
            _, status = left.pop(0)
            if status is None:
                routes.gone("no paraglider answers", now)
            else:
                routes.heard({VIP: status}, now, whole=True)
        found += [change._replace(vip=now) for change in routes.turn(now)]  # type: ignore[arg-type]


def said(*arguments: object, **keys: object) -> list[tuple[float, str]]:
    """The same in few words."""
    played = play(*arguments, **keys)  # type: ignore[arg-type]
    return [(round(float(change.vip), 3), change.route.value) for change in played]  # type: ignore[arg-type]


def test_a_well_vip_is_announced_when_it_has_been_well_for_a_while() -> None:
    """And what gets worse is said at once, with its reason."""
    assert said([(2, WELL)]) == [(3, UP)]
    first, second = play([(2, WELL), (5, ILL)])
    assert second == (5, VipRoute.NOT_PREFERRED, ILL.why)
    assert first.why == "healthy"
    assert said([(0, WELL)], policy(rise=0)) == [(0, UP)]


def test_at_the_start_everything_is_said_once() -> None:
    """Routes that an announcer before this one left stay until more is known."""
    assert said([(0, ILL)]) == [(0, WORSE)]
    assert said([(0, ILL)], policy(ill="withdraw")) == [(0, DOWN)]
    assert said([(0.5, None)]) == [(0.5, DOWN)]
    assert said([]) == []
    assert said([(0, None), (1.5, WELL)], policy(gone=2)) == [(2.5, UP)]
    assert said([(0, None)], policy(gone="prefer_not")) == [(0, DOWN)]


@pytest.mark.parametrize(
    ("gone", "expected"),
    [
        ("withdraw", [(1, UP), (10, DOWN), (13, UP)]),
        ("prefer_not", [(1, UP), (10, WORSE), (13, UP)]),
        (1.5, [(1, UP), (11.5, DOWN), (13, UP)]),
        (5, [(1, UP)]),
    ],
)
def test_a_daemon_that_is_gone_and_back(gone: object, expected: list[tuple[float, str]]) -> None:
    """Of what it told before nothing counts any more."""
    assert said([(0, WELL), (10, None), (12, WELL)], policy(gone=gone)) == expected


def test_what_was_not_announced_stays_so_while_the_daemon_is_gone() -> None:
    """As far as that: a withdrawn VIP does not come back as one that is not preferred."""
    events = [(0, ILL), (5, None)]
    assert said(events, policy(ill="withdraw", gone="prefer_not")) == [(0, DOWN)]
    assert said(events, policy(gone="prefer_not")) == [(0, WORSE)]
    assert said(events) == [(0, WORSE), (5, DOWN)]


def test_a_drain_and_a_restart() -> None:
    """As the unit does it: drained, gone, back. Nothing of it is a fall, however often."""
    events: list[tuple[float, VipStatus | None]] = [(0, WELL)]
    for begin in (10, 20, 30, 40):
        events += [(begin, DRAINED), (begin + 3, None), (begin + 5, WELL)]
    rounds = [[(b, WORSE), (b + 3, DOWN), (b + 6, UP)] for b in (10, 20, 30, 40)]
    assert said(events) == [(1, UP), *chain(*rounds)]


def test_twenty_flaps_in_a_minute_are_three_changes() -> None:
    """A backend that comes and goes; it is announced again a minute after the second fall."""
    flaps = [(10 + 1.5 * n, ILL if n % 2 == 0 else WELL) for n in range(40)]
    assert said([(0, WELL), *flaps]) == [(1, UP), (10, WORSE), (12.5, UP), (13, WORSE), (73, UP)]
    changes = play([(0, WELL), *flaps], policy(rise=0), until=70.0)
    assert len(changes) == 41


def test_a_daemon_that_keeps_dying_is_not_believed() -> None:
    """The third time in a minute; until then each return is believed."""
    events = [(0, WELL), *((10 + 5 * n, None if n % 2 == 0 else WELL) for n in range(6))]
    expected = [(10, DOWN), (16, UP), (20, DOWN), (26, UP), (30, DOWN), (35, WORSE), (90, UP)]
    assert said(events) == [(1, UP), *expected]
    assert [change.why for change in play(events)][-2] == "it flaps, and is held for 55 s"
    withdrawn = policy(ill="withdraw")
    assert said(events, withdrawn) == [(1, UP), *(e for e in expected if e[1] != WORSE)]


STATUS = st.sampled_from([WELL, WELL, ILL])


@settings(deadline=None)
@given(flaps=st.lists(st.tuples(st.floats(100.0, 160.0), STATUS), max_size=60))
def test_a_vip_that_was_well_changes_three_times_a_minute_at_most(
    flaps: list[tuple[float, VipStatus]],
) -> None:
    """Whatever its backends do in that minute."""
    assert len(play([(0, WELL), *flaps], until=160.0)) <= 1 + 3


@settings(deadline=None)
@given(
    events=st.lists(
        st.tuples(st.floats(0.0, 600.0), st.sampled_from([WELL, ILL, DRAINED, None])), max_size=80
    ),
    keys=st.fixed_dictionaries(
        {
            "ill": st.sampled_from(["prefer_not", "withdraw"]),
            "gone": st.sampled_from(["prefer_not", "withdraw", 3.0]),
            "rise": st.sampled_from([0.0, 1.0, 5.0]),
        }
    ),
)
def test_it_ends_as_the_last_word_was(
    events: list[tuple[float, VipStatus | None]], keys: dict[str, object]
) -> None:
    """No change is the same again, none is late but by the waits, and the last is right."""
    wanted = policy(**keys)
    played = play(events, wanted)
    kinds = [change.route for change in played]
    assert all(one is not other for one, other in pairwise(kinds))
    last = max(events, key=lambda event: event[0], default=(0.0, WELL))
    ties = {status for at, status in events if at == last[0]}
    if len(ties) != 1:
        return
    if last[1] is None:
        assert kinds[-1] is not VipRoute.ANNOUNCED
    elif last[1].announce:
        assert kinds[-1] is VipRoute.ANNOUNCED
    else:
        assert kinds[-1] is wanted.ill


@given(flaps=st.lists(st.floats(0.0, 300.0), max_size=60))
def test_falls_are_rare_in_any_minute(flaps: list[float]) -> None:
    """Two at most, however its backends flap, and for however long."""
    events = [(at, ILL if n % 2 == 0 else WELL) for n, at in enumerate(sorted(flaps))]
    played = play([(0, WELL), *events])
    falls = [
        float(change.vip)  # type: ignore[arg-type]
        for before, change in pairwise(played)
        if before.route is VipRoute.ANNOUNCED
    ]
    assert all(third - first >= PERIOD for first, third in zip(falls, falls[2:], strict=False))


def test_vips_have_nothing_to_do_with_each_other() -> None:
    """One that is ill changes no other; one that the daemon does not know is withdrawn."""
    routes = VipRoutes(policy(), [VIP, OTHER], 0.0)
    routes.heard({VIP: WELL, OTHER: WELL}, 0.0, whole=True)
    assert {change.vip for change in routes.turn(1.0)} == {VIP, OTHER}
    routes.heard({OTHER: ILL}, 2.0, whole=False)
    assert routes.turn(2.0) == [VipChange(OTHER, VipRoute.NOT_PREFERRED, ILL.why)]
    routes.heard({VIP: WELL}, 3.0, whole=True)
    assert routes.turn(3.0) == [
        VipChange(OTHER, VipRoute.WITHDRAWN, "the daemon does not announce it")
    ]


def test_nothing_new_costs_nothing() -> None:
    """The daemon tells twice a second that it lives."""
    routes = VipRoutes(policy(), [VIP], 0.0)
    routes.heard({VIP: WELL}, 0.0, whole=True)
    routes.turn(1.0)
    routes.heard({}, 1.5, whole=False)
    assert routes.wait(1.5) == inf


def test_another_file() -> None:
    """VIPs that left it are withdrawn; new ones are known already, and wait as others do."""
    routes = VipRoutes(policy(), [VIP], 0.0)
    routes.heard({VIP: WELL, OTHER: WELL}, 0.0, whole=True)
    routes.turn(1.0)
    routes.configure(policy(rise=3.0), [OTHER], 5.0)
    assert routes.turn(5.0) == [VipChange(VIP, VipRoute.WITHDRAWN, "the file has it no more")]
    assert routes.wait(5.0) == 3.0
    assert routes.turn(8.0) == [VipChange(OTHER, VipRoute.ANNOUNCED, "healthy")]
    routes.configure(policy(), [VIP], 9.0)
    routes.configure(policy(), [VIP, OTHER], 9.0)
    assert routes.turn(9.0) == []


def test_at_the_end_everything_is_withdrawn() -> None:
    """Also what was not announced, but what was withdrawn."""
    routes = VipRoutes(policy(), [VIP, OTHER], 0.0)
    routes.heard({VIP: WELL, OTHER: ILL}, 0.0, whole=True)
    routes.turn(1.0)
    routes.end(2.0)
    why = "the announcer ends"
    assert routes.turn(2.0) == [VipChange(vip, VipRoute.WITHDRAWN, why) for vip in (VIP, OTHER)]
    assert routes.turn(3.0) == []


@pytest.mark.parametrize("plain", [None, {}, {"announce": 1}, [], {"status": "healthy"}])
def test_what_is_no_status(plain: object) -> None:
    """It is refused; words that are missing are empty."""
    with pytest.raises(ValueError, match="no state of a VIP"):
        VipStatus.of(plain)
    assert VipStatus.of({"announce": True}) == (True, "", "")
