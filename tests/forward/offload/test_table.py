"""Golden files: a configuration in ``golden/NAME.yaml``, its tables in ``NAME.nft4`` and ``.nft6``.

The extra key ``hairpin`` of a configuration names the interfaces towards the backends. After a
deliberate change, ``UPDATE_GOLDEN=1 pytest tests/forward`` rewrites the files; read the difference
before committing.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml

from paraglider.config.model import Config
from paraglider.forward.offload.table import offload_table, states_text
from paraglider.netfilter.nft import Nft
from paraglider.netfilter.rules.marks import backend_marks
from paraglider.netfilter.rules.nft import NFT_FAMILY, KernelTable, removal_text

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = ("offload", "mixed")
SEED = 0x0C0FFEE0


def content(name: str) -> tuple[Config, tuple[str, ...]]:
    """A golden configuration and its interfaces."""
    document = yaml.safe_load((GOLDEN / f"{name}.yaml").read_text(encoding="utf-8"))
    del document["cores"]
    hairpin = tuple(document.pop("hairpin"))
    return Config.model_validate(document), hairpin


def table(name: str, family: int) -> KernelTable | None:
    """The table of a golden configuration."""
    config, hairpin = content(name)
    return offload_table(config, family, hairpin, SEED)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("name", NAMES)
def test_the_text_is_the_golden_one(name: str, family: int) -> None:
    """The text equals the reviewed file, byte for byte."""
    file = GOLDEN / f"{name}.nft{family}"
    found = table(name, family)
    text = found.text if found is not None else ""
    if os.environ.get("UPDATE_GOLDEN"):
        file.unlink(missing_ok=True)
        if text:
            file.write_text(text, encoding="utf-8")
    held = file.read_text(encoding="utf-8") if file.exists() else ""
    assert text == held


@pytest.mark.parametrize("name", NAMES)
def test_base_chains_are_added_and_flushed_but_never_deleted(name: str) -> None:
    """Removing one would drop all packets that wait in a queue of the namespace."""
    found = table(name, 4)
    assert found is not None
    assert "delete" not in found.text
    assert set(re.findall(r"^(\w+)", found.text, re.MULTILINE)) == {"add", "flush"}


@pytest.mark.parametrize("family", [4, 6])
def test_the_marks_are_those_that_workers_answer(family: int) -> None:
    """Every backend of every service of the family is in the maps by its mark, and no other."""
    config, _ = content("offload")
    marks = backend_marks(config)
    wanted = sorted(m for s in config.services if s.family == family for m in marks[s.name])
    found = table("offload", family)
    assert found is not None
    assert list(found.marks) == wanted
    elements = re.findall(r"(?:backends|addresses) \{ (0x\w+) :", found.text)
    assert sorted(int(mark, 16) for mark in elements) == wanted


def test_without_offload_there_is_no_table() -> None:
    """A family whose services are all of other forwards has none."""
    service = {"name": "a", "vip": "192.168.0.11/24", "protocol": "tcp", "backends": ["10.0.0.1"]}
    config = Config.model_validate({"services": [service]})
    assert offload_table(config, 4, (), SEED) is None
    assert offload_table(config, 6, (), SEED) is None


def test_a_backend_of_weight_0_is_in_the_maps_and_not_in_the_hash() -> None:
    """Its flows are still translated; the kernel's own choice passes it over."""
    config, _ = content("offload")
    mark = f"0x{backend_marks(config)['web'][2]:08x}"
    found = table("offload", 4)
    assert found is not None
    with_mark = [line.split()[1:5:3] for line in found.text.splitlines() if mark in line]
    maps = ("backends", "sources", "requests", "replies")
    assert with_mark == [["element", name] for name in maps]


@pytest.mark.root
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("name", NAMES)
def test_the_kernel_takes_the_text(name: str, family: int) -> None:
    """nft and the kernel accept every golden text, twice, and its removal."""
    found = table(name, family)
    if found is not None:
        Nft().rehearse(found.text + found.text + removal_text(family))


def test_ports_of_datagrams() -> None:
    """Those of UDP services, each range; TCP connections end by an answered RST."""
    found = table("offload", 4)
    assert found is not None
    assert found.datagrams == (("192.168.0.11", 5060, 5060), ("192.168.0.11", 10000, 20000))
    found = table("offload", 6)
    assert found is not None
    assert found.datagrams == (("2001:db8::11", 1, 65535),)


@pytest.mark.root
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("ready", ["some", "none"])
def test_the_hash_of_other_weights(family: int, ready: str) -> None:
    """The kernel accepts it in an existing table; a backend without weight is not in it."""
    config, _ = content("offload")
    found = table("offload", family)
    assert found is not None
    weights = {mark: 2 * (ready == "some" and n > 0) for n, mark in enumerate(found.marks)}
    text = states_text(config, family, SEED, weights)
    Nft().rehearse(found.text + text)
    named = {int(mark, 16) for mark in re.findall(r": (0x\w+)", text)}
    assert named == {mark for mark, weight in weights.items() if weight}


def test_the_hash_has_the_seed_of_the_service_and_no_order() -> None:
    """A service that hashes has its own, any other the one of the file or the host. The order of
    the backends in the file decides nothing.
    """
    hosts = ["10.0.0.9", {"address": "10.0.0.10", "weight": 2}, {"address": "10.0.0.1", "port": 81}]
    texts = []
    for backends in (hosts, hosts[::-1]):
        base = {"vip": "192.0.2.1/24", "protocol": "tcp", "forward": "offload"}
        services = [
            {
                **base,
                "name": "a",
                "ports": 80,
                "backends": backends,
                "strategy": "maglev",
                "seed": 9,
            },
            {**base, "name": "b", "ports": 443, "backends": backends},
        ]
        config = Config.model_validate({"services": services})
        marks = backend_marks(config)
        weights = {mark: 1 for each in marks.values() for mark in each}
        texts.append(states_text(config, 4, SEED, weights))
        rules = [line for line in texts[-1].splitlines() if "paraglider unanswered ip" in line]
        assert all(f"seed 0x{n:08x}" in rule for n, rule in zip((9, SEED), rules, strict=True))
        of_a = dict(
            zip((str(b.address) for b in config.services[0].backends), marks["a"], strict=True)
        )
        ends = [
            f"{n} : 0x{of_a[a]:08x}" for n, a in enumerate(("10.0.0.1", "10.0.0.9", "10.0.0.10"))
        ]
        assert f"map {{ {', '.join(ends)} }}" in texts[-1]
    assert texts[0] == texts[1]


@pytest.mark.root
@pytest.mark.parametrize("family", [4, 6])
def test_connections_of_the_lost_are_not_adopted(family: int) -> None:
    """The chain that adopts is loaded with the states, if any service adopts."""
    vip, begin = {4: ("192.0.2.1", "10.0.0."), 6: ("2001:db8::1", "fd00::")}[family]
    backends = [f"{begin}{number}" for number in (1, 2)]
    service = {"name": "a", "vip": vip, "protocol": "tcp", "ports": 80, "forward": "offload"}
    found = {}
    for adopt in ("auto", "never"):
        changes = {"strategy": "maglev", "seed": 7, "adopt": adopt, "backends": backends}
        config = Config.model_validate({"services": [{**service, **changes}]})
        made = offload_table(config, family, (), SEED)
        assert made is not None
        lost = made.marks[:1]
        text = states_text(config, family, SEED, dict.fromkeys(made.marks, 1), lost)
        Nft().rehearse(made.text + text)
        chain = f"add rule {NFT_FAMILY[family]} paraglider adopting "
        found[adopt] = [line[len(chain) :] for line in text.splitlines() if line.startswith(chain)]
        assert (f"ct mark {{ 0x{lost[0]:08x} }} ct mark set 0x0 return" in found[adopt]) == bool(
            found[adopt]
        )
    assert found["auto"]
    assert not found["never"]
