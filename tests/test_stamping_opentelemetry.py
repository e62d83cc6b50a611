"""Spans and log records of OpenTelemetry with bounded time and incarnation, through the SDK and its exporters."""

import importlib
import sys
from collections.abc import Iterator

import pytest
from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from vmclock_async.stamping.opentelemetry import TimeLogRecordProcessor, TimeSpanProcessor, time_attributes
from vmclock_async.testing import ManualClock


@pytest.fixture
def clock() -> Iterator[ManualClock]:
    """A clock whose time stands still unless the test moves it."""
    with ManualClock(follow_loop=False) as clock:
        yield clock


def expected(clock: ManualClock) -> dict[str, object]:
    """The attributes of this moment."""
    reading = clock.now()
    return {
        "vmclock.earliest_ns": reading.earliest_ns,
        "vmclock.latest_ns": reading.latest_ns,
        "vmclock.clock_status": "SYNCHRONIZED",
        "vmclock.incarnation": str(clock.incarnation),
    }


def test_span_has_the_time_of_its_start_and_an_event_that_of_its_end(clock: ManualClock) -> None:
    """A restore within the span is the difference between the two incarnations."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(TimeSpanProcessor(clock))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer("test").start_as_current_span("pay", attributes={"amount": 7}) as span:
        at_start = expected(clock)
        clock.advance(5)
        clock.restore()
        at_end = expected(clock)
        span.add_event("end", time_attributes(clock))
    (ended,) = exporter.get_finished_spans()
    assert ended.attributes == {"amount": 7, **at_start}
    assert ended.events[0].attributes == at_end
    assert at_start["vmclock.incarnation"] != at_end["vmclock.incarnation"]
    provider.shutdown()


def test_span_without_bounded_time_says_why(clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    """There is no attribute without a value, and the SDK complains of none."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(TimeSpanProcessor(clock))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    clock.close()
    with provider.get_tracer("test").start_as_current_span("pay"):
        pass
    assert exporter.get_finished_spans()[0].attributes == {"vmclock.clock_status": "SegmentError"}
    assert caplog.records == []
    provider.shutdown()


@pytest.mark.parametrize("strings", [False, True])
def test_log_record_has_the_time_of_its_emission(clock: ManualClock, *, strings: bool) -> None:
    """Beside the attributes that it has already."""
    exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]  # the SDK's
    provider = LoggerProvider()
    provider.add_log_record_processor(TimeLogRecordProcessor(clock, strings=strings))
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    provider.get_logger("test").emit(body="paid", severity_number=SeverityNumber.INFO, attributes={"amount": 7})
    made = expected(clock)
    if strings:
        made |= {name: str(value) for name, value in made.items()}
    clock.advance(5)
    (record,) = exporter.get_finished_logs()
    assert record.log_record.attributes == {"amount": 7, **made}
    provider.shutdown()


def test_without_the_sdk_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """So it does with an SDK that is too old to have these names."""
    monkeypatch.delitem(sys.modules, TimeSpanProcessor.__module__)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk._logs", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'vmclock-async\[otel\]'"):
        importlib.import_module(TimeSpanProcessor.__module__)
