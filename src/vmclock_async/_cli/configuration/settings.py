"""The settings of one publisher: the layers over one another, and for each value the place that it is from."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, final

from pydantic import ValidationError

from vmclock_async._cli.configuration.keys import ALL_KEYS, check_keys
from vmclock_async._cli.configuration.layers import (
    Key,
    Layer,
    environment_layer,
    file_layer,
    set_layer,
    stray_variables,
)
from vmclock_async._cli.configuration.tables import Configuration
from vmclock_async._cli.failures import ConfigurationError
from vmclock_async._wording import detail_reason
from vmclock_async.sources import installed_sources

__all__ = ("Settings", "read_settings")


@final
class Settings:
    """What *layers*, strongest first, come to.

    Raises:
        ConfigurationError: a key is not there, or a value is not allowed; options of sources are not looked at.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers: Final = tuple(layers)
        installed = installed_sources()
        merged: Mapping[str, Any] = {}
        for layer in reversed(self.layers):
            check_keys(layer, installed)
            merged = _merged(merged, layer.values)
        try:
            self.configuration: Final = Configuration(**merged)
        except ValidationError as exc:
            error = self.wrong_value(exc)
            assert error is not None, "a default is not allowed"
            raise error from exc

    def layer_of(self, key: Key) -> Layer | None:
        """The strongest layer that gives a value for *key*; None: none does."""
        return next((layer for layer in self.layers if layer.has(key)), None)

    def place(self, key: Key) -> str | None:
        """Where *key* is given, for an error; None: nowhere."""
        layer = self.layer_of(key)
        return None if layer is None else layer.place(key)

    def origin(self, key: Key) -> str | None:
        """Where the value of *key* is from; None: it is a default."""
        layer = self.layer_of(key)
        return None if layer is None else layer.origin(key)

    def wrong_value(self, error: ValidationError, table: Key = ()) -> ConfigurationError | None:
        """The first value of *table* that *error* is about, and its place; None: it is about none alone."""
        detail = error.errors(include_url=False, include_context=False)[0]
        key: Key = (*table, *detail["loc"])
        while len(key) > len(table):
            if (layer := self.layer_of(key)) is not None:
                return ConfigurationError(layer.place(key), detail_reason(detail))
            key = key[:-1]  # an item of an array, or what pydantic calls a member of a union
        return None


def _merged(weak: Mapping[str, Any], strong: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of both; of two values the one of *strong*."""
    merged = {**weak, **strong}
    for key in weak.keys() & strong.keys():
        if isinstance(weak[key], Mapping) and isinstance(strong[key], Mapping):
            merged[key] = _merged(weak[key], strong[key])
    return merged


def read_settings(config: Path | None, sets: Sequence[str], command: Layer) -> Settings:
    """The settings of a file, the variables, ``--set`` and the *command*'s own words; the later ones are stronger.

    Raises:
        typer.BadParameter: the file cannot be read, or a ``--set`` has no form that it may have.
        ConfigurationError: a key is not there, or a value is not allowed.
    """
    installed = installed_sources()
    file = [] if config is None else [file_layer(config)]
    environment = environment_layer(installed)
    for name in stray_variables(installed):
        raise _stray(name, environment, installed)
    return Settings([command, set_layer(sets), environment, *file])


def _stray(name: str, environment: Layer, sources: Mapping[str, object]) -> ConfigurationError:
    known = [environment.written(key) for key in ALL_KEYS]
    known += [environment.written(("sources", source, "OPTION")) for source in sources]
    match = get_close_matches(name.upper(), known, n=1, cutoff=0.8)
    remedy = f"did you mean {match[0]}?" if match else f"there are {', '.join(known)}"
    return ConfigurationError(name, f"no such key; {remedy}")
