"""A sample as comma-separated values, with the columns of HAProxy's ``;csv``.

Readers of HAProxy's statistics can read it: a FRONTEND and a BACKEND line per service, and a line
per backend. Columns without a counterpart are empty (HAProxy management guide, 9.1).

Rules: pure.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any, Final

COLUMNS: Final = (
    *("pxname", "svname", "qcur", "qmax", "scur", "smax", "slim", "stot", "bin", "bout"),
    *("dreq", "dresp", "ereq", "econ", "eresp", "wretr", "wredis", "status", "weight", "act"),
    *("bck", "chkfail", "chkdown", "lastchg", "downtime", "qlimit", "pid", "iid", "sid"),
    *("throttle", "lbtot", "tracked", "type", "rate", "rate_lim", "rate_max"),
    *("check_status", "check_code", "check_duration"),
)
_FRONTEND, _BACKEND, _SERVER = 0, 1, 2  # "type", the same guide
_STATUS: Final = {
    "ready": "UP",
    "drain": "DRAIN",
    "maint": "MAINT",
    "down": "DOWN",
    "drain-down": "DOWN",
}


def table(sample: Mapping[str, Any]) -> str:
    """The table of ``sample``."""
    text = io.StringIO()
    text.write("# ")
    writer = csv.DictWriter(text, [*COLUMNS, ""], restval="", lineterminator="\n")
    writer.writeheader()  # as in HAProxy every line ends in a comma
    for number, service in enumerate(sample["services"], 1):
        common = {"pxname": service["service"], "pid": 1, "iid": number}
        rows = [row for row in sample["backends"] if row["service"] == service["service"]]
        whole = {**common, **_counts(service), "rate": _whole(service["flows_per_second"])}
        status = "UP" if service["ready"] else "DOWN"
        writer.writerow(
            {**whole, "svname": "FRONTEND", "status": "OPEN", "sid": 0, "type": _FRONTEND}
        )
        for sid, row in enumerate(rows, 1):
            writer.writerow({**common, **_server(row), "sid": sid})
        sums = {"weight": sum(row["weight"] for row in rows), "act": service["ready"], "bck": 0}
        last = min((int(row["seconds"]) for row in rows), default=0)
        writer.writerow(
            {
                **whole,
                **sums,
                "svname": "BACKEND",
                "status": status,
                "sid": 0,
                "type": _BACKEND,
                "lastchg": last,
                "lbtot": whole["stot"],
            }
        )
    return text.getvalue()


def _counts(row: Mapping[str, Any]) -> dict[str, Any]:
    names = {"scur": "flows", "stot": "conns", "bin": "bytes_in", "bout": "bytes_out"}
    return {column: row[name] for column, name in names.items()}


def _server(row: Mapping[str, Any]) -> dict[str, Any]:
    check = row["check"]
    checked: dict[str, Any] = {}
    if check is not None:
        took = round(check["took"] * 1000)
        checked = {"check_status": check["code"], "check_duration": took}
    return {
        **_counts(row),
        "svname": row["backend"],
        "chkfail": row["failed_checks"],
        "chkdown": row["downs"],
        "status": _STATUS[row["state"]] if check or row["state"] != "ready" else "no check",
        "weight": row["weight"],
        "act": 1 if row["state"] == "ready" and row["weight"] else 0,
        "bck": 0,
        "lastchg": int(row["seconds"]),
        "lbtot": row["conns"],
        "type": _SERVER,
        "rate": _whole(row["flows_per_second"]),
        **checked,
    }


def _whole(rate: float | None) -> int | None:
    return None if rate is None else round(rate)
