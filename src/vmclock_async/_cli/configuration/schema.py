"""The schema of the configuration, for editors: with the options of all sources that are installed."""

import json
from typing import Any, Final

from vmclock_async._cli.auto import AUTO
from vmclock_async._cli.configuration.tables import Configuration
from vmclock_async._wording import failure
from vmclock_async.errors import SourceError
from vmclock_async.sources import InstalledSource, installed_sources

__all__ = ("configuration_schema",)

_DRAFT: Final = "http://json-schema.org/draft-07/schema#"
"""What editors of TOML understand; newer drafts add nothing that is needed here."""


def configuration_schema() -> dict[str, Any]:
    """The JSON schema of the file."""
    installed = installed_sources()
    schema = Configuration.model_json_schema()
    schema["$defs"]["PublisherTable"]["properties"]["sources"]["items"] = {"enum": [AUTO, *installed]}
    schema["properties"]["sources"] = {
        "type": "object",
        "description": schema["properties"]["sources"]["description"],
        "properties": {name: _table(source) for name, source in installed.items()},
        "additionalProperties": False,
    }
    return {"$schema": _DRAFT, **schema}


def _table(source: InstalledSource) -> dict[str, Any]:
    """The schema of a source's table. No option is required, because a variable or ``--set`` may give it."""
    at = f"#/properties/sources/properties/{source.name.replace('~', '~0').replace('/', '~1')}/$defs/{{model}}"
    try:
        table = source.load().settings_type.model_json_schema(ref_template=at)
        json.dumps(table)  # a model may put anything into its schema
    except SourceError as exc:
        return {"type": "object", "description": exc.reason}
    except Exception as exc:  # a stranger's model may have its own schema, or none
        return {"type": "object", "description": f"its options cannot be shown ({failure(exc)})"}
    table.pop("required", None)
    table.setdefault("additionalProperties", False)
    return table
