"""The type of options that take a duration: `--wait 30`, `--wait 30s`, `--wait 2m`.

Lives here: ``DurationRange``.
Rules: as in the configuration file, a number without a unit is seconds.
"""

from __future__ import annotations

from typing import Any

import click

from paraglider.config.durations import is_number, parse_duration


class DurationRange(click.FloatRange):
    """Seconds from a minimum to a maximum, as a number or with a unit."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The seconds; click reports what is no duration, or out of range."""
        if isinstance(value, str) and not is_number(value):
            try:
                value = parse_duration(value)
            except ValueError as error:
                self.fail(str(error), param, ctx)
        seconds: float = super().convert(value, param, ctx)
        return seconds
