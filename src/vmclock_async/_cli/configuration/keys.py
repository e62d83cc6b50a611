"""Keys that are not there: each is an error, which names the place and suggests the nearest key that is there."""

import reprlib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Final

from vmclock_async._cli.configuration.layers import Key, Layer
from vmclock_async._cli.configuration.tables import KEYS
from vmclock_async._cli.failures import ConfigurationError

__all__ = ("ALL_KEYS", "check_keys", "require_known", "require_table")

ALL_KEYS: Final = tuple((table, key) for table, keys in KEYS.items() for key in keys)
"""The keys of all tables but those of sources."""


def check_keys(layer: Layer, sources: Iterable[str]) -> None:
    """Refuse what *layer* has beside the tables and their keys; the options of *sources* are for later.

    Raises:
        ConfigurationError: a key is not there, or a table is none.
    """
    tables: dict[str, Key] = {table: (table,) for table in (*KEYS, "sources")}
    # A source's table at the top level is a likely slip.
    candidates = {name: ("sources", name) for name in sources} | tables
    for table, values in layer.values.items():
        if table not in tables:
            raise _unknown(layer, (table,), candidates)
        require_table(layer, (table,), values)
        if table == "sources":
            for name, options in values.items():
                require_table(layer, (table, name), options)
        else:
            require_known(layer, (table,), values, {key: (table, key) for key in KEYS[table]})


def require_known(layer: Layer, table: Key, values: Iterable[str], known: Mapping[str, Key]) -> None:
    """Refuse those of *values*, keys of *table* in *layer*, that are not *known*.

    Raises:
        ConfigurationError: a key is not there.
    """
    for key in values:
        if key not in known:
            raise _unknown(layer, (*table, key), known)


def require_table(layer: Layer, key: Key, value: object) -> None:
    """Refuse *value*, which *layer* has for *key*, unless it is a table.

    Raises:
        ConfigurationError: it is none.
    """
    if not isinstance(value, Mapping):
        raise ConfigurationError(
            layer.place(key), f"it must be a table, not {reprlib.repr(value)}; set keys of it"
        )


def _unknown(layer: Layer, key: Key, near: Mapping[str, Key]) -> ConfigurationError:
    """The error for *key*, which is none of those in *near*, the keys by their last parts."""
    match = get_close_matches(str(key[-1]), near, n=1)
    further = {known[-1]: known for known in ALL_KEYS}
    if match:
        remedy = f"did you mean {layer.written(near[match[0]])}?"
    elif match := get_close_matches(str(key[-1]), further, n=1):  # a key of another table
        remedy = f"did you mean {layer.written(further[match[0]])}?"
    else:
        siblings = [layer.written(known) for known in near.values() if len(known) == len(key)]
        remedy = f"there are {', '.join(siblings)}" if siblings else "it takes none"
    return ConfigurationError(layer.place(key), f"no such key; {remedy}")
