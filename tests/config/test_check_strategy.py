"""Mistakes of a strategy, by the facts of its class."""

from __future__ import annotations

import pytest

from paraglider.config.check_strategy import weighing
from paraglider.config.load import ConfigError, parse

TEXT = """services:
  - name: a
    vip: 192.0.2.1
    protocol: tcp
    backends: [10.0.0.1]
    strategy: STRATEGY
    strategy_parameters: PARAMETERS
"""


def mistakes(strategy: str, parameters: str) -> list[str]:
    """The problems of the file with that strategy."""
    text = TEXT.replace("STRATEGY", strategy).replace("PARAMETERS", parameters)
    try:
        parse(text, "f")
    except ConfigError as error:
        return str(error).splitlines()
    return []


@pytest.mark.parametrize(
    ("strategy", "parameters", "said"),
    [
        ("maglev", "{table_size: 4093}", []),
        ("mh", "{table_size: 4093}", []),
        ("maglev", "{}", []),
        ("a.b:C", "{anything: goes, also: 1.5}", []),  # the policy's own constructor knows
        (
            "maglev",
            "{table_size: 4096}",
            ["f:7:39: `table_size`: 4096 is no prime number; write 4099"],
        ),
        (
            "maglev",
            "{table_size: 1}",
            [
                "f:7:39: `table_size`: 1 is out of range; write a whole number from 251 to 655373",
            ],
        ),
        (
            "maglev",
            "{size: 251}",
            ["f:7:27: `strategy: maglev` has no parameter `size`; its parameters are: table_size"],
        ),
        (
            "rr",
            "{table_size: 251}",
            ["f:7:27: `strategy: rr` has no parameter `table_size`; leave it out"],
        ),
        ("maglev", "[251]", ["f:7:26: `strategy_parameters`: a list where a section belongs"]),
        ("a:B", "{x: [1]}", ["f:7:26: `strategy_parameters`: `x` has a list; give each parameter"]),
    ],
)
def test_parameters(strategy: str, parameters: str, said: list[str]) -> None:
    """Each is checked by the strategy's class, at its place in the file."""
    found = mistakes(strategy, parameters)
    assert len(found) == len(said)
    for line, start in zip(found, said, strict=True):
        assert line.startswith(start)


def test_a_name_that_is_nearly_right() -> None:
    """Names and aliases are both suggested."""
    (line,) = mistakes("leastcon", "{}")
    assert "did you mean leastconn?" in line


def test_strategies_with_weights() -> None:
    """As a remedy lists them."""
    assert weighing() == (
        "`strategy: maglev`, `strategy: source`, `strategy: weighted` or `strategy: wrr`"
    )
