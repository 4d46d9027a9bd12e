"""The metrics of the daemon as a whole: its build, its health, its configuration.

Lives here: ``DAEMON``, sections of ``metrics``.
Rules: as in ``metrics``.
"""

from __future__ import annotations

from typing import Final

from paraglider.daemon.http.exposition import Described, MetricSection, plain

_BUILD: Final = (
    Described(
        "paraglider_build_info",
        "The version that runs; the value is always 1.",
        lambda _row: [((), 1)],
    ),
)
_WHOLE: Final = (
    Described(
        "paraglider_status_timestamp_seconds",
        "When the numbers were taken; it stands still while the supervisor hangs.",
        plain("at"),
    ),
    Described(
        "paraglider_start_time_seconds",
        "When the daemon was started.",
        plain("daemon", "started"),
    ),
    Described(
        "paraglider_healthy",
        "Whether `paraglider health` has no problem.",
        plain("health", "healthy"),
    ),
    Described(
        "paraglider_draining",
        "Whether this balancer is drained (`paraglider node drain`), and not to be announced.",
        plain("health", "draining"),
    ),
    Described(
        "paraglider_config_last_reload_success",
        "Whether the last reading of the configuration succeeded.",
        plain("config", "success"),
    ),
    Described(
        "paraglider_config_last_reload_timestamp_seconds",
        "When the configuration was last read, with or without success.",
        plain("config", "at"),
    ),
)
_CONDITION: Final = (
    Described(
        "paraglider_condition",
        "1 for each problem of `paraglider health`.",
        lambda _row: [((), 1)],
    ),
)
_VIP: Final = (
    Described(
        "paraglider_vip_announced",
        "Whether the VIP is well here, and to be announced to routers (`announce`).",
        plain("announce"),
    ),
)

DAEMON: Final = (
    MetricSection(lambda status: [status["daemon"]], ("version", "python", "build"), _BUILD),
    MetricSection(lambda status: [status], (), _WHOLE),
    MetricSection(
        lambda status: status["health"]["conditions"], ("source", "object", "severity"), _CONDITION
    ),
    MetricSection(
        lambda status: [{"vip": vip, **one} for vip, one in status["announced"].items()],
        ("vip",),
        _VIP,
    ),
)
