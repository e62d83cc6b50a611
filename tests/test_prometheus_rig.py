"""A real Prometheus takes the metrics and the rules as they ship, and fires when a publisher is killed."""

import re
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from kit.exporters import address_of, exporters
from kit.forks import Started
from kit.prometheus import PROMTOOL, Prometheus, needs_prometheus
from kit.scrapes import scrape
from kit.waits import eventually

pytestmark = [needs_prometheus, pytest.mark.long]

DEPLOY = Path(__file__).parent.parent / "deploy/prometheus"


def promtool(*words: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run promtool."""
    assert PROMTOOL is not None
    return subprocess.run([PROMTOOL, *words], cwd=DEPLOY, input=text, capture_output=True, text=True, check=False)


def test_rules_are_valid_and_fire_as_their_tests_say() -> None:
    """promtool checks the rules, and runs the tests that ship beside them."""
    for words in (("check", "rules", "rules.yml"), ("test", "rules", "rules_test.yml")):
        done = promtool(*words)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_test_that_it_fires() -> None:
    """An alert without one could have an expression that nothing meets."""
    alerts = set(re.findall(r"alert: (\w+)", (DEPLOY / "rules.yml").read_text()))
    tests = (DEPLOY / "rules_test.yml").read_text()
    assert len(alerts) == 8
    assert set(re.findall(r"alertname: (\w+)\n +exp_alerts:\n", tests)) == alerts
    assert set(re.findall(r"alertname: (\w+), exp_alerts: \[\]", tests)) == alerts


def test_configuration_in_the_manual_is_valid(tmp_path: Path) -> None:
    """Prometheus takes it, with the job's name that the rules ask for."""
    text = (DEPLOY.parent.parent / "docs/how-to/metrics.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```text\n(rule_files:.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "prometheus.yml").write_text(shown)
    (tmp_path / "vmclock.yml").write_text((DEPLOY / "rules.yml").read_text())
    done = promtool("check", "config", str(tmp_path / "prometheus.yml"))
    assert done.returncode == 0, done.stderr
    assert "8 rules found" in done.stdout
    (job,) = re.findall(r"job_name: (\w+)", shown)
    assert f'up{{job="{job}"}}' in (DEPLOY / "rules.yml").read_text()


soon = partial(eventually, pause_s=0.1)
"""A look costs Prometheus some milliseconds."""


def hasty_rules(directory: Path) -> Path:
    """The rules, which fire after seconds."""
    text, ages = re.subn(r"(vmclock_reference_age_seconds >) 60", r"\1 3", (DEPLOY / "rules.yml").read_text())
    text, waits = re.subn(r"for: \d+m", "for: 0s", text)
    assert (ages, waits) == (1, 5)
    path = directory / "rules.yml"
    path.write_text(text)
    return path


@pytest.mark.waits
def test_killed_publisher_fires_an_alert(
    start_script: Callable[..., Started], segment_path: Path, tmp_path: Path
) -> None:
    """A reader's exporter shows its age, and its own is gone; the page still says SYNCHRONIZED, and gives a time."""
    with exporters(segment_path.parent) as start:
        publisher = start_script("publish_with_metrics", segment_path)
        assert publisher.stdout is not None
        own, readers = (
            publisher.stdout.readline().strip(),
            address_of(start("metrics", segment_path, "--listen", ":0")),
        )
        for address in (own, readers):
            checked = promtool("check", "metrics", text=scrape(address))
            assert (checked.returncode, checked.stdout) == (0, ""), checked.stderr
        with Prometheus(hasty_rules(tmp_path), own, readers) as prometheus:
            # Four scrapes of each, with bounded times: the rules have been evaluated in between.
            soon(
                lambda: (
                    prometheus.query("min(sum_over_time(vmclock_bounded[1m])) >= 4") and not prometheus.firing()
                )
            )
            publisher.kill()
            soon(lambda: {("VMClockExporterDown", own), ("VMClockReferenceOld", readers)} <= prometheus.firing())
            soon(lambda: prometheus.query('vmclock_clock_status{status="SYNCHRONIZED"}') == [1])
            assert "VMClockUnbounded" not in {name for name, _ in prometheus.firing()}
