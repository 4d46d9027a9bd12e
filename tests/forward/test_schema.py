"""Tests of ``paraglider.forward.schema``: the committed schema is the model's, and it works."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from examples import CONF, EXAMPLES

from paraglider.config.messages import known_keys
from paraglider.config.model import Config, Service
from paraglider.forward.schema import rendered, schema

COMMITTED = CONF / "paraglider.schema.json"


def valid(data: Any) -> bool:
    """True when the schema takes ``data``."""
    return bool(jsonschema.Draft202012Validator(schema()).is_valid(data))


def whole(**keys: Any) -> dict[str, Any]:
    """A file of one service with the given keys on top of the least it needs."""
    least = {"name": "a", "vip": "192.0.2.1/24", "protocol": "tcp", "backends": ["10.0.0.1"]}
    return {"services": [{**least, **keys}]}


def test_committed_schema_is_the_models() -> None:
    """After a change to the model: python -m paraglider.forward.schema > (the file)."""
    assert COMMITTED.read_text(encoding="utf-8") == rendered()


def test_command_prints_the_schema() -> None:
    """The command that regenerates the file prints the file's content."""
    command = [sys.executable, "-m", "paraglider.forward.schema"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == schema()


def test_schema_is_a_schema_of_its_draft() -> None:
    """The schema is valid by the meta-schema of draft 2020-12, and has a name of its own."""
    assert schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema()["$id"] == "urn:paraglider:configuration"
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_examples_obey_the_schema(file: Path) -> None:
    """The commented examples are valid by the schema, and name it for editors."""
    text = file.read_text(encoding="utf-8")
    jsonschema.validate(yaml.safe_load(text), json.loads(COMMITTED.read_text(encoding="utf-8")))
    assert text.startswith("# yaml-language-server: $schema=paraglider.schema.json\n")


def test_there_are_examples() -> None:
    """The glob above finds the two examples."""
    assert {file.name for file in EXAMPLES} >= {"paraglider.conf", "paraglider6.conf"}


@pytest.mark.parametrize(
    "keys",
    [
        {"backends": [{"address": "10.0.0.1", "port": 80, "weight": 3}, "10.0.0.2"]},
        {"ports": 80},
        {"ports": "8000-8099"},
        {"ports": [80, "8000-8099"]},
        {"return": "direct"},
        {"backends": {"file": "/etc/b"}},
        {"check": {"expect": {"status": [200, "300-399"], "body": "ok"}, "interval": 0.5}},
        {"check": None},
        {"check": {"interval": "500ms"}, "drain_timeout": "2m", "slow_start": "1h30m"},
    ],
)
def test_takes(keys: dict[str, Any]) -> None:
    """Every form of a value that the loader reads, the schema takes, and the model too."""
    assert valid(whole(**keys))
    assert Config.model_validate(whole(**keys), by_name=False, by_alias=True)


@pytest.mark.parametrize(
    "keys",
    [
        {"backends": []},
        {"backends": [{"adress": "10.0.0.1"}]},
        {"backends": [{"weight": 1}]},
        {"backends": [3]},
        {"ports": 70000},
        {"ports": "a-b"},
        {"return_": "via"},
        {"colour": "red"},
        {"backends": {"fil": "/etc/b"}},
        {"check": {"expect": {"status": 99}}},
        {"check": {"interval": 0}},
        {"check": {"interval": "30"}},
        {"drain_timeout": "2 m"},
        {"protocol": "sctp"},
    ],
)
def test_refuses(keys: dict[str, Any]) -> None:
    """A mistake within one field is one for an editor too."""
    assert not valid(whole(**keys))


def test_every_key_has_a_title_and_a_description() -> None:
    """An editor has something to show for each key of each section."""
    for part in (schema(), *schema()["$defs"].values()):
        assert part["description"]
        for field in part["properties"].values():
            assert field["title"][0].isupper()
            assert field["description"]


def test_keys_are_spelled_as_in_the_file() -> None:
    """The schema names the same keys as the messages do."""
    assert list(schema()["$defs"]["Service"]["properties"]) == known_keys(Service)
    assert list(schema()["properties"]) == known_keys(Config)
