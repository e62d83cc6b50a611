"""What all answers together come to, in simulated time: true time is inside, whatever the servers and ways are like."""

import os
import random
from typing import Any

import pytest

import vmclock_ntp.knowledge
from kit.ntp_exchanges import NOW_NS, NS, exchange
from kit.ntp_world import START_NS, Model, NtpWorld
from vmclock_async import LeapIndicator
from vmclock_ntp.knowledge import Lack, Measured
from vmclock_ntp.leap import end_of_month_ns

WORLDS = int(os.environ.get("VMCLOCK_ASYNC_NTP_WORLDS", "6"))
MS = 10**6


def world(**models: Model) -> NtpWorld:
    return NtpWorld(models, random.Random(1))


def random_model(draw: random.Random) -> Model:
    return Model(
        there_ns=draw.choice((0, 50_000, 2 * MS, 90 * MS)),
        back_ns=draw.choice((0, 50_000, 2 * MS, 90 * MS)),
        stated_ns=draw.choice((0, 100_000, 3 * MS)),
        delay_ns=draw.choice((0, MS, 50 * MS)),
        loses=draw.choice((0.0, 0.0, 0.3, 0.9)),
    )


@pytest.mark.parametrize("seed", range(WORLDS))
def test_true_time_is_in_every_interval(seed: int) -> None:
    """For one to eight servers of any quality, and from three up with as many liars as there may be, over ten
    minutes."""
    draw = random.Random(seed)
    random.seed(seed)  # the pauses between requests
    models = {f"s{number}": random_model(draw) for number in range(draw.randint(1, 8))}
    liars = (len(models) - 1) // 2
    for number, model in enumerate(models.values()):
        if liars:
            model.loses = min(model.loses, 0.3)  # else the liars may be left alone
        if number < liars:
            model.off_ns = draw.choice((0, -400 * MS, 10**12, draw.randint(-5 * MS, 5 * MS)))
            model.fast_ppm = draw.choice((0, 0, draw.randint(-400, 400)))
    simulated = NtpWorld(models, draw)
    simulated.run(600)
    assert simulated.wrong == []
    if max(model.loses for model in models.values()) < 0.9:
        assert len(simulated.updates) > 500


@pytest.mark.parametrize("alone", [True, False])
def test_bound_gets_small(alone: bool) -> None:
    """A server nearby gives a bound below a millisecond within a minute, though its answers are 16 s apart; two of
    them a smaller one at best."""
    models = (
        {"a": Model(stated_ns=50_000)} if alone else {"a": Model(stated_ns=50_000), "b": Model(stated_ns=50_000)}
    )
    simulated = world(**models)
    simulated.run(120)
    assert simulated.wrong == []
    assert max(simulated.half_widths_ns[60:]) < 2 * MS
    assert min(simulated.half_widths_ns) < 300_000


def test_liar_is_named(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, with its interval and that of the others; and again when it has been right for a while."""
    monkeypatch.setattr(vmclock_ntp.knowledge, "CALM_VOTES", 30)
    simulated = world(a=Model(), b=Model(), liar=Model(off_ns=700 * MS))
    simulated.run(60)
    (message,) = caplog.messages
    assert "found false" in message
    assert "liar (" in message
    assert message.count(" ns") == 2
    simulated.models["liar"].off_ns = 0
    caplog.set_level("INFO")
    simulated.run(60)
    assert simulated.wrong == []
    assert "no server is found false by the others any more" in caplog.messages[-1]


@pytest.mark.parametrize("names", ["ab-liar", "a-liar"])
def test_liar_that_is_a_little_off_is_named_once(names: str, caplog: pytest.LogCaptureFixture) -> None:
    """Its interval overlaps with the others' whenever it has grown for a while: that is no new quarrel each time. Of
    two, what both contain then is not the truth."""
    first, _, liar = names.partition("-")
    simulated = world(
        **{name: Model(stated_ns=50_000) for name in first}, **{liar: Model(stated_ns=50_000, off_ns=MS)}
    )
    simulated.run(300)
    assert simulated.wrong == []
    assert simulated.updates
    assert len(caplog.messages) == 1


def test_liar_does_not_become_right_because_the_others_fail() -> None:
    """Left alone it gives no time, and the others' last one stays as it is."""
    simulated = world(a=Model(), b=Model(), liar=Model(off_ns=700 * MS))
    simulated.run(60)
    simulated.models["a"].loses = simulated.models["b"].loses = 1.0
    simulated.run(700)
    assert simulated.lacks[-1] is Lack.NO_TIME
    assert simulated.wrong == []


def test_fast_liar_is_found_when_it_has_left(caplog: pytest.LogCaptureFixture) -> None:
    """One whose clock is fast by 100 ppm is inside at first, and the bound holds all the time."""
    simulated = world(a=Model(stated_ns=MS), b=Model(stated_ns=MS), liar=Model(stated_ns=10_000, fast_ppm=100))
    simulated.run(300)
    assert simulated.wrong == []
    assert "found false" in caplog.text


def test_two_that_contradict_each_other_give_no_time(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody knows which one is right: one line names both, and time returns when they agree again."""
    simulated = world(a=Model(), b=Model(off_ns=700 * MS))
    simulated.run(30)
    assert set(simulated.lacks) == {Lack.NO_TIME}
    assert simulated.updates == []
    (message,) = caplog.messages
    assert "a has " in message
    assert "b has " in message
    simulated.models["b"].off_ns = 0
    simulated.run(60)
    assert simulated.updates
    assert simulated.wrong == []


def test_server_that_stepped_is_followed(caplog: pytest.LogCaptureFixture) -> None:
    """A single server is believed, as it breaks its own promise; the log has what it said before and now."""
    simulated = world(only=Model())
    simulated.run(30)
    simulated.models["only"].off_ns = 500 * MS
    simulated.run(60)
    assert "the clock of only was stepped" in caplog.text
    contradicted = simulated.wrong
    simulated.models["only"].off_ns = 0
    simulated.run(30)
    before = len(simulated.wrong)
    simulated.run(60)
    assert contradicted
    assert len(simulated.wrong) == before


def test_silence_ends_the_time() -> None:
    """After eight lost requests in a row; until then each second has its interval, ever wider."""
    simulated = world(only=Model())
    simulated.run(30)
    simulated.models["only"].loses = 1.0
    simulated.run(600)
    assert simulated.lacks
    assert simulated.lacks[-1] is Lack.NO_TIME
    assert simulated.wrong == []
    assert simulated.half_widths_ns[-1] > 10 * simulated.half_widths_ns[29]
    simulated.models["only"].loses = 0.0
    simulated.run(90)
    assert simulated.half_widths_ns[-1] < 3 * MS


# Leap seconds


def test_month_ends_when_it_ends() -> None:
    """In December too, and to the nanosecond."""
    new_year_ns = 1_798_761_600 * NS
    assert end_of_month_ns(new_year_ns - 1) == new_year_ns
    assert end_of_month_ns(new_year_ns) == new_year_ns + 31 * 86_400 * NS
    assert end_of_month_ns(new_year_ns - 40 * 86_400 * NS) == new_year_ns - 31 * 86_400 * NS


def at_end_of_month(before_s: int, **models: Model) -> NtpWorld:
    """A world in which an announced leap second is *before_s* away."""
    simulated = world(**models)
    simulated.leap_ns = end_of_month_ns(START_NS)
    ns = simulated.leap_ns - before_s * NS - simulated.true_ns
    simulated._go_on(ns)
    simulated._due_s = dict.fromkeys(simulated._due_s, 0.0)
    return simulated


@pytest.mark.parametrize("lost_from_s", [None, -10, -800])
def test_announced_leap_second_makes_no_interval_wrong(lost_from_s: int | None) -> None:
    """From two seconds before it until two after it nothing is measured; then everything is new, also when no answer
    comes for minutes after it, or has come for long before it. What the page has from before it says what is due."""
    begins_s = -860 if lost_from_s == -800 else -100
    simulated = at_end_of_month(-begins_s, a=Model(leap=1), b=Model())
    simulated.run((lost_from_s or -10) - begins_s)
    assert {update.leap_indicator for update in simulated.updates} == {LeapIndicator.PRE_POS}
    if lost_from_s is not None:
        simulated.models["a"].loses = simulated.models["b"].loses = 1.0
    simulated.run(20 - (lost_from_s or -10))
    if lost_from_s != -800:
        assert Lack.LEAP_NEAR in simulated.lacks
        assert Lack.FORGOTTEN in simulated.lacks
    if lost_from_s is not None:
        simulated.run(300)
        simulated.models["a"].loses = simulated.models["b"].loses = 0.0
    simulated.run(120)
    assert simulated.wrong == []
    assert simulated.updates[-1].leap_indicator == LeapIndicator.NONE
    assert simulated.half_widths_ns[-1] < 5 * MS


def test_leap_second_that_few_announce_counts() -> None:
    """One of three that agree is enough; one that is found false counts for nothing."""
    simulated = world(a=Model(), b=Model(), c=Model(leap=2))
    simulated.run(10)
    assert simulated.updates[-1].leap_indicator == LeapIndicator.PRE_NEG
    simulated.models["c"].off_ns = 700 * MS
    simulated.run(30)
    assert simulated.updates[-1].leap_indicator == LeapIndicator.NONE


# What single answers do


@pytest.mark.parametrize(
    "fields",
    [
        {"leap": 3},
        {"stratum": 16},
        {"stratum": 0, "reference_id": b"INIT"},
        {"held_ns": NS},
        {"root_delay": 131072},
    ],
)
def test_answers_of_no_use_change_nothing(fields: dict[str, Any]) -> None:
    """The server has failed to answer, and the measurement is what it would have been."""
    simulated = world(only=Model())
    simulated.run(10)
    (server,) = simulated.knowledge.servers
    before = simulated.knowledge.measure(simulated.counter)
    simulated.knowledge.hear(server, exchange(counter=simulated.counter, ns=NOW_NS, **fields))
    assert simulated.knowledge.measure(simulated.counter) == before
    assert isinstance(before, Measured)
    assert server.failure


def test_epoch_voids_everything() -> None:
    """Answers, baseline and leap second; the same epoch once more voids nothing."""
    simulated = world(only=Model(leap=1))
    simulated.run(40)
    assert simulated.knowledge.was_synchronized
    simulated.knowledge.begin(0)
    assert simulated.knowledge.has_answers
    simulated.knowledge.begin(1)
    assert not simulated.knowledge.has_answers
    assert not simulated.knowledge.was_synchronized
    assert simulated.knowledge.measure(simulated.counter) is Lack.NO_TIME


def test_counter_that_was_set_back_voids_everything() -> None:
    """If the publisher has not seen it: its rate cannot be told, and the servers are asked again."""
    simulated = world(only=Model())
    simulated.run(10)
    rates = [simulated.knowledge._raw]

    def raw() -> Any:
        if len(rates) == 1:
            rates.append(raw)
            raise ValueError("the counter was set back")
        return rates[0]()

    simulated.knowledge._raw = raw
    assert simulated.knowledge.measure(simulated.counter) is Lack.FORGOTTEN
    assert not simulated.knowledge.has_answers
    assert simulated.knowledge.measure(simulated.counter) is Lack.NO_TIME
