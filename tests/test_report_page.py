"""The page of a report, opened in a browser: what one sees, by mouse and by keyboard; and that of 100,000 records."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from selenium.webdriver import ActionChains, Keys

from kit.browser import Browser, browser, needs_chromium
from vmclock_async._cli.reporting.columns import LARGEST
from vmclock_async.recording import RecordingReader

RECORDINGS = Path(__file__).parent.parent / "examples/recordings"
RECORDS: Final = 100_000
RESTORE: Final = RECORDINGS / "snapshot-restore.jsonl.gz"
PEAK_NS: Final = 9_000_000
REPORTING: Final = """
import re, sys
from pathlib import Path
from vmclock_async._cli import main

for recording, output in zip(sys.argv[1::2], sys.argv[2::2]):
    assert main(["report", recording, "--output", output]) == 0
    # The peak of this program's memory; getrusage() would count its parent's, too.
    print(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""

HOVERED = "document.querySelector('.hoverlayer .hovertext')?.textContent"


def write_long(path: Path) -> None:
    """A recording of 100,000 commits, ten a second, with one peak, one gap and one disruption.

    Lines are made from one record, because a writer makes each record safe in the file, which takes longer.
    """
    with RecordingReader(RECORDINGS / "live-migration.jsonl") as reader:
        header, (record,) = reader.header, reader.read(1)
    body = record.body
    line = record.body.model_dump_json()
    hz = 2 ** (64 + body.counter_period_shift) // body.counter_period_frac_sec
    with path.open("w", encoding="utf-8") as file:
        file.write(f"{header.model_dump_json()}\n")
        for at in range(RECORDS):
            counter = body.counter_value + at * hz // 10
            seconds, tenths = divmod(at, 10)
            changed = line
            for field, value in (
                ("counter_value", counter),
                ("time_sec", body.time_sec + seconds),
                ("time_frac_sec", (tenths << 64) // 10),
                ("time_maxerror_nanosec", PEAK_NS if at == 54_321 else 90_000),
                ("disruption_marker", 7 + (at >= 70_000)),
            ):
                changed = changed.replace(f'"{field}":{getattr(body, field)}', f'"{field}":{value}')
            seq_count = 2 * at + (2 if at < 30_000 else 22)
            file.write(f'{{"t_ns":{at * 10**8},"counter":{counter},"seq_count":{seq_count},"body":{changed}}}\n')


def report(*pairs: tuple[Path, Path]) -> list[int]:
    """Make the report of each recording, one after the other in one process; the peak of its memory after each, kB."""
    made = subprocess.run(
        [sys.executable, "-c", REPORTING, *(str(path) for pair in pairs for path in pair)],
        capture_output=True,
        text=True,
        check=True,
    )
    return [int(line) for line in made.stdout.splitlines() if line.isdigit()]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a restore."""
    page = tmp_path_factory.mktemp("report") / "restore.html"
    report((RESTORE, page))
    return page


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests here."""
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@needs_chromium
@pytest.mark.long
def test_page_shows_marks_and_values_under_the_mouse(chromium: Browser, page: Path) -> None:
    """Nothing is loaded, the console stays silent, and what is hovered shows its value."""
    chromium.open(page)
    assert chromium.value("document.querySelectorAll('.xy2 .point[tabindex]').length") == 3
    mark = chromium.driver.find_element("css selector", ".xy2 .point")
    ActionChains(chromium.driver).move_to_element(mark).perform()
    chromium.wait_for(f"({HOVERED} ?? '').startsWith('disrupted: marker 1 to 2')")
    # In the middle of the first second: between two commits the bound is 152 us and grows.
    x, y = chromium.value(
        """(() => {
            const { xaxis, yaxis } = picture._fullLayout, box = picture.getBoundingClientRect();
            const at = picture.data[0].x.findIndex((x) => x > 0.5);
            return [box.left + xaxis._offset + xaxis.d2p(picture.data[0].x[at]),
                    box.top + yaxis._offset + yaxis.d2p(picture.data[0].y[at])].map(Math.round);
        })()"""
    )
    chromium.command("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    chromium.wait_for(f"/^bound 17\\d us.*SYNCHRONIZED.*at 0.5\\d* seconds/.test({HOVERED} ?? '')")
    assert chromium.value("performance.getEntriesByType('resource').length") == 0
    assert chromium.complaints() == []


@needs_chromium
@pytest.mark.long
def test_marks_are_reached_by_keyboard(chromium: Browser, page: Path) -> None:
    """The Tab key goes from mark to mark, each with its text for those who cannot see it; and a list has them too."""
    chromium.open(page)
    seen = []
    for _ in range(8):
        ActionChains(chromium.driver).send_keys(Keys.TAB).perform()
        if chromium.value("document.activeElement.matches('.point')"):
            seen.append(chromium.value("document.activeElement.getAttribute('aria-label')"))
            chromium.wait_for(f"({HOVERED} ?? '').includes(document.activeElement.getAttribute('aria-label'))")
    listed = [button.text for button in chromium.driver.find_elements("css selector", "button[data-mark]")]
    assert seen == listed
    assert listed == [
        "disrupted: marker 1 to 2",
        "restored: generation 1592590337 to 1592590338",
        "no bounded time: clock_status is UNKNOWN",
    ]
    chromium.driver.find_elements("css selector", "button[data-mark]")[1].send_keys(Keys.ENTER)
    chromium.wait_for(f"({HOVERED} ?? '').startsWith('restored')")


@needs_chromium
@pytest.mark.long
def test_page_fits_a_phone_and_follows_the_dark_mode(chromium: Browser, page: Path) -> None:
    """Nothing is wider than the screen; the drawing takes the colors of the mode, also when that changes."""
    color = "getComputedStyle(document.querySelector('.xtick text')).fill"
    chromium.open(page, width=390, height=800, dark=True)
    assert chromium.value("document.documentElement.scrollWidth") == 390
    assert chromium.value("picture.getBoundingClientRect().right") <= 390
    assert chromium.value("getComputedStyle(document.body).backgroundColor") == "rgb(13, 17, 23)"
    assert chromium.value(color) == "rgb(230, 237, 243)"
    light = {"name": "prefers-color-scheme", "value": "light"}
    chromium.command("Emulation.setEmulatedMedia", features=[light])
    chromium.wait_for(f"{color} === 'rgb(27, 31, 36)'")
    assert chromium.complaints() == []


# One test, because a report of so many records takes seconds, and tests of one module run in several processes.
@needs_chromium
@pytest.mark.long
def test_long_recording_is_thinned_in_little_memory_without_losing_its_peak(
    chromium: Browser, tmp_path: Path
) -> None:
    """A few thousand points are left of 200,000; the peak of a tenth of a second and every mark are among them.

    100,000 records take little more memory than 21; as objects in a list they would take more than 200 MB.
    """
    recording, page = tmp_path / "long.jsonl", tmp_path / "long.html"
    write_long(recording)
    few, many = report((RESTORE, tmp_path / "restore.html"), (recording, page))
    assert many - few < 60_000
    drawn_ms = chromium.open(page)
    print(f"a page of {RECORDS:,} records was drawn {drawn_ms} ms after it was opened")  # noqa: T201
    assert LARGEST < chromium.value("picture.data[0].x.length") < 6 * LARGEST
    assert PEAK_NS < chromium.value("Math.max(...picture.data[0].y)") < PEAK_NS * 1.001
    assert chromium.value("picture.data.at(-1).text") == [
        "gap: 10 commits not seen, seq_count 60000 to 60022",
        "disrupted: marker 7 to 8, the published time jumped by +0 ns",
    ]
    assert chromium.complaints() == []
