"""Metrics of a segment and of a publisher: what they say, and that they say nothing that ``now()`` refuses."""

import re
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import anyio
import pytest
from prometheus_client.registry import CollectorRegistry

from kit.publishing import publish, time_fields
from kit.scrapes import Samples, described, samples_of
from kit.sources import Scripted
from kit.told_world import World
from kit.waits import until
from vmclock_async import (
    BodyUpdate,
    Clock,
    ClockStatus,
    Emit,
    Publisher,
    SegmentWriter,
    Snapshot,
    SourceUnavailableError,
    VMClockError,
)
from vmclock_async._exporting.segment_metrics import _offset_ns, _rounded_up_s
from vmclock_async.intervals import TimeInterval
from vmclock_async.metrics import ClockCollector, PublisherCollector
from vmclock_async.sources import Source
from vmclock_async.testing import PlayedSegment, make_body
from vmclock_async.timebase import COUNTER_ID

ROOT = Path(__file__).parent.parent
ONLY_BOUNDED = {"vmclock_error_seconds", "vmclock_system_clock_inside", "vmclock_system_clock_offset_seconds"}


@pytest.fixture
def played(segment_path: Path) -> PlayedSegment:
    """A segment of this machine's time, and its device."""
    return PlayedSegment(segment_path.parent)


def seen(played: PlayedSegment) -> Samples:
    """A scrape of a reader of *played*."""
    return samples_of(ClockCollector(played.path, fence=played.device))


def test_scrape_says_what_now_says(played: PlayedSegment) -> None:
    """Bounded, with the error, the age and the status of the page, and its marker and generation."""
    with played, Clock(played.path, fence=played.device) as clock:
        before = clock.now()
        for samples in (seen(played), samples_of(ClockCollector(clock))):
            assert samples["vmclock_up"] == samples["vmclock_bounded"] == samples["vmclock_fenced"] == 1
            assert before.error_ns / 1e9 <= samples["vmclock_error_seconds"] <= clock.now().error_ns / 1e9 + 1e-9
            assert 0 <= samples["vmclock_reference_age_seconds"] <= clock.age_ns / 1e9
            statuses = {name: value for name, value in samples.items() if name.startswith("vmclock_clock_status")}
            assert len(statuses) == 6
            assert [name for name, value in statuses.items() if value] == ["vmclock_clock_status{SYNCHRONIZED}"]
            assert samples["vmclock_disruption_marker"] == clock.snapshot().body.disruption_marker
            assert samples["vmclock_generation"] == clock.snapshot().body.vm_generation_counter
            assert samples["vmclock_commits_total"] == clock.snapshot().seq_count // 2
            assert samples["vmclock_restores_seen"] == 1
            assert not [name for name in samples if name.startswith("vmclock_unbounded_info")]


def test_system_clock_is_compared_with_the_interval(played: PlayedSegment) -> None:
    """0 and inside where CLOCK_REALTIME is in the interval; else its distance, positive where it is ahead."""
    with played:
        samples = seen(played)
        assert (samples["vmclock_system_clock_inside"], samples["vmclock_system_clock_offset_seconds"]) == (1, 0)
        for ahead_s in (3600, -7200):
            played.step(-ahead_s * 10**9)
            samples = seen(played)
            assert samples["vmclock_system_clock_inside"] == 0
            assert samples["vmclock_system_clock_offset_seconds"] == pytest.approx(ahead_s, abs=60)
            played.step(ahead_s * 10**9)


@pytest.mark.parametrize(
    ("first_ns", "last_ns", "offset_ns"),
    [(89, 99, -1), (89, 100, 0), (100, 200, 0), (200, 210, 0), (201, 210, 1), (50, 300, 0)],
)
def test_offset_is_what_is_certain(first_ns: int, last_ns: int, offset_ns: int) -> None:
    """The clock was read before and after: it is off only by what both readings say."""
    assert _offset_ns(TimeInterval(100, 200, 2), first_ns, last_ns) == offset_ns


@pytest.mark.parametrize("ns", [0, 1, 3, 10**9 + 1, 2**53 + 1, 2**63 - 1, 123456789012345678])
def test_error_in_seconds_is_never_less(ns: int) -> None:
    """A double may not hold it: then it is the next one above."""
    seconds = _rounded_up_s(ns)
    assert Fraction(seconds) * 10**9 >= ns
    assert seconds == pytest.approx(ns / 1e9, rel=1e-15)


def unbounded(samples: Samples) -> str:
    """The reason in *samples*, which show no time."""
    assert samples["vmclock_bounded"] == 0
    assert not ONLY_BOUNDED & samples.keys()
    (reason,) = [name for name in samples if name.startswith("vmclock_unbounded_info")]
    return reason.removeprefix("vmclock_unbounded_info{").removesuffix("}")


def test_what_now_refuses_is_not_shown(played: PlayedSegment) -> None:
    """The fence, the status, the age: the reason is the error's class, and there is neither error nor offset."""
    with played:
        played.lose_sync(void=True)
        assert unbounded(seen(played)) == "ClockNotSynchronizedError"
        played.regain_sync()
        assert seen(played)["vmclock_bounded"] == 1
        played.freeze()
        played.migrate()
        samples = seen(played)
        assert unbounded(samples) == "ClockDisruptedError"
        assert samples["vmclock_up"] == samples["vmclock_clock_status{SYNCHRONIZED}"] == 1
        assert "vmclock_reference_age_seconds" not in samples


def test_scrape_is_one_look(played: PlayedSegment, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that is void right after it was read: the scrape shows the status and the time of that reading."""
    with played, Clock(played.path, fence=None) as clock:
        read = clock._readings.sample

        def read_and_void() -> tuple[Snapshot, int]:
            played.regain_sync()  # on a busy machine it looks again
            sample = read()
            played.lose_sync(void=True)
            return sample

        monkeypatch.setattr(clock._readings, "sample", read_and_void)
        samples = samples_of(ClockCollector(clock))
        assert samples["vmclock_bounded"] == samples["vmclock_clock_status{SYNCHRONIZED}"] == 1
        assert samples["vmclock_error_seconds"] < 1


def test_old_reference_shows_its_age(world: World) -> None:
    """The publisher died 2000 s ago: no time, but how long that is."""
    world.tell(age_s=2000)
    with Clock(world.path, fence=None) as clock:
        samples = samples_of(ClockCollector(clock))
    assert unbounded(samples) == "ClockStaleError"
    assert samples["vmclock_reference_age_seconds"] == pytest.approx(2000, abs=60)


def test_status_without_a_name_is_other(segment_path: Path) -> None:
    """A number that no ABI knows yet makes no label of its own."""
    with SegmentWriter(segment_path, size=112) as writer:
        writer.write(make_body(clock_status=77), counter_id=COUNTER_ID, time_type=0)
        samples = samples_of(ClockCollector(segment_path, fence=None))
    assert [name for name, value in samples.items() if "status" in name and value] == [
        "vmclock_clock_status{OTHER}"
    ]


def test_change_of_a_great_number_is_seen(segment_path: Path) -> None:
    """A generation and a marker past 2**53, which a double would round, differ when the lowest bit does."""
    collector = ClockCollector(segment_path, fence=None)
    looks = []
    with SegmentWriter(segment_path, size=112) as writer:
        for number in (2**63, 2**63 + 1):
            writer.write(make_body(disruption_marker=number, vm_generation_counter=number))
            looks.append(samples_of(collector))
    for name in ("vmclock_generation", "vmclock_disruption_marker"):
        assert looks[1][name] - looks[0][name] == 1


@pytest.mark.parametrize("content", [None, b"", b"no segment, but other text: " * 10])
def test_missing_segment_is_a_metric_and_no_failure(segment_path: Path, content: bytes | None) -> None:
    """Nothing there, or something else: up and bounded are 0; and a scrape later, when it is there, they are 1."""
    if content is not None:
        segment_path.write_bytes(content)
    collector = ClockCollector(segment_path, fence=None)
    samples = samples_of(collector)
    assert unbounded(samples).startswith("Segment")
    assert samples["vmclock_up"] == 0
    assert len(samples) == 3
    segment_path.unlink(missing_ok=True)
    with PlayedSegment(segment_path.parent):
        assert samples_of(collector)["vmclock_bounded"] == 1


def test_metrics_never_show_a_time_that_now_refuses(played: PlayedSegment) -> None:
    """Whatever the page says, a scrape is bounded just where now() answers, because nothing changes meanwhile."""
    deeds: tuple[Callable[[], object], ...] = (
        lambda: None,
        lambda: played.change(flags=0),
        lambda: played.change(time_maxerror_nanosec=10**10),
        lambda: played.change(counter_period_frac_sec=0),
        played.lose_sync,
        played.regain_sync,
        lambda: played.change(clock_status=4),
        played.die_mid_commit,
    )
    answers = []
    with played:
        for deed in deeds:
            deed()
            with Clock(played.path, fence=played.device) as clock:
                try:
                    clock.now()
                except VMClockError as exc:
                    answer = type(exc).__name__
                else:
                    answer = ""
            samples = seen(played)
            assert (samples["vmclock_bounded"] == 1) == (not answer)
            if answer:
                assert unbounded(samples) == answer
            answers.append(bool(answer))
    assert {True, False} == set(answers)


@pytest.mark.anyio
async def test_publisher_shows_its_sources(segment_path: Path) -> None:
    """State, updates, restarts, ages, faults and what each source gives; beside what a reader sees."""
    told = 0

    async def flaky(emit: Emit) -> None:
        nonlocal told
        told += 1
        await emit(BodyUpdate(tai_offset_sec=37))
        if told == 1:
            raise SourceUnavailableError("flaky", "with a secret in its text")
        await anyio.sleep_forever()

    async def steady(emit: Emit) -> None:
        await emit(BodyUpdate.model_validate(time_fields()), epoch=emit.epoch)
        jumped = time_fields()
        jumped["time_sec"] += 1000  # the error is less than a second
        await emit(BodyUpdate.model_validate(jumped), epoch=emit.epoch)
        await emit(BodyUpdate.model_validate(time_fields()), epoch=-1)
        await anyio.sleep_forever()

    sources: dict[str, Source] = {"steady": Scripted(steady), "flaky": Scripted(flaky)}
    before = samples_of(PublisherCollector(Publisher(segment_path, sources), fence=None))
    assert before["vmclock_up"] == before["vmclock_publisher_commits_total"] == 0
    assert before["vmclock_source_state{steady,new}"] == 1
    assert before["vmclock_source_complaints_total{contradiction,steady}"] == 0

    async def look(publisher: Publisher) -> None:
        def statistics_are_there() -> bool:
            found = publisher.statistics().sources
            return found["flaky"].updates == 2 and found["steady"].updates == 3

        await until(statistics_are_there)
        samples = samples_of(PublisherCollector(publisher, fence=None))
        assert samples["vmclock_bounded"] == 1
        assert samples["vmclock_publisher_commits_total"] == samples["vmclock_commits_total"]
        states = [name for name, value in samples.items() if name.startswith("vmclock_source_state") and value]
        assert states == ["vmclock_source_state{steady,running}", "vmclock_source_state{flaky,running}"]
        assert samples["vmclock_source_updates_total{steady}"] == 3
        assert samples["vmclock_source_dropped_updates_total{steady}"] == 1
        assert samples["vmclock_source_restarts_total{flaky}"] == 1
        assert samples["vmclock_source_restarts_total{steady}"] == 0
        assert samples["vmclock_source_published{time,steady}"] == 1
        assert samples["vmclock_source_published{time,flaky}"] == 0
        assert samples["vmclock_source_published{calendar,flaky}"] == 1
        assert samples["vmclock_source_complaints_total{contradiction,steady}"] == 1
        assert samples["vmclock_source_complaints_total{contradiction,flaky}"] == 0
        assert "vmclock_source_error_age_seconds{steady}" not in samples
        age_s = samples["vmclock_source_error_age_seconds{flaky}"]
        assert 0 < samples["vmclock_source_update_age_seconds{flaky}"] < age_s < time.monotonic()
        assert "secret" not in " ".join(samples)

    await publish(segment_path, sources, look)


@pytest.mark.anyio
async def test_sources_that_contradict_each_other_are_shown(segment_path: Path) -> None:
    """With the gap, whose sign says which is later, and with both errors; gone while one of the two has no time."""
    is_over = anyio.Event()

    async def first(emit: Emit) -> None:
        await emit(BodyUpdate.model_validate(time_fields()), epoch=emit.epoch)
        await anyio.sleep_forever()

    async def second(emit: Emit) -> None:
        await until(lambda: publisher.statistics().groups["time"] == "first")
        fields = time_fields()
        early = {"time_sec": fields["time_sec"] - 1000, "time_maxerror_nanosec": 10**9}
        await emit(BodyUpdate.model_validate(fields | early), epoch=emit.epoch)
        await is_over.wait()
        await emit(BodyUpdate(clock_status=ClockStatus.UNKNOWN), epoch=emit.epoch)
        await anyio.sleep_forever()

    def compared() -> dict[tuple[str, ...], float]:
        collector = PublisherCollector(publisher, fence=None)
        samples = (sample for family in collector.collect() for sample in family.samples)
        return {(s.name, *s.labels.values()): s.value for s in samples if "other" in s.labels}

    publisher = Publisher(segment_path, {"first": Scripted(first), "second": Scripted(second)}, agreement=True)
    assert compared() == {}
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(publisher.run)
            await until(lambda: any(pair.disagreements for pair in publisher.statistics().comparisons))
            samples = compared()
            is_over.set()
            await until(lambda: publisher.statistics().comparisons[0].intervals is None)
            after = compared()
            tasks.cancel_scope.cancel()
    (statistics,) = publisher.statistics().comparisons
    assert -1000 < samples["vmclock_source_gap_seconds", "first", "second"] < -998
    assert 0.001 <= samples["vmclock_source_gap_error_seconds", "first", "second"] < 1
    assert 1 <= samples["vmclock_source_gap_error_seconds", "second", "first"] < 2
    assert samples["vmclock_source_disagreements_total", "first", "second"] == 1
    assert after == {("vmclock_source_disagreements_total", "first", "second"): 1}
    assert (statistics.gap_ns, statistics.disagreements) == (0, 1)


@pytest.mark.anyio
async def test_counts_go_on_in_the_next_run(segment_path: Path) -> None:
    """A publisher that is run again has not forgotten a contradiction: counters do not fall."""

    async def jumping(emit: Emit) -> None:
        for seconds in (0, 1000):
            fields = time_fields()
            fields["time_sec"] += seconds
            await emit(BodyUpdate.model_validate(fields), epoch=emit.epoch)

    publisher = Publisher(segment_path, {"jumping": Scripted(jumping)})
    counts = []
    for _ in range(2):
        await publisher.run()
        counts.append(publisher.statistics().sources["jumping"].complaints["contradiction"])
    assert counts == [1, 3]  # the second run begins with a jump back


def test_registry_takes_either_and_refuses_both(segment_path: Path) -> None:
    """The collectors say what they have, without a scrape, so a registry refuses a name that comes twice."""
    registry = CollectorRegistry()
    registry.register(ClockCollector(segment_path))
    with pytest.raises(ValueError, match="vmclock_up"):
        registry.register(PublisherCollector(Publisher(segment_path, [Scripted(nothing)])))


async def nothing(emit: Emit) -> None:
    """A source's run that ends at once."""


def test_table_in_the_manual_has_every_metric() -> None:
    """Name, kind and labels of each metric, and no other."""
    text = (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8")
    table = {}
    for name, kind, labels in re.findall(r"^\| `(vmclock_\w+)` \| (\w+) \|([^|]*)\|", text, re.MULTILINE):
        table[name] = kind, frozenset(re.findall(r"`(\w+)`", labels))
    assert table == described(PublisherCollector(Publisher("/nowhere/shm0", [Scripted(nothing)])))
