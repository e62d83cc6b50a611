"""``sources``: the installed plugins, their distributions and their options."""

import json
import sys
from contextlib import redirect_stdout
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from vmclock_async._cli.output import print_json, print_line, printable
from vmclock_async._wording import failure
from vmclock_async.errors import SourceError
from vmclock_async.sources import InstalledSource, installed_sources

__all__ = ("sources",)


def sources(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the installed source plugins and their options.

    vmclock-async sources --json | jq keys
    """
    with redirect_stdout(sys.stderr):  # what a plugin prints at import is no part of the result
        described = {name: _describe(source) for name, source in installed_sources().items()}
    if as_json:
        print_json(described)
        return
    for name, facts in described.items():
        print_line(printable(f"{name}  ({facts['distribution']} {facts['version']})"))
        if "error" in facts:
            print_line(f"    broken: {printable(facts['error'])}")
        width = max((len(option["name"]) for option in facts["options"]), default=0)
        for option in facts["options"]:
            default = "required" if option["required"] else f"default {option['default']}"
            line = f"{name}.{option['name']:<{width}}  {option['description']} [{default}]"
            print_line(f"    {printable(line)}")


def _describe(source: InstalledSource) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "distribution": source.distribution,
        "version": source.version,
        "entry_point": source.entry_point.value,
        "options": [],
    }
    try:
        facts["options"] = _options(source.load().settings_type)
    except SourceError as exc:
        facts["error"] = exc.reason
    except Exception as exc:  # a stranger's model may have its own schema, or none
        facts["error"] = f"its options cannot be shown ({failure(exc)})"
    return facts


def _options(settings_type: type[BaseModel]) -> list[dict[str, object]]:
    schema = settings_type.model_json_schema()
    required = schema.get("required", [])
    options = [
        {
            "name": str(name),
            "description": str(field.get("description", "")),
            "required": name in required,
            "default": field.get("default"),
        }
        for name, field in schema.get("properties", {}).items()
    ]
    json.dumps(options)  # a model may put anything into its schema
    return options
