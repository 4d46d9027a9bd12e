"""The JSON Schema (draft 2020-12) of the configuration file, generated from the model.

Lives here: ``schema`` and ``rendered``. ``conf/paraglider.schema.json`` is its output:
``python -m paraglider.forward.schema > conf/paraglider.schema.json``.
Rules: the schema repeats nothing of the format; everything comes from the model. Conditions across
several fields are not in the schema; ``paraglider check`` finds them.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Final

from pydantic.json_schema import GenerateJsonSchema

import paraglider.forward.registry  # noqa: F401 the schema lists the methods
from paraglider.config.model import Config
from paraglider.config.route_list import SHARED

#: names the schema to editors and validators that know several; no address to fetch it from
IDENTIFIER: Final = "urn:paraglider:configuration"


class _Generator(GenerateJsonSchema):
    """pydantic's generator, with readable titles ("First core")."""

    def get_title_from_name(self, name: str) -> str:
        return name.strip("_").replace("_", " ").capitalize()


def schema() -> dict[str, Any]:
    """The schema as plain data."""
    body = Config.model_json_schema(by_alias=True, schema_generator=_Generator)
    for part in (body, *body.get("$defs", {}).values()):
        for key, field in part.get("properties", {}).items():
            _describe(key, field, body)
    _list_routes(body["$defs"])
    head = {"$schema": GenerateJsonSchema.schema_dialect, "$id": IDENTIFIER, **body}
    head["title"] = "Paraglider configuration"
    return head


def _describe(key: str, field: dict[str, Any], body: dict[str, Any]) -> None:
    """Give a section's key the description of the section, which editors show."""
    # A default section repeats the defaults of its keys.
    if isinstance(field.get("default"), dict):
        del field["default"]
    targets = [field, *field.get("anyOf", ())]
    name = next((part["$ref"].rpartition("/")[2] for part in targets if "$ref" in part), None)
    if name is not None:
        field.setdefault("title", key.replace("_", " ").capitalize())
        field.setdefault("description", body["$defs"][name]["description"])


def _list_routes(parts: dict[str, Any]) -> None:
    """A file has a list of routes, with the keys of a service (``config.route_list``)."""
    service, route = parts["Service"]["properties"], parts["RouteConfig"]

    def told(key: str) -> dict[str, Any]:
        return {name: service[key][name] for name in ("title", "description")}

    for key in service:
        if key not in SHARED:
            route["properties"][key] = {"$ref": f"#/$defs/Service/properties/{key}", **told(key)}
    route["required"] = ["backends"]
    items = {"$ref": "#/$defs/RouteConfig"}
    service["route"] = {"type": "array", "items": items, "minItems": 1, **told("route")}


def rendered() -> str:
    """The text of the committed file."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(rendered())
