"""The layers of the configuration: what each place gives, and how that place writes a key.

Every value of a variable and of ``--set`` is text, which the models read. VMCLOCK_ASYNC_SEGMENT and
VMCLOCK_ASYNC_SOURCES, which other commands and programs obey too, are no part of the configuration.
"""

import os
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, final

import typer
from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource

from vmclock_async._cli.configuration.tables import DELIMITER, KEYS, PREFIX, Configuration

__all__ = ("Key", "Layer", "command_layer", "environment_layer", "file_layer", "set_layer", "stray_variables")

Key = tuple[str | int, ...]
"""The names that lead to a value, and for an item of an array its number."""
_WORDS: Final = {
    "sources": "SOURCE",
    "segment": "--segment",
    "ready": "--ready",
    "agreement": "--agreement",
    "address": "--metrics",
    "format": "--log-format",
    "level": "--log-level",
}
"""What the command line has for some keys."""


@final
class Layer(NamedTuple):
    """Values that come from one place."""

    values: Mapping[str, Any]
    written: Callable[[Key], str]
    """A key as this place writes it."""
    before: str = ""
    """What stands before a key, to say where it is."""
    file: str | None = None
    """The path of a file."""

    def place(self, key: Key) -> str:
        """Where *key* is, for people: ``publish.toml: metrics.address``."""
        return f"{self.before}{self.written(key)}"

    def origin(self, key: Key) -> str:
        """Where the value of *key* is from: the file; else as ``place`` has it."""
        return self.place(key) if self.file is None else self.file

    def has(self, key: Key) -> bool:
        """Whether this layer gives a value for *key*."""
        value: object = self.values
        for part in key:
            if not isinstance(value, Mapping) or part not in value:
                return False
            value = value[part]
        return True


def _dotted(key: Key) -> str:
    return ".".join(map(str, key))


def _variable(key: Key) -> str:
    return PREFIX + DELIMITER.join(map(str, key)).upper().replace("-", "_")


def file_layer(path: Path) -> Layer:
    """The file at *path*.

    Raises:
        typer.BadParameter: it cannot be read, or is not TOML.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise typer.BadParameter(f"{path}: cannot be read ({exc.strerror})", param_hint="--config") from exc
    except (ValueError, RecursionError) as exc:
        # Not TOML, not UTF-8, or a number of more digits or deeper tables than Python takes.
        raise typer.BadParameter(f"{path}: not TOML that can be read ({exc})", param_hint="--config") from exc
    return Layer(values, _dotted, f"{path}: ", str(path))


@final
class _Variables(EnvSettingsSource):
    """Variables of single keys. One of a whole table does not exist: $VMCLOCK_ASYNC_SOURCES is something else."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[None, str, bool]:
        return None, field_name, True

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        return value  # as --set has it, so that 0600 and 600 are both text


def environment_layer(sources: Iterable[str]) -> Layer:
    """The variables. A name in *sources* may have letters that a variable cannot have: ``-`` is ``_`` there."""
    values = dict(_Variables(Configuration)())
    tables = values.get("sources")
    if isinstance(tables, Mapping):
        names = {name.lower().replace("-", "_"): name for name in sources}
        values["sources"] = {names.get(name, name): table for name, table in tables.items()}
    return Layer(values, _variable)


def stray_variables(sources: Iterable[str]) -> Iterable[str]:
    """Variables that look as if they were of the configuration, but name none of its tables, or name one alone.

    Others of the prefix are left alone: ``vmclock-async on`` sets some, and Kubernetes sets some for each service.
    """
    single = {"_".join((table, key)) for table, keys in KEYS.items() for key in keys} | {*KEYS}
    options = tuple(f"sources_{name.lower().replace('-', '_')}_" for name in sources)
    for name in os.environ:
        if not name.upper().startswith(PREFIX):
            continue
        rest = name[len(PREFIX) :].lower()
        table, is_nested, _ = rest.partition(DELIMITER)
        if (is_nested and table not in (*KEYS, "sources")) or rest in single or rest.startswith(options):
            yield name


def set_layer(settings: Sequence[str]) -> Layer:
    """The values of ``--set``: ``TABLE.KEY=VALUE``, or ``SOURCE.OPTION=VALUE``, which means a key of that source.

    Raises:
        typer.BadParameter: one has another form.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        parts = name.split(".")
        if not equals or len(parts) < 2 or not all(parts):
            raise typer.BadParameter(
                f"{setting!r} is neither SOURCE.OPTION=VALUE nor TABLE.KEY=VALUE", param_hint="--set"
            )
        if parts[0] not in (*KEYS, "sources"):
            parts.insert(0, "sources")
        table = values
        for part in parts[:-1]:
            if not isinstance(table.get(part), dict):
                table[part] = {}
            table = table[part]
        table[parts[-1]] = value
    return Layer(values, lambda key: _dotted(key[1:] if key[0] == "sources" and len(key) > 1 else key), "--set ")


def command_layer(**given: Mapping[str, object]) -> Layer:
    """What the command's own arguments and options say, by table; None: nothing."""
    values = {
        table: {key: value for key, value in keys.items() if value is not None} for table, keys in given.items()
    }
    return Layer(values, lambda key: _WORDS[str(key[1])])
