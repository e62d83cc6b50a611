"""``vmclock-async report`` as a real process: the page, the summary, and what it refuses."""

import json
import re
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from kit.commands import assert_one_line, command, failure, run_command
from kit.recordings import some_records, write
from kit.terminals import run_on_terminal

RECORDINGS = Path(__file__).parent.parent / "examples/recordings"
MIGRATION = RECORDINGS / "live-migration.jsonl"
LOADED_BY = {"src", "href", "data", "action", "formaction", "poster", "srcset", "background", "cite", "xlink:href"}

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs the command line to its end."""
    return lambda *args, **variables: run_command(tmp_path, *args, variables=variables)


class Page(HTMLParser):
    """The attributes, and the texts of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: dict[str, list[str]] = {}
        self._tag = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._tag = tag
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        self._tag = ""

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self._tag, []).append(data)


def test_page_has_all_that_it_needs_and_forbids_every_load(run: Run, tmp_path: Path) -> None:
    """No element leads out of the page, no style does, and the policy lets the browser load nothing."""
    output = tmp_path / "report.html"
    done = run("report", MIGRATION, "--output", output)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{output}: 24 records, bound p50 137 us, max 471 us, 3 events and gaps\n"
    page = Page(output.read_text(encoding="utf-8"))
    leading = [value for _, name, value in page.attributes if name in LOADED_BY]
    assert leading == ["#events"]
    assert not {tag for tag, _, _ in page.attributes} & {
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "base",
        "form",
    }
    assert not re.search(r"@import|url\(", "".join(page.texts["style"]))
    own = [text for text in page.texts["script"] if len(text) < 10**6]
    assert len(own) == 2  # the figure, and our script; plotly.js names sites, which the policy forbids to load
    assert "<" not in own[0]  # so that nothing in it ends its element
    assert not re.search(r"https?:|//\w", re.sub(r"^ *//.*$", "", "".join(own), flags=re.MULTILINE))
    (policy,) = [
        value for tag, name, value in page.attributes if (tag, name) == ("meta", "content") and "src" in value
    ]
    assert "default-src 'none'" in policy
    assert set(re.findall(r"[a-z]+:", policy)) == {"data:", "blob:"}
    assert "*" not in policy


def test_name_of_the_recording_cannot_be_markup(run: Run, tmp_path: Path) -> None:
    """Whatever a file is called."""
    recording = tmp_path / "<script>alert(1)<"
    recording.write_bytes(MIGRATION.read_bytes())
    output = tmp_path / "report.html"
    assert run("report", recording, "--output", output).returncode == 0
    text = output.read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;" in text


def test_summary_as_json(run: Run, tmp_path: Path) -> None:
    """One object with the numbers, in nanoseconds."""
    output = tmp_path / "report.html"
    done = run("report", MIGRATION, "--output", output, "--json")
    (line,) = done.stdout.splitlines()
    said = json.loads(line)
    assert said == {
        "path": str(MIGRATION),
        "output": str(output),
        "records": 24,
        "duration_ns": 21_000_608_156,
        "bound_ns": {"p50": said["bound_ns"]["p50"], "p90": said["bound_ns"]["p90"], "p99": 460705, "max": 470288},
        "bound_max_at_ns": 14_002_871_746,
        "update_interval_ns": said["update_interval_ns"],
        "status_ns": {"SYNCHRONIZED": 19_303_136_008, "UNKNOWN": 750_020_000, "INITIALIZING": 947_452_148},
        "unbounded_ns": 1_697_472_148,
        "commits_missed": 0,
        "events": {"maintenance": 1, "disrupted": 1, "unbounded": 1},
    }


def test_recording_without_a_bound_says_so(run: Run, tmp_path: Path) -> None:
    """There are no quantiles of what never was."""
    recording = write(tmp_path / "never.jsonl", some_records(3))
    done = run("report", recording, "--output", tmp_path / "report.html", "--json")
    assert json.loads(done.stdout)["bound_ns"] is None
    done = run("report", recording, "--output", tmp_path / "report.html")
    assert "never a bounded time" in done.stdout


def test_bad_recording_is_told_in_one_line(run: Run, tmp_path: Path) -> None:
    """With the number of the line; and no page is there."""
    output = tmp_path / "report.html"
    lines = MIGRATION.read_text(encoding="utf-8").splitlines()
    broken = tmp_path / "broken.jsonl"
    broken.write_text("\n".join([*lines[:3], "nonsense", *lines[3:]]))
    assert_one_line(run("report", broken, "--output", output), f"{broken}, line 4")
    said = failure(run("report", tmp_path / "missing.jsonl", "--output", output, "--json"))
    assert (said["error"], said["path"]) == ("RecordingError", str(tmp_path / "missing.jsonl"))
    assert not output.exists()


def test_earlier_report_is_replaced_and_another_file_is_not(run: Run, tmp_path: Path) -> None:
    """A second run is no trouble; the recording itself, as its own output, stays what it was."""
    output = tmp_path / "report.html"
    assert run("report", RECORDINGS / "leap-second.jsonl", "--output", output).returncode == 0
    assert run("report", MIGRATION, "--output", output).returncode == 0
    assert "live-migration.jsonl" in output.read_text(encoding="utf-8")
    assert output.stat().st_mode & 0o777 == 0o644  # by the umask, as any file that a program makes
    output.write_bytes(b"")  # as mktemp(1) leaves one
    assert run("report", MIGRATION, "--output", output).returncode == 0
    recording = tmp_path / "recording.jsonl"
    recording.write_bytes(MIGRATION.read_bytes())
    refused = run("report", recording, "--output", recording)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "exists and is no report; choose another path" in refused.stderr
    assert recording.read_bytes() == MIGRATION.read_bytes()
    assert run("report", recording, "--output", tmp_path).returncode == 1  # a directory
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "recording.jsonl"}


def test_output_that_cannot_be_written_is_told_in_one_line(run: Run, tmp_path: Path) -> None:
    """Its directory is not there."""
    assert_one_line(run("report", MIGRATION, "--output", tmp_path / "nowhere" / "report.html"), "nowhere")


def test_write_that_fails_leaves_the_earlier_report_and_nothing_else(run: Run, tmp_path: Path) -> None:
    """Where no file may have more than a hundred blocks."""
    output = tmp_path / "report.html"
    assert run("report", RECORDINGS / "leap-second.jsonl", "--output", output).returncode == 0
    before = output.read_bytes()
    limited = ["bash", "-c", 'ulimit -f 100; exec "$@"', "bash", *command("report", MIGRATION, "--output", output)]
    failed = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert_one_line(failed, "File too large")
    assert output.read_bytes() == before
    assert list(tmp_path.iterdir()) == [output]


def test_link_as_output_stays_a_link(run: Run, tmp_path: Path) -> None:
    """The page is written where it leads."""
    (tmp_path / "link.html").symlink_to(tmp_path / "report.html")
    assert run("report", MIGRATION, "--output", tmp_path / "link.html").returncode == 0
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "report.html").stat().st_size > 10**6


def test_missing_library_is_told_in_one_line(run: Run, tmp_path: Path) -> None:
    """With what to install; as JSON too."""
    absent = tmp_path / "absent"
    absent.mkdir()
    (absent / "plotly.py").write_text("raise ModuleNotFoundError('no plotly', name='plotly')\n")
    output = tmp_path / "report.html"
    done = run("report", MIGRATION, "--output", output, PYTHONPATH=str(absent))
    assert_one_line(done, "a report needs plotly; install it with: pip install 'vmclock-async[report]'")
    said = failure(run("report", MIGRATION, "--output", output, "--json", PYTHONPATH=str(absent)))
    assert said["remedy"] == "install it with: pip install 'vmclock-async[report]'"


def test_progress_is_shown_on_a_terminal(tmp_path: Path) -> None:
    """And on no pipe, as the other tests see."""
    status, drawn = run_on_terminal("report", MIGRATION, "--output", tmp_path / "report.html")
    assert status == 0, drawn
    assert "reading records" in drawn
    assert "24 records, bound p50" in drawn
