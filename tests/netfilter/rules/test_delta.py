"""The difference of two tables' texts is minimal and leads from one to the other."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraglider.config.model import Config
from paraglider.forward.offload.table import offload_table
from paraglider.netfilter.rules.delta import AT_ONCE, delta
from paraglider.netfilter.rules.nft import CARRIED, without_counters

PLACE = "ip paraglider"


def text(services: dict[int, int], **more: Any) -> str:
    """The table of services, given by the last byte of their VIP, with these
    numbers of backends.
    """
    whole = [
        {
            "name": f"s{vip}",
            "vip": f"192.0.2.{vip}/32",
            "protocol": "tcp",
            "ports": [80, 443] if vip % 2 else 80,
            "forward": "offload",
            "backends": [f"10.{vip}.{n // 250}.{n % 250 + 1}" for n in range(count)],
        }
        for vip, count in services.items()
    ]
    found = offload_table(Config.model_validate({"services": whole, **more}), 4, ("eth1",), 7)
    assert found is not None
    return found.text


class Kernel:
    """Tables as nft's commands make them, as far as ours go."""

    def __init__(self) -> None:
        self.objects: set[str] = set()
        self.filled: dict[str, list[str]] = {}

    def load(self, commands: str) -> None:
        """Run the commands; an element is never added twice, and a deleted one exists."""
        for line in commands.splitlines():
            verb, kind, *place = line.split(" ", 5)
            rest = place[3:]
            content = self.filled.setdefault(" ".join(place[:3]), [])
            if kind == "element":
                for item in rest[0].removeprefix("{ ").removesuffix(" }").split(", "):
                    if verb == "add":
                        assert item not in content
                        content.append(item)
                    else:
                        content.remove(item)
            elif kind == "rule":
                content += rest
            elif verb == "flush":
                content.clear()
            else:
                self.objects.add(line)

    def held(self) -> tuple[set[str], dict[str, list[str]]]:
        """Rules in their order, elements in none."""
        rules = {place: items for place, items in self.filled.items() if items}
        return self.objects, {
            place: items if place.split()[-1] in CHAINS else sorted(items)
            for place, items in rules.items()
        }


CHAINS = {"prerouting", "answered", "unanswered", "postrouting", "forward", "tracked", "invalid"}
some = st.dictionaries(st.integers(1, 9), st.integers(1, 4), min_size=1, max_size=5)


@given(some, some)
def test_it_leads_to_the_same_table(first: dict[int, int], second: dict[int, int]) -> None:
    """As after the whole text."""
    one, other = Kernel(), Kernel()
    for kernel in (one, other):
        kernel.load(text(first))
    one.load(text(second))
    other.load(delta(text(first), text(second)))
    assert one.held() == other.held()


def test_what_is_the_same_is_not_said() -> None:
    """Unchanged objects are left out, except those to be refilled; the trailing commands are
    unchanged.
    """
    same = text({1: 2, 2: 2})
    assert delta(same, same) == ""
    hashed = delta(same, same, ("unanswered",)).splitlines()
    assert hashed[0] == f"flush chain {PLACE} unanswered"
    assert all(line.startswith(f"add rule {PLACE} unanswered ") for line in hashed[1:])
    rest = without_counters(4, [0x51000001], CARRIED)
    assert [line for line in delta(same, same + rest).splitlines() if "delete" in line] == [
        line for line in rest.splitlines() if "delete" in line
    ]


@pytest.mark.parametrize("count", [20, 80])
def test_one_backend_more_costs_the_same_however_many_there_are(count: int) -> None:
    """Two counters, three elements, two sets of backends that answer and the chain of the hash."""
    commands = delta(text({1: count, 2: 1}), text({1: count, 2: 2})).splitlines()
    assert len([line for line in commands if " unanswered" not in line]) == 9


def test_many_elements_are_added_in_parts() -> None:
    """A line is not to be endless."""
    commands = delta(text({1: 1}), text({1: 1, 2: AT_ONCE + 1})).splitlines()
    added = [line for line in commands if line.startswith(f"add element {PLACE} addresses")]
    backends = [line for line in commands if line.startswith(f"add element {PLACE} backends")]
    assert len(added + backends) == 2
