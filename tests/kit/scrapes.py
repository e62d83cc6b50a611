"""Scrapes: the samples in the text that an exporter gives, by name and labels."""

import urllib.request

from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

__all__ = ("Samples", "described", "samples_in", "samples_of", "scrape")

Samples = dict[str, float]
"""Values by name, with the values of the labels in the order of their names: ``name{a,b}``."""


def samples_in(text: str) -> Samples:
    """The samples in *text*, in Prometheus' format."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            values = ",".join(value for _, value in sorted(sample.labels.items()))
            key = f"{sample.name}{{{values}}}" if values else sample.name
            assert key not in found, f"{key} is there twice"
            found[key] = sample.value
    return found


def samples_of(collector: Collector) -> Samples:
    """The samples of one scrape of *collector*, by way of its text."""
    return samples_in(generate_latest(collector).decode())


def scrape(address: str, path: str = "/metrics") -> str:
    """What the exporter at *address* answers."""
    with urllib.request.urlopen(f"http://{address}{path}", timeout=20) as answer:
        text: bytes = answer.read()
    return text.decode()


def described(collector: Collector) -> dict[str, tuple[str, frozenset[str]]]:
    """Kinds and labels of what *collector* may have, by name."""
    found = {}
    for family in collector.describe():  # type: ignore[attr-defined]
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = family.type, frozenset(family._labelnames)
    return found
