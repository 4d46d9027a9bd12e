"""The same file and states give the same choice in every process, on every machine.

Each process here decides about the same flows, as a worker, as a worker that adopts, and as the
kernel's tables are written. They differ in Python's hash seed, in the build (compiled or
interpreted), in the order of the file, in the number of the worker, in the host, and in the
version of Python, as far as there are others here that have what Paraglider needs.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
VERSIONS: Final = range(11, 15)

#: the choices below, over all services, states and flows: a change moves flows at an upgrade, and
#: another Python that hashes, divides or sorts otherwise shows here even where it is the only one
EXPECTED: Final = "0765a11845389a16"

#: all fingerprints of these: others would tell two releases apart that choose the same
FINGERPRINTS: Final = "27be1ea9e4f5025e"

PROGRAM: Final = """
import hashlib, json, re, sys
from pathlib import Path
import yaml
from paraglider.config.model import Config
from paraglider.core.balancer import Balancer
from paraglider.core.hmark import worker_of
from paraglider.core.service import ServiceMap
from paraglider.core.strategies import STRATEGIES, NewFlow
from paraglider.forward import registry
from paraglider.forward.offload.table import offload_table
from paraglider.forward.services import apply_states, fingerprint_of, make_services
from paraglider.forward.static.checks import kernel_only
from paraglider.forward.static.rules import static_table
from paraglider.host.journal_files import steering_of
from paraglider.host.seed import steering_seed
from paraglider.netfilter.rules.marks import backend_marks

asked = json.load(sys.stdin)
config = Config.model_validate(yaml.safe_load(asked["text"])).seeded(asked["machine"])
services = make_services(config, lambda _: True, asked["worker"], STRATEGIES)
balancer = Balancer(ServiceMap(services))
steering = steering_seed(config.seed, Path(asked["seed_file"]))
found = {"steering": [steering, steering_of(config, (0, 1))], "kernel": {}, "fingerprints": {}}
configured = {service.name: service for service in config.services}
found["steering"] += [worker_of(bytes([10, 9, n, 1]), 1024, steering, 2) for n in range(64)]

def keys(service):
    size = len(service.vip)
    for number in range(400):
        client = hashlib.blake2b(b"%d" % (number // 2), digest_size=size).digest()
        port = service.ports[0][0].to_bytes(2, "big")
        yield client + service.vip + (1024 + 7 * number).to_bytes(2, "big") + port

for state in asked["states"]:
    for service in services:
        if not service.strategy.hashes:
            continue
        wanted = {b.name: ("ready", b.weight) for b in service.pool.backends}
        wanted |= {n: (w["state"], w["weight"]) for n, w in state.items() if n in wanted}
        printed = fingerprint_of(configured[service.name], wanted)
        found["fingerprints"].setdefault(service.name, []).append(printed)
        apply_states([(service.name, service.pool)], {service.name: wanted})
        service.pool.tick(0.0)
        flows = [NewFlow(service.protocols[0], key, 0.0) for key in keys(service)]
        picked = [balancer.choose(service, flow, lambda _: False).name for flow in flows]
        found.setdefault(service.name, []).append(picked)
        if service.adoption is not None:
            adopted = [balancer.owner(flow).backend.name for flow in flows]
            found.setdefault(service.name + ", adopted", []).append(adopted)
        if service.strategy.kernel_pick:
            table = service.strategy.kernel_table(lambda _: 0, 0)
            entries = "".join(table.backends[n].name for n in table.entries)
            digest = hashlib.sha256(entries.encode()).hexdigest()
            found.setdefault(service.name + ", by BPF", []).append([digest, *table.hash_key])

every = kernel_only(config)
marks = backend_marks(every)
names = {f"0x{mark:08x}": b.name for s in every.services for mark, b in
         zip(marks[s.name], s.backends)}
for what, make, of in ("fallback", offload_table, config), ("start", static_table, every):
    for family in (4, 6):
        text = make(of, family, (), steering).text
        hashed = sorted(line for line in text.splitlines() if "jhash" in line)
        found["kernel"][f"{what} {family}"] = [
            re.sub("0x5[0-9a-f]{7}", lambda m: names[m[0]], line) for line in hashed]
json.dump(found, sys.stdout, sort_keys=True)
"""

V4: Final[list[Any]] = [
    "10.0.0.9",
    {"address": "10.0.0.10", "weight": 3},
    "10.0.0.1",
    "10.0.1.7",
    "10.0.0.77",
]
V6: Final[list[Any]] = [
    "fd00::9",
    {"address": "fd00::10", "weight": 3},
    "fd00::1",
    "fd00::a:7",
    "fd00::77",
]


def services() -> list[dict[str, Any]]:
    """Services of every hash, method that uses one, and family."""
    found: list[dict[str, Any]] = []
    for family, (vip, hosts) in enumerate((("192.0.2.1/24", V4), ("2001:db8::1/64", V6))):
        hashing: list[dict[str, Any]] = [
            {"strategy": "maglev"},
            {"strategy": "source", "seed": 18_446_744_073_709_551_615},
            {"strategy": "maglev", "forward": "offload", "seed": 3},
            {"strategy": "source", "forward": "offload"},
            {"strategy": "wrr", "forward": "offload", "affinity": "client"},
        ]
        for port, more in enumerate(hashing, start=80):
            name = f"s{family}-{port}"
            base = {"name": name, "vip": vip, "protocol": "tcp", "ports": port, "backends": hosts}
            found.append({**base, **more})
    return found


DOWN = {"state": "down", "weight": 1}
DRAIN = {"state": "drain", "weight": 1}
STATES: Final[list[dict[str, Any]]] = [
    {},
    {"10.0.0.1": DOWN, "fd00::1": DOWN},
    {"10.0.0.9": DRAIN, "10.0.1.7": {"state": "ready", "weight": 5}, "fd00::9": DRAIN},
]


def turned(value: Any) -> Any:
    """``value`` with every list and every section in the opposite order."""
    if isinstance(value, dict):
        return {key: turned(value[key]) for key in reversed(value)}
    return [turned(item) for item in reversed(value)] if isinstance(value, list) else value


def chosen(
    python: str = sys.executable,
    *,
    turn: bool = False,
    host: str = "a",
    worker: int = 0,
    **how: str,
) -> dict[str, Any]:
    """What a process of its own decides; ``host`` has a seed of its own, ``how`` is environment."""
    file = {"seed": 20250101, "services": services()}
    asked = {
        "text": json.dumps(turned(file) if turn else file),
        "states": [turned(each) for each in STATES] if turn else STATES,
        "machine": {"a": 1, "b": 2}[host],
        "seed_file": f"/nonexistent/{host}",
        "worker": worker,
    }
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONHASHSEED", "PARAGLIDER_PURE")}
    done = subprocess.run(
        [python, "-c", PROGRAM],
        input=json.dumps(asked),
        env={**kept, **how},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@cache
def first() -> dict[str, Any]:
    """What the first process decides."""
    return chosen(PYTHONHASHSEED="1")


def digest(found: dict[str, Any]) -> str:
    """All of ``found`` in a short word."""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    "how",
    [
        {"PYTHONHASHSEED": "2"},
        {"PYTHONHASHSEED": "random"},
        {"turn": True},
        {"turn": True, "PARAGLIDER_PURE": "1"},
        {"host": "b"},
    ],
    ids="-".join,
)
def test_another_process_chooses_the_same(how: dict[str, Any]) -> None:
    """Workers, adoption, the BPF program's tables, and the kernel's own hashes."""
    assert chosen(**how) == first()


def test_another_worker_chooses_the_same() -> None:
    """By a hash; turns are each worker's own."""
    assert chosen(worker=1) == first()


def test_the_flows_tell_choices_apart() -> None:
    """Every service uses all its backends, a down or draining one has no new flow, and another seed
    or set of states is another choice: two equal answers above are not so by chance.
    """
    found = first()
    for family, hosts in enumerate((V4, V6)):
        names = {host if isinstance(host, str) else host["address"] for host in hosts}
        for port in (80, 81, 82, 83):
            whole, less, drained = found[f"s{family}-{port}"]
            assert set(whole) == names
            assert names - set(less) == {names_of("1", family)}
            assert names - set(drained) == {names_of("9", family)}
        assert found[f"s{family}-80"] != found[f"s{family}-82"]
    assert len(found["kernel"]["fallback 4"]) == 3
    assert len({line.partition(" seed ")[2][:10] for line in found["kernel"]["fallback 4"]}) == 3


def names_of(end: str, family: int) -> str:
    """The backend with that ``end`` of its address."""
    return f"10.0.0.{end}" if family == 0 else f"fd00::{end}"


def test_the_choice_is_the_one_of_every_release() -> None:
    """Two versions side by side have to agree, of Paraglider and of Python."""
    choices = {key: value for key, value in first().items() if key != "fingerprints"}
    assert digest(choices) == EXPECTED
    assert digest(first()["fingerprints"]) == FINGERPRINTS


def test_a_fingerprint_is_another_where_the_choice_is() -> None:
    """Of the states of one service, and of the services with the same backends."""
    found = first()
    printed = found["fingerprints"]
    assert len(printed) == 8
    for name, each in printed.items():
        assert len(set(each)) == len({tuple(picked) for picked in found[name]}) == len(STATES)
    assert len({each[0] for each in printed.values()}) == len(printed)


def pythons() -> list[str]:
    """The interpreters of this machine that have pydantic and PyYAML: this one, and others."""
    found = {sys.version_info[:2]: sys.executable}
    for minor in VERSIONS:
        python = shutil.which(f"python3.{minor}")
        asked = [python or "", "-c", "import pydantic, yaml"]
        if python is not None and subprocess.run(asked, capture_output=True).returncode == 0:
            found.setdefault((3, minor), python)
    return list(found.values())


@pytest.mark.parametrize("python", pythons())
def test_interpreted_by_any_python_the_choice_is_the_same(python: str) -> None:
    """Where there is only one here, the digest above stands for the others."""
    assert chosen(python, PARAGLIDER_PURE="1", PYTHONHASHSEED="3") == first()
