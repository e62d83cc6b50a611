"""The settings as they work out, each with the place that it is from: what ``publish --check`` prints.

The TOML is a configuration that gives the same settings again.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, final

from pydantic import SecretStr
from pydantic_core import to_jsonable_python
from tomlkit import array, comment, document, dumps, inline_table, item, nl, table
from tomlkit.items import Item, Table

from vmclock_async._cli.auto import DEFAULTS, is_there
from vmclock_async._cli.configuration.choice import ChosenSources
from vmclock_async._cli.configuration.layers import Key
from vmclock_async._cli.configuration.settings import Settings
from vmclock_async._cli.configuration.tables import KEYS
from vmclock_async._cli.output import printable
from vmclock_async._cli.paths import default_from
from vmclock_async.sources import Source

__all__ = ("Effective",)

_SECRET: Final = str(SecretStr("secret"))
"""What pydantic shows of a secret."""
_AUTO: Final = "what auto picks"
"""The origin of an option whose default is another because ``auto`` picks its source."""


@final
class Effective:
    """What *settings* work out to, with the sources as they were *built* and the *path* of the segment."""

    def __init__(self, settings: Settings, chosen: ChosenSources, built: Mapping[str, Source], path: Path) -> None:
        tables: dict[str, Any] = settings.configuration.model_dump(mode="json")
        tables["publisher"]["segment"] = str(path)
        tables["sources"] = {
            name: _options(name, chosen, is_built=name in built)
            for name in chosen.names
            if name in built or name in settings.configuration.sources
        }
        self._tables: Final = tables
        self._origins: Final = {key: origin for key in _keys(tables) if (origin := _origin(key, settings, chosen))}
        there = [name for name, source in built.items() if name not in chosen.named and is_there(source)]
        self._there: Final = there if chosen.asks_auto else None
        self._sought: Final = [name for name in built if name not in chosen.named and name not in there]

    def fields(self) -> dict[str, Any]:
        """All of it, for JSON: the tables; ``origins``, by key; ``auto``, the names of what it finds now, or null."""
        return {
            **self._tables,
            "origins": {".".join(map(str, key)): origin for key, origin in self._origins.items()},
            "auto": self._there,
        }

    def toml(self) -> str:
        """All of it as TOML, with comments."""
        text = document()
        text.add(comment("A value without a comment is the default."))
        for name in KEYS:
            text.add(nl())
            text.add(name, self._table((name,), self._tables[name]))
        options = table(is_super_table=True)
        for name, values in self._tables["sources"].items():
            options.add(name, self._table(("sources", name), values))
        if self._tables["sources"]:
            text.add(nl())
            text.add("sources", options)
        return dumps(text)

    def _table(self, key: Key, values: Mapping[str, Any]) -> Table:
        made = table()
        for name, value in values.items():
            if value is None:  # which TOML cannot say
                made.add(comment(f"{name} is not set"))
                continue
            if value == _SECRET:  # read again, it would be another one
                made.add(comment(f"{name} is set, and not shown"))
                continue
            if (*key, name) == ("publisher", "sources") and self._there is not None:
                made.add(comment(f"auto finds {', '.join(self._there) or 'nothing'} on this machine now"))
                if self._sought:
                    made.add(comment(f"auto looks for {', '.join(self._sought)} again and again"))
            written = _item(value)
            if origin := self._origins.get((*key, name)):
                written.comment(f"from {printable(origin)}")
            made.add(name, written)
        return made


def _item(value: object) -> Item:
    """*value* for TOML, on one line, and without what TOML cannot say: None."""
    if isinstance(value, list):
        parts = array()
        for part in value:
            if part is not None:
                parts.append(_item(part))
        return parts
    if not isinstance(value, Mapping):
        return item(value)
    inline = inline_table()
    for name, part in value.items():
        if part is not None:
            inline.append(name, _item(part))
    return inline


def _keys(tables: Mapping[str, Any]) -> list[Key]:
    keys: list[Key] = []
    for table_name, values in tables.items():
        if table_name == "sources":
            keys += [("sources", source, option) for source, options in values.items() for option in options]
        else:
            keys += [(table_name, name) for name in values]
    return keys


def _origin(key: Key, settings: Settings, chosen: ChosenSources) -> str | None:
    if (origin := settings.origin(key)) is not None:
        return origin
    if key == ("publisher", "segment"):
        return default_from()
    if key[0] == "sources" and key[1] not in chosen.named and key[2] in DEFAULTS.get(str(key[1]), {}):
        return _AUTO
    return None


def _options(name: str, chosen: ChosenSources, *, is_built: bool) -> dict[str, Any]:
    """All options of the source *name*, with its defaults; those that were given if it cannot be made or shown."""
    given: dict[str, Any] = to_jsonable_python(chosen.options(name))
    if not is_built:
        return given
    try:
        settings = chosen.settings_type(name).model_validate(chosen.options(name))
        return settings.model_dump(mode="json", by_alias=True)
    except Exception:  # a stranger's model
        return given
