"""Converts pydantic's errors to problems with the file's keys and a remedy.

Lives here: ``reword`` (one error → problems), ``section_at`` and ``known_keys`` (the model by
path), ``repaired`` (the data without the invalid values, so that the rest can be checked).
Rules: every remedy has the allowed values, which are read from the model. Pure.
"""

from __future__ import annotations

import copy
import re
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic.fields import FieldInfo
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import ErrorDetails

from paraglider.config.diagnostics import Marks, Path, Problem, spelled
from paraglider.config.model import BackendConfig, Config, Service
from paraglider.config.network import PrivateSide, PublicSide
from paraglider.config.section import Section
from paraglider.config.types import parse_port_range, quoted, several
from paraglider.config.wording import did_you_mean, nearest, shown, ticked

# Placeholder for a required key that is missing or invalid; problems that depend on it are dropped.
_STAND_INS: dict[type[Section], dict[str, Any]] = {
    Service: {"name": "x", "vip": "192.0.2.1", "protocol": "tcp", "backends": ["192.0.2.2"]},
    BackendConfig: {"address": "192.0.2.2"},
    PublicSide: {"interface": "x"},
    PrivateSide: {"interface": "x"},
}

#: marks a field that is no key of a file
_HIDDEN: type = SkipJsonSchema

_PATTERNS = {
    "^/": ("is no absolute path", "write one that starts with /"),
    "interface": ("is no name of an interface", "write its name as `ip link` shows it"),
    "name": (
        "is no name of a service",
        "use letters, digits, dots, dashes and underscores, at most 63",
    ),
    "path": ("is no path of a URL", "write one that starts with /, without spaces"),
    "host": ("is no name of a host", "write one such as www.example.com"),
    "dns": ("is no name in the DNS", "write one such as _http._tcp.example.com"),
}


def _model_in(annotation: Any, *, items: bool) -> type[Section] | None:
    """The section class of a value; with ``items``, of the items of a list."""
    if typing.get_origin(annotation) is tuple:
        return _model_in(typing.get_args(annotation)[0], items=False) if items else None
    if isinstance(annotation, type):
        return annotation if not items and issubclass(annotation, Section) else None
    found = (_model_in(part, items=items) for part in typing.get_args(annotation))
    return next((model for model in found if model is not None), None)


def _field(model: type[Section], key: str) -> FieldInfo | None:
    fields = model.model_fields
    return next((info for name, info in fields.items() if (info.alias or name) == key), None)


def known_keys(model: type[Section]) -> list[str]:
    """The keys of a section, with the file's names; without those that are no part of a file."""
    return [
        info.alias or name
        for name, info in model.model_fields.items()
        if not any(type(item) is _HIDDEN for item in info.metadata)
    ]


def section_at(path: Path) -> type[Section] | None:
    """The class of the section at ``path``; None if there is none."""
    model: type[Section] | None = Config
    annotation: Any = None
    for step in path:
        if isinstance(step, str):
            info = _field(model, step) if model is not None else None
            annotation = info.annotation if info is not None else None
        model = _model_in(annotation, items=isinstance(step, int))
        if model is None:  # a list of sections, named without an index
            model = _model_in(annotation, items=True)
    return model


def reword(error: ErrorDetails, marks: Marks) -> list[Problem]:
    """One error of pydantic as problems; empty if it follows from another error."""
    path: Path = tuple(error["loc"])
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "missing":
        return [_missing(path)]
    if kind == "extra_forbidden":
        return [unknown_key(path, suggestion(path, marks))]
    if kind == "value_error":
        return _from_type(path, value, str(context["error"]))
    if kind == "too_short" and value:
        return []  # every item was wrong, and is reported itself
    what, remedy = _words(kind, path, value, context, marks.texts.get(marks.written(path)))
    return [Problem(path, f"`{_key(path)}`: {what}", remedy)]


def _key(path: Path) -> str:
    """The last key of a path with its index, if any: ``gateway[1]``."""
    start = max((i for i, step in enumerate(path) if isinstance(step, str)), default=0)
    return spelled(path[start:])


def _missing(path: Path) -> Problem:
    section = path[:-1]
    model = section_at(section)
    info = _field(model, str(path[-1])) if model is not None else None
    meaning = (info.description or "") if info is not None else ""
    where = f"`{_key(section)}`" if section else "the file"
    remedy = f"add `{path[-1]}: ...` ({meaning.rstrip('.')})"
    return Problem(section, f"{where} has no `{path[-1]}`", remedy, at="key")


def suggestion(path: Path, marks: Marks) -> str | None:
    """The known key that is most similar to an unknown one, without those already present."""
    model = section_at(path[:-1])
    section = marks.written(path)[:-1]
    absent = [
        key for key in (known_keys(model) if model else []) if (*section, key) not in marks.keys
    ]
    return nearest(str(path[-1]), absent)


def unknown_key(path: Path, meant: str | None = None) -> Problem:
    """The key at ``path`` is not known; perhaps the one ``meant``."""
    model = section_at(path[:-1])
    known = ", ".join(known_keys(model)) if model is not None else "none"
    remedy = f"did you mean `{meant}`?" if meant else f"the keys here are: {known}"
    return Problem(path, f"unknown key {ticked(path[-1])}", remedy, at="key")


def _from_type(path: Path, value: Any, message: str) -> list[Problem]:
    """A message of ``types`` ("what; remedy"), at the item of a list if that is known."""
    if path[-1] == "ports" and isinstance(value, list):
        found = []
        for index, item in enumerate(value):
            try:
                parse_port_range(item)
            except ValueError as error:
                found.append(_split((*path, index), str(error)))
        if found:
            return found
    return [_split(path, message)]


def _split(path: Path, message: str) -> Problem:
    what, _, remedy = message.partition("; ")
    return Problem(path, f"`{_key(path)}`: {what}", remedy)


def _words(
    kind: str, path: Path, value: Any, context: Mapping[str, Any], text: str | None
) -> tuple[str, str]:
    """The message and remedy of each kind of error that the model can raise."""
    if kind in ("model_type", "model_attributes_type"):
        keys = ", ".join(known_keys(section_at(path) or Config))
        if value is None:
            return "the section is empty", f"give it a key ({keys}) or leave it out"
        return f"{shown(value)} where a section belongs", f"write keys here: {keys}"
    if kind in ("tuple_type", "too_short"):
        if value is None or kind == "too_short":
            return "the list is empty", "write an item on a line of its own, after a dash"
        return f"{shown(value)} where a list belongs", _list_remedy(value, text)
    if kind == "string_type":
        if value is None or isinstance(value, dict | list):
            return f"{shown(value)} where a text belongs", "write one text"
        read_as = "a truth value" if isinstance(value, bool) else "a number"
        return f"YAML reads {text} as {read_as}", f'put it in quotes: "{text}"'
    if kind == "int_type":
        low_high = _range(path)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
            return f"{shown(value)} is a text", f"write the number {value} without quotes"
        return f"{shown(value)} is no whole number", f"write a whole number{low_high}"
    if kind in ("float_type", "finite_number"):
        if isinstance(value, str) and re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value, re.ASCII):
            return f"{shown(value)} is a text", f"write the number {value} without quotes"
        return f"{shown(value)} is no number", f"write a number{_range(path)}"
    if kind == "bool_type":
        return f"{shown(value)} is neither true nor false", "write true or false, without quotes"
    if kind == "literal_error":
        expected = str(context["expected"]).replace("'", "").replace(" or ", ", ")
        return f"{shown(value)} is not known", _close_or_all(value, expected.split(", "))
    if kind in ("greater_than_equal", "less_than_equal"):
        if text is not None and text[-1:].isalpha():  # a duration: `value` is in seconds
            return f"{shown(text)} is out of range", f"write seconds{_range(path)}"
        return f"{shown(value)} is out of range", f"write a number{_range(path)}"
    if kind == "string_pattern_mismatch":
        what, remedy = _PATTERNS.get(context["pattern"]) or _PATTERNS[str(path[-1])]
        return f"{shown(value)} {what}", remedy
    if kind == "string_too_long":
        return "the text is too long", f"write at most {context['max_length']} characters"
    if kind == "string_too_short":
        return "the text is empty", "write a value or leave the key out"
    return f"{shown(value)} is not valid here ({kind})", "see conf/paraglider.conf for an example"


def _list_remedy(value: Any, text: str | None) -> str:
    if isinstance(value, str) and text is not None and len(text) <= 60:
        return f"write {quoted(several(text) or [text])}"
    return "write each item on a line of its own, after a dash"


def _close_or_all(value: Any, expected: list[str]) -> str:
    return f"{did_you_mean(value, expected)}write one of: {', '.join(expected)}"


def _range(path: Path) -> str:
    """The field's bounds as " from A to B", or an empty string."""
    model = section_at(path[:-1])
    info = _field(model, str(path[-1])) if model is not None else None
    bounds = {}
    for item in info.metadata if info is not None else ():
        for name in ("ge", "le"):
            if getattr(item, name, None) is not None:
                bounds[name] = getattr(item, name)
    return f" from {bounds['ge']} to {bounds['le']}" if len(bounds) == 2 else ""


def repaired(data: Any, wrong: Iterable[Path]) -> Any:
    """A copy of ``data`` with invalid values removed or replaced by placeholders.

    Lists keep their length, so that paths stay valid.
    """
    result = copy.deepcopy(data)
    # The longest first: a mistake inside a section precedes one of the section itself.
    for path in sorted(wrong, key=len, reverse=True):
        result = _without(result, path)
    return result


def _without(root: Any, path: Path) -> Any:
    holder = root
    for step in path[:-1]:
        try:
            holder = holder[step]
        except (KeyError, IndexError, TypeError):
            return root  # an enclosing value is wrong as well, and is reported first
    if isinstance(holder, list) and path and isinstance(path[-1], int):
        model = section_at(path)
        if model is None:
            return _without(root, path[:-1])
        holder[path[-1]] = dict(_STAND_INS.get(model, {}))
    elif isinstance(holder, dict) and path:
        model = section_at(path[:-1])
        holder.pop(path[-1], None)
        if model is Config and path[-1] == "services":
            holder["services"] = [dict(_STAND_INS[Service])]
        elif model is not None and path[-1] in _STAND_INS.get(model, {}):
            holder[path[-1]] = _STAND_INS[model][str(path[-1])]
    return root
