"""Errors as programs take them: what was seen and the remedy apart, and the same again in another process."""

import pickle
from collections.abc import Iterator

import pytest

from vmclock_async import RecordingError, SegmentError, SegmentUnstableError, SourceError, VMClockError


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
