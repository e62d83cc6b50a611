"""Intervals in pydantic models, JSON schemas and web services."""

import json
from typing import Annotated, Any

import anyio
import httpx
import pytest
from fastapi import Body, FastAPI
from hypothesis import given, strategies as st
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from kit.intervals import LARGEST, LEAST, intervals
from vmclock_async import TimeInterval


class Stamped(BaseModel):
    """A model with an interval in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    when: TimeInterval


def service() -> FastAPI:
    """A service that takes intervals and gives them."""
    app = FastAPI()

    @app.get("/now")
    async def now() -> TimeInterval:
        return TimeInterval(1, 2)

    @app.post("/stamped")
    async def stamped(stamp: Stamped, beside: Annotated[TimeInterval, Body()]) -> list[TimeInterval]:
        return [stamp.when, beside]

    return app


@given(intervals())
def test_model_carries_an_interval_through_json(interval: TimeInterval) -> None:
    """As a field, to JSON and to Python values and back, equal to itself."""
    stamped = Stamped(when=interval)
    assert stamped.when is interval
    assert Stamped.model_validate_json(stamped.model_dump_json()) == stamped
    assert Stamped.model_validate(stamped.model_dump()) == stamped
    values = {"earliest_ns": interval.earliest_ns, "latest_ns": interval.latest_ns, "status": interval._status}
    assert stamped.model_dump() == {"when": values}
    adapter = TypeAdapter(TimeInterval)
    assert adapter.validate_json(adapter.dump_json(interval)) == interval


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"earliest_ns": 2, "latest_ns": 1}, "earliest_ns must not be after latest_ns"),
        ({"earliest_ns": 1}, "latest_ns"),
        ({"earliest_ns": 1, "latest_ns": 2**63}, "less than or equal"),
        ({"earliest_ns": -(2**63) - 1, "latest_ns": 2}, "greater than or equal"),
        ({"earliest_ns": 1, "latest_ns": 2, "status": 256}, "status"),
        ({"earliest_ns": 1, "latest_ns": 2, "more": 1}, "more"),
        ({"earliest_ns": 1.5, "latest_ns": 2}, "earliest_ns"),
        (7, "dictionary"),
    ],
)
def test_model_refuses_what_is_no_interval(values: Any, where: str) -> None:
    """A ValidationError that says where, never a bare ValueError or OverflowError."""
    with pytest.raises(ValidationError, match=where):
        Stamped.model_validate({"when": values})


def test_json_schema_says_what_an_interval_is() -> None:
    """Both times are required 64-bit integers; the status, a byte, is not; for input and output alike."""
    for mode in ("validation", "serialization"):
        schema = Stamped.model_json_schema(mode=mode)
        assert schema["properties"]["when"] == {"$ref": "#/$defs/TimeInterval"}, mode
        found = schema["$defs"]["TimeInterval"]
        assert found["title"] == "TimeInterval", mode
        assert "2**53" in found["description"], mode
        assert set(found["properties"]) == {"earliest_ns", "latest_ns", "status"}, mode
        assert found["required"] == ["earliest_ns", "latest_ns"], mode
        assert found["additionalProperties"] is False, mode
        bounds = found["properties"]["earliest_ns"]
        assert (bounds["minimum"], bounds["maximum"], bounds["type"]) == (LEAST, LARGEST, "integer")


def test_openapi_has_one_component_for_intervals() -> None:
    """FastAPI shows an interval by its name wherever a service takes or gives one, alone or in a model."""
    schemas = service().openapi()["components"]["schemas"]
    assert {name for name in schemas if "Interval" in name} == {"TimeInterval"}
    assert schemas["Stamped"]["properties"]["when"] == {"$ref": "#/components/schemas/TimeInterval"}


async def _answers(app: FastAPI, stamp: dict[str, Any], beside: dict[str, Any]) -> tuple[Any, Any]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
        now = await client.get("/now")
        stamped = await client.post("/stamped", json={"stamp": {"when": stamp}, "beside": beside})
        return now.json(), stamped.json()


def test_service_takes_numbers_as_strings() -> None:
    """What a JavaScript program sends as strings of digits is taken to the nanosecond; answers are integers."""
    strings = {"earliest_ns": "1768478400123456789", "latest_ns": "1768478400123456790"}
    now, stamped = anyio.run(_answers, service(), strings, {"earliest_ns": 3, "latest_ns": 4})
    assert now == {"earliest_ns": 1, "latest_ns": 2, "status": 2}
    first = {"earliest_ns": 1_768_478_400_123_456_789, "latest_ns": 1_768_478_400_123_456_790, "status": 2}
    assert stamped == [first, {"earliest_ns": 3, "latest_ns": 4, "status": 2}]


@given(intervals(), st.booleans())
def test_model_takes_what_as_dict_gives(interval: TimeInterval, strings: bool) -> None:
    """Numbers or strings, in Python or JSON: the interval comes back whole."""
    given = interval.as_dict(strings=strings)
    assert Stamped.model_validate({"when": given}).when == interval
    assert Stamped.model_validate_json(json.dumps({"when": given})).when == interval


@pytest.mark.parametrize(
    ("name", "value"), [("midpoint_ns", 4), ("error_ns", 6), ("status", "SYNCED"), ("earliest_ns", 2.5)]
)
def test_model_refuses_a_dictionary_that_contradicts_itself(name: str, value: object) -> None:
    """The middle and the error are checked against the times; a status has the ABI's name."""
    with pytest.raises(ValidationError, match=name if name != "status" else "SYNCED"):
        Stamped.model_validate({"when": {**TimeInterval(0, 10).as_dict(), name: value}})
