"""The tables of the configuration: their keys, types, defaults and descriptions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from vmclock_async._cli.auto import AUTO
from vmclock_async._cli.logs import LogFormat, LogLevel
from vmclock_async._cli.service_manager import Readiness
from vmclock_async._exporting.address import parse_address

__all__ = ("DELIMITER", "KEYS", "PREFIX", "Configuration")

PREFIX: Final = "VMCLOCK_ASYNC_"
DELIMITER: Final = "__"
"""Divides the parts of a key in the name of a variable."""


def _divided(given: object) -> object:
    """The names in a text, which variables and ``--set`` give: ``device,chrony``."""
    return [name.strip() for name in given.split(",")] if isinstance(given, str) else given


def _each_once(names: list[str]) -> list[str]:
    if not names:
        raise ValueError(f"no source is named; {AUTO} picks those that this machine has")
    if len(set(names)) < len(names):
        raise ValueError(f"a source is named twice: {', '.join(names)}")
    return names


def _of_a_file(path: Path) -> Path:
    if not path.name or "\0" in str(path):
        raise ValueError("this can be no path of a file")
    return path


def _normalized(text: str) -> str:
    return str(parse_address(text))


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PublisherTable(_Table):
    """What is published, and where."""

    sources: Annotated[list[str], BeforeValidator(_divided), AfterValidator(_each_once)] = Field(
        [AUTO], description=f"names of sources, in order of rank; {AUTO} picks those that this machine has"
    )
    segment: Annotated[Path, AfterValidator(_of_a_file)] | None = Field(
        None,
        description="path of the segment; by default $VMCLOCK_ASYNC_SEGMENT, $RUNTIME_DIRECTORY/shm0, "
        "or the place of this user",
    )
    ready: Readiness = Field(
        Readiness.SEGMENT, description="what has to be there before a service manager is told READY=1"
    )
    agreement: bool = Field(
        False, description="whether to compare the sources of time, and to report those that contradict each other"
    )


class MetricsTable(_Table):
    """Metrics for Prometheus."""

    address: Annotated[str, AfterValidator(_normalized)] | None = Field(
        None, description="IP address and port to serve metrics at, as 127.0.0.1:9123; unset: nowhere"
    )


class LogsTable(_Table):
    """The log, on standard error."""

    level: LogLevel = Field(LogLevel.INFO, description="the least important messages that are logged")
    format: LogFormat = Field(LogFormat.TEXT, description="how a message is written, one event a line")


class Configuration(BaseSettings):
    """Configuration of vmclock-async publish."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=PREFIX,
        env_nested_delimiter=DELIMITER,
        env_ignore_empty=True,
    )

    publisher: PublisherTable = Field(PublisherTable(), description="what is published, and where")
    sources: dict[str, dict[str, Any]] = Field({}, description="one table of options a source")
    metrics: MetricsTable = Field(MetricsTable(), description="metrics for Prometheus")
    logs: LogsTable = Field(LogsTable(), description="the log, on standard error")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Values come from the caller alone: it has read each layer by itself, so that an error can name one."""
        return (init_settings,)


KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "publisher": tuple(PublisherTable.model_fields),
    "metrics": tuple(MetricsTable.model_fields),
    "logs": tuple(LogsTable.model_fields),
}
"""Keys of the tables that are the same on every machine."""
