"""The chosen sources: their names, their options, and the sources themselves."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Final, final

from pydantic import AliasChoices, BaseModel, ValidationError

from vmclock_async._cli.auto import AUTO, CHOICES, DEFAULTS, pick
from vmclock_async._cli.configuration.keys import require_known
from vmclock_async._cli.configuration.layers import Layer
from vmclock_async._cli.configuration.settings import Settings
from vmclock_async._cli.failures import ConfigurationError
from vmclock_async.errors import SourceError, SourceSettingsError, UnknownSourceError
from vmclock_async.sources import Source, build_source, find_source, installed_sources

__all__ = ("ChosenSources",)

_BY_NAME: Final = ("populate_by_name", "validate_by_name")
"""Settings of pydantic's with which a field that has an alias can be given by its name too."""


@final
class ChosenSources:
    """The sources that *settings* name, and those that ``auto`` may pick.

    Raises:
        UnknownSourceError, ConfigurationError: a source is not there.
        ConfigurationError: a table is for no chosen source, or an option is not there.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings: Final = settings
        self._asked: Final = settings.configuration.publisher.sources
        self.named: Final = [name for name in self._asked if name != AUTO]
        self._installed: Final = installed_sources()
        self._require_installed()
        picked = [name for name in CHOICES if name in self._installed] if AUTO in self._asked else []
        self.names: Final = list(dict.fromkeys([*self.named, *picked]))
        """The sources for which there may be options."""
        for layer in settings.layers:
            self._check_tables(layer)

    @property
    def asks_auto(self) -> bool:
        """Whether ``auto`` is among the sources that were asked for."""
        return AUTO in self._asked

    def options(self, name: str) -> dict[str, Any]:
        """The options of the source *name*, as they were given; some have other defaults where ``auto`` picks it."""
        given = self._settings.configuration.sources.get(name, {})
        return {**({} if name in self.named else DEFAULTS.get(name, {})), **given}

    def settings_type(self, name: str) -> type[BaseModel]:
        """The model of the options of *name*.

        Raises:
            SourceError: the source cannot be imported, or is no source.
        """
        return self._installed[name].load().settings_type

    def build(self) -> dict[str, Source]:
        """The sources, in order of rank; ``auto`` probes those that it may pick.

        Raises:
            ConfigurationError: the value of an option is not allowed.
            SourceSettingsError: options lack one, or do not go together.
            SourceError: a source cannot be made, or ``auto`` finds none.
        """
        built: dict[str, Source] = {}
        for name in self._asked:
            picked = (
                pick(self._build, besides=frozenset(self.named)) if name == AUTO else {name: self._build(name)}
            )
            built |= picked
        return built

    def _build(self, name: str) -> Source:
        try:
            return build_source(name, self.options(name))
        except SourceSettingsError as exc:
            cause = exc.__cause__
            if not isinstance(cause, ValidationError):
                raise
            if (error := self._settings.wrong_value(cause, ("sources", name))) is None:
                raise
            raise error from cause

    def _require_installed(self) -> None:
        place = self._settings.place(("publisher", "sources"))
        for name in (name for name in self.named if name not in self._installed):
            try:
                find_source(name)  # it says what there is
            except UnknownSourceError as exc:
                if place is None or place == "SOURCE":
                    raise
                raise ConfigurationError(place, str(exc)) from exc

    def _check_tables(self, layer: Layer) -> None:
        for name, options in layer.values.get("sources", {}).items():
            if name not in self.names:
                raise self._not_chosen(layer, name)
            if (known := self._options_of(name)) is not None:
                require_known(layer, ("sources", name), options, {key: ("sources", name, key) for key in known})

    def _not_chosen(self, layer: Layer, name: str) -> ConfigurationError:
        chosen = ", ".join(sorted(self.names))
        if name in self._installed:
            remedy = "name it in publisher.sources too, or remove this"
        elif match := get_close_matches(name, self.names, n=1):
            remedy = f"did you mean {layer.written(('sources', match[0]))}?"
        else:
            remedy = "see vmclock-async sources"
        return ConfigurationError(layer.place(("sources", name)), f"not among the sources: {chosen}; {remedy}")

    def _options_of(self, name: str) -> Iterable[str] | None:
        """Names of the options of *name*; None: it takes any, or cannot be imported, which is for ``build`` to say."""
        try:
            settings_type = self.settings_type(name)
        except SourceError:
            return None
        return None if settings_type.model_config.get("extra") == "allow" else _names(settings_type)


def _names(settings_type: type[BaseModel]) -> dict[str, None]:
    """The names by which the fields of *settings_type* can be given."""
    names: dict[str, None] = {}
    for name, field in settings_type.model_fields.items():
        aliases = field.validation_alias
        choices = aliases.choices if isinstance(aliases, AliasChoices) else [aliases]
        for alias in choices:
            first = alias if isinstance(alias, str) else name if alias is None else alias.path[0]
            names[str(first)] = None
        if aliases is None or any(settings_type.model_config.get(by_name) for by_name in _BY_NAME):
            names[name] = None  # else pydantic passes it over
    return names
