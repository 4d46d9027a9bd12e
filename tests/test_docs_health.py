"""docs/health.md: every key is there with its default, its examples load, its numbers hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from paraglider.config.health import AgentCheck, Check, CheckStep, Expect, Failover
from paraglider.config.load import parse
from paraglider.config.model import Service
from paraglider.config.section import Section
from paraglider.core.pool import Event
from paraglider.core.strategies import STRATEGIES
from paraglider.forward.services import make_services
from paraglider.health import checker, flapping, rise_and_fall, sweep
from paraglider.health.probes import KINDS, http

PAGE = (Path(__file__).parents[1] / "docs" / "health.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `([a-z_: ]+)` \|(.*?)\| .* \|$", PAGE, re.MULTILINE)
#: of each parameter of a probe its row's name, its default, and the probe
PARAMETERS = [
    (f"{name}: {parameter.name}", parameter.default, name)
    for name, probe in KINDS.items()
    for parameter in probe.parameters
]
OF_SERVICE = ("all_down", "min_ready", "on_down", "drain_timeout", "slow_start")


def default(model: type[Section], key: str) -> str:
    """A default as the page writes it: numbers and words in ticks."""
    value = model.model_fields[key].default
    if isinstance(value, tuple):
        value = value[0]
    shown = {True: "true", False: "false"}.get(value, value) if isinstance(value, bool) else value
    return f"`{shown:g}`" if isinstance(shown, float) else f"`{shown}`"


@pytest.mark.parametrize(
    ("model", "key"),
    [
        *((Check, key) for key in Check.model_fields if key != "expect"),
        *((Expect, key) for key in Expect.model_fields),
        *((CheckStep, key) for key in CheckStep.model_fields),
        *((AgentCheck, key) for key in AgentCheck.model_fields),
        *((Service, key) for key in OF_SERVICE),
        *((Failover, key) for key in Failover.model_fields),
    ],
)
def test_keys(model: type[Section], key: str) -> None:
    """Each key has a row, with the model's default if it has one."""
    section = {Expect: "expect: ", AgentCheck: "agent: "}.get(model, "")
    name = f"{section}{key}"
    written = [text.strip() for found, text in ROWS if found == name]
    assert written, f"{name} is missing"
    field = model.model_fields[key]
    if not field.is_required() and field.default_factory is None and field.default is not None:
        assert default(model, key) in written


def test_no_key_that_is_not() -> None:
    """No row is about a key that the file does not have."""
    known = {*Check.model_fields, *Failover.model_fields, *OF_SERVICE}
    known |= {f"expect: {key}" for key in Expect.model_fields} | {*CheckStep.model_fields}
    known |= {name for name, _, _ in PARAMETERS} | {
        f"agent: {key}" for key in AgentCheck.model_fields
    }
    assert {key for key, _ in ROWS} - {*KINDS, "type"} <= known


@pytest.mark.parametrize(("name", "default", "probe"), PARAMETERS)
def test_parameters(name: str, default: int | str, probe: str) -> None:
    """Each parameter of a probe has a row, with its default if that is not empty."""
    (written,) = (text.strip() for found, text in ROWS if found == name)
    assert written == (f"`{default}`" if default != "" else ""), probe


def test_types() -> None:
    """Each type has a row in the first table."""
    table = PAGE.partition("| `type` | passes if |")[2].partition("\n\n")[0]
    named = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    assert set(re.findall(r"`([a-z]+)`", " ".join(named))) == {*KINDS}


def test_examples() -> None:
    """The configurations of the page are valid."""
    blocks = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 8
    for block in blocks:
        assert parse(block, "docs/health.md").config.services


def test_numbers() -> None:
    """The numbers on the page are those of the code."""
    flat = " ".join(PAGE.split())
    for words in (
        f"falls {rise_and_fall.FALLS} times within {flapping.PERIOD:g} s",
        f"up to {flapping.LONGEST_HOLD:g} s",
        f"At most {checker.AT_ONCE} checks run at a time, and {checker.PROGRAMS_AT_ONCE} programs",
        f"at most {sweep.MOST} of them",
        f"the first {http.BODY >> 10} KiB of the body",
    ):
        assert words in flat
    assert rise_and_fall.Thresholds(8, 1, 1).fast == 2


def test_slow_start_is_as_the_page_says() -> None:
    """A backend that came back has a tenth of its weight, beside another's, and one more at each of
    ten steps.
    """
    assert "grows from a tenth of its weight to all of it, in ten steps" in " ".join(PAGE.split())
    text = "services: [{name: a, vip: 192.0.2.1, protocol: tcp, strategy: wrr, slow_start: 20,"
    config = parse(f"{text} backends: [10.0.0.1, 10.0.0.2]}}]", "f").config
    (service,) = make_services(config, lambda m: m.name == "nat", 0, STRATEGIES)
    back, other = service.pool.backends
    service.pool.apply(back, Event.CHECK_FAILED)
    service.pool.apply(back, Event.CHECK_PASSED)
    shares = []
    for second in range(25):
        service.pool.tick(100.0 + second)
        share = back.weight / other.weight
        if share not in shares:
            shares.append(share)
    assert shares == [step / 10 for step in range(1, 11)]
