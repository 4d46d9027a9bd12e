"""The man pages: paraglider(8), paraglider.config(8) and paraglider.conf(5).

Lives here: ``pages``. ``python -m paraglider.cli.man DIRECTORY`` writes them there.
Rules: options and commands come from click, as in `--help`, and the keys of the file from the
schema; only the rest is written here.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from paraglider import __version__
from paraglider.cli.main import main
from paraglider.cli.roff import ManPage
from paraglider.cli.setup_host import PROG, setup_host
from paraglider.config.places import SEARCHED
from paraglider.errors import OperatorError, PlatformError
from paraglider.forward.schema import schema

DAEMON_FILES = {
    "/run/paraglider": "control socket, flow journals of the workers, state of the set-up",
}
EXITS = {
    "0": "done",
    str(OperatorError.exit_code): "a mistake in the file, the arguments or the permissions",
    str(PlatformError.exit_code): "the platform refused",
}
SIGNALS = {
    "SIGTERM, SIGINT": "stop; the next start restores the flows",
    "SIGHUP": "reload the configuration",
}
EXAMPLE = """\
services:
- {name: web, vip: 192.168.0.11/24, protocol: tcp, ports: 80, backends: [10.0.0.1, 10.0.0.2]}
"""


def pages(date: str) -> list[ManPage]:
    """Every page, as of ``date`` (YYYY-MM-DD)."""
    return [_paraglider(date), _config(date), _conf(date)]


def _paraglider(date: str) -> ManPage:
    page = ManPage("paraglider", 8, "layer-4 load balancer", __version__, date)
    context = _context(main, "paraglider")
    _synopsis(page, context, main)
    _options(page, context, main)
    page.heading("Commands")
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        if command is not None and not command.hidden:
            _command(page, _context(command, name, context), command)
    _ends(page)
    _items(page, "Signals", SIGNALS)
    configs = {str(path): "configuration; the first existing one is used" for path in SEARCHED}
    _items(page, "Files", configs | DAEMON_FILES)
    _also(page, "paraglider.conf(5)", "paraglider.config(8)")
    return page


def _config(date: str) -> ManPage:
    page = ManPage(PROG, 8, "set up a host for paraglider", __version__, date)
    context = _context(setup_host, PROG)
    _synopsis(page, context, setup_host)
    _options(page, context, setup_host)
    _ends(page)
    _also(page, "paraglider(8)", "paraglider.conf(5)")
    return page


def _conf(date: str) -> ManPage:
    page = ManPage("paraglider.conf", 5, "configuration of paraglider", __version__, date)
    whole = schema()
    page.heading("Description")
    page.text(
        "A YAML file. Unknown keys and invalid values are refused with line and column;"
        " `paraglider check` reports all of them at once. Only `services` is required."
    )
    page.text(
        "A duration is a number of seconds, or a text with units: `500ms`, `30s`, `2m`, `1h30m`,"
        " `1d`."
    )
    page.heading("Example")
    page.code(EXAMPLE)
    for key, field in whole["properties"].items():
        page.heading(key)
        _key(page, key, field, whole["$defs"], required=key in whole["required"])
    _also(page, "paraglider(8)", "paraglider.config(8)")
    return page


def _context(
    command: click.Command, name: str, parent: click.Context | None = None
) -> click.Context:
    return click.Context(command, parent, name, **command.context_settings)


def _synopsis(page: ManPage, context: click.Context, command: click.Command) -> None:
    page.heading("Synopsis")
    page.text(f"`{context.command_path}` {' '.join(command.collect_usage_pieces(context))}")
    page.heading("Description")
    page.text(command.help or "")


def _command(page: ManPage, context: click.Context, command: click.Command) -> None:
    """A command and its subcommands."""
    usage = " ".join(command.collect_usage_pieces(context))
    page.subheading(context.command_path.removeprefix("paraglider "))
    page.text(f"`{context.command_path}` {usage}")
    page.text(command.help or "")
    _listed(page, context, command)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                _command(page, _context(below, name, context), below)


def _options(page: ManPage, context: click.Context, command: click.Command) -> None:
    page.heading("Options")
    _listed(page, context, command)


def _listed(page: ManPage, context: click.Context, command: click.Command) -> None:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1]:  # arguments have no help text; they are in the usage
            page.item(*record)


def _ends(page: ManPage) -> None:
    _items(page, "Exit status", EXITS)


def _items(page: ManPage, heading: str, items: dict[str, str]) -> None:
    page.heading(heading)
    for tag, text in items.items():
        page.item(tag, f"{text}.")


def _also(page: ManPage, *others: str) -> None:
    page.heading("See also")
    page.text(", ".join(f"`{other}`" for other in others))


def _key(
    page: ManPage, path: str, field: dict[str, Any], parts: dict[str, Any], *, required: bool
) -> None:
    """One key, and the keys of its section or list of sections."""
    sections = list(_sections(field))
    facts = [field.get("description", "").rstrip(".")]
    if kind := " or ".join(dict.fromkeys(_kinds(field))):
        facts.append(kind)
    if required:
        facts.append("required")
    elif field.get("default") not in (None, [], {}) and not isinstance(field["default"], list):
        facts.append(f"default `{_yaml(field['default'])}`")
    text = "; ".join(fact for fact in facts if fact) + "."
    if not sections:
        page.item(path, text)
        return
    page.text(f"`{path}`: {text}" if "." in path or "[" in path else text)
    for name, ending in sections:
        part = parts[name]
        for key, below in part["properties"].items():
            if _is_elsewhere(below):
                continue
            needed = key in part.get("required", ())
            _key(page, f"{path}{ending}.{key}", below, parts, required=needed)


def _is_elsewhere(field: dict[str, Any]) -> bool:
    """Whether ``field`` is a key of another section, where the page has it."""
    return "/properties/" in field.get("$ref", "")


def _sections(field: dict[str, Any], ending: str = "") -> Iterator[tuple[str, str]]:
    """The sections that ``field`` can be, each with the suffix of its path."""
    if "$ref" in field:
        yield field["$ref"].rpartition("/")[2], ending
    for one in field.get("anyOf", ()):
        yield from _sections(one, ending)
    if "items" in field:
        yield from _sections(field["items"], ending + "[]")


def _kinds(field: dict[str, Any]) -> Iterator[str]:
    """The types of a key's value, as text."""
    for one in field.get("anyOf", ()):
        yield from _kinds(one)
    if "enum" in field:
        yield " | ".join(f"`{_yaml(value)}`" for value in field["enum"])
    elif field.get("type") in {"integer", "number"}:
        low, high = field.get("minimum"), field.get("maximum")
        what = "integer" if field["type"] == "integer" else "number"
        yield f"{what} from {low} to {high}" if None not in (low, high) else what
    elif field.get("type") == "array":
        inner = " or ".join(dict.fromkeys(_kinds(field["items"])))
        yield f"list of {inner}" if inner else "list"
    elif field.get("type") == "boolean":
        yield "`true` | `false`"
    elif field.get("type") == "string" and "examples" in field:
        yield f"text such as {' or '.join(f'`{example}`' for example in field['examples'])}"
    elif "format" in field:
        yield {"ipv4": "IPv4 address", "ipv6": "IPv6 address"}.get(field["format"], "text")


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value}"


def write(directory: Path) -> None:
    """Write every page below ``directory``, dated SOURCE_DATE_EPOCH or today."""
    seconds = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
    for page in pages(time.strftime("%Y-%m-%d", time.gmtime(seconds))):
        path = directory / page.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(page), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
