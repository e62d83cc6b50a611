"""Errors as programs take them: what was seen and the remedy apart, and the same again in another process."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vmclock_async import RecordingError, SegmentError, SegmentUnstableError, SourceError, VMClockError, errors

ALL_ERRORS: list[tuple[type[errors.VMClockError], tuple[Any, ...], str]] = [
    (errors.SegmentError, ("/run/shm0", "why"), "/run/shm0: why"),
    (errors.SegmentNotInitializedError, ("/run/shm0", "why"), "/run/shm0: why"),
    (errors.SegmentMalformedError, ("/run/shm0", "why"), "/run/shm0: why"),
    (errors.SegmentVersionNotSupportedError, ("/run/shm0", "why"), "/run/shm0: why"),
    (errors.SegmentInUseError, ("/run/shm0", "why"), "/run/shm0: why"),
    (errors.NobodyListensError, ("/run/shm0.told", "why"), "/run/shm0.told: why"),
    (errors.DisruptionRefusedError, ("/run/shm0.told", "why"), "/run/shm0.told: why"),
    (errors.SegmentUnstableError, ("/run/shm0", "why", 7), "/run/shm0: why"),
    (errors.SourceError, ("chrony", "why"), "chrony: why"),
    (errors.SourceUnavailableError, ("chrony", "why"), "chrony: why"),
    (errors.InvalidUpdateError, ("chrony", "why"), "chrony: why"),
    (errors.SourceSettingsError, ("chrony", "why"), "chrony: why"),
    (errors.UnknownSourceError, ("chrony", "why"), "chrony: why"),
    (errors.ClockError, ("why",), "why"),
    (errors.ClockNotSynchronizedError, ("why",), "why"),
    (errors.ClockUnboundedError, ("why",), "why"),
    (errors.ClockStaleError, ("why",), "why"),
    (errors.ClockDisruptedError, ("why",), "why"),
    (errors.CounterNotSupportedError, ("why",), "why"),
    (errors.LeaseLostError, ("why",), "why"),
    (errors.SystemClockError, ("why",), "why"),
    (errors.MetricsAddressError, ("why",), "why"),
    (errors.RecordingError, (Path("/tmp/x.jsonl"), 3, "why"), "/tmp/x.jsonl, line 3: why"),
    (errors.RecordingError, ("/tmp/x.jsonl", 0, "why"), "/tmp/x.jsonl: why"),
]


def subclasses(error: type[VMClockError]) -> Iterator[type[VMClockError]]:
    """Those of this package that can be raised: *error*'s subclasses, and theirs."""
    for each in error.__subclasses__():
        if each.__module__ == "vmclock_async":
            yield each
            yield from subclasses(each)


def made(error: type[VMClockError], reason: str) -> VMClockError:
    """An error of this class."""
    if error is SegmentUnstableError:
        return SegmentUnstableError("p", reason, 3)
    if error is RecordingError:
        return RecordingError("p", 3, reason)
    return error("p", reason) if issubclass(error, SegmentError | SourceError) else error(reason)


@pytest.mark.parametrize("error", dict.fromkeys(subclasses(VMClockError)))
def test_every_error_has_a_remedy(error: type[VMClockError]) -> None:
    """Its message's own, or where that stops at what was seen the one of its class; also after it was pickled."""
    for reason, seen, remedy in (
        ("it is red; paint it", "it is red", "paint it"),
        ("it is red; or blue; paint it", "it is red; or blue", "paint it"),
        ("it is red (or blue; who knows)", "it is red (or blue; who knows)", None),
        ("it is red", "it is red", None),
        ("", "", None),
    ):
        raised = made(error, reason)
        for each in (raised, pickle.loads(pickle.dumps(raised))):
            assert each.seen == seen
            assert each.remedy == remedy if remedy else each.remedy
            assert reason in str(each)


def test_strangers_error_has_what_it_has() -> None:
    """A plugin's own subclass may have any reason, or none: asking it raises nothing."""

    class Odd(VMClockError):
        pass

    class Numbered(SourceError):
        def __init__(self) -> None:
            super().__init__("odd", "x")
            self.reason = 7  # type: ignore[assignment]

    assert (Odd("it is red; paint it").seen, Odd("it is red; paint it").remedy) == ("it is red", "paint it")
    assert Numbered().seen == "7"


@pytest.mark.parametrize(
    ("error", "args", "message"), ALL_ERRORS, ids=lambda value: getattr(value, "__name__", "")
)
def test_errors_survive_pickle(error: type[errors.VMClockError], args: tuple[Any, ...], message: str) -> None:
    """An error from a worker process is the same error: type, message, arguments and attributes."""
    raised = error(*args)
    found = pickle.loads(pickle.dumps(raised))
    assert type(found) is error
    assert str(found) == str(raised) == message
    assert found.args == args
    assert vars(found) == vars(raised)
    assert error.__module__ == "vmclock_async"


def test_every_error_is_in_the_list_above() -> None:
    """No error of the package goes untested here, and all have one root."""
    public = {getattr(errors, name) for name in errors.__all__}
    assert public == {error for error, _, _ in ALL_ERRORS} | {errors.VMClockError}
    assert all(issubclass(error, errors.VMClockError) for error in public)
