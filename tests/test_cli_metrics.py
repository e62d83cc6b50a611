"""``vmclock-async metrics`` and ``publish --metrics``, as processes."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kit.commands import assert_one_line, failure, run_command
from kit.exporters import RECORDING, address_of, exporters, publishing
from kit.forks import Started
from kit.scrapes import Samples, samples_in, scrape
from kit.waits import eventually
from vmclock_async.testing import PlayedSegment


@pytest.fixture
def start(segment_path: Path) -> Iterator[Callable[..., Started]]:
    """Starts the command line, with pipes from it; killed when the test ends."""
    with exporters(segment_path.parent) as start:
        yield start


def test_metrics_are_printed_once(segment_path: Path) -> None:
    """The text on stdout; a segment that is not there is no failure."""
    gone = run_command(segment_path.parent, "metrics", segment_path)
    assert (gone.returncode, gone.stderr) == (0, "")
    assert samples_in(gone.stdout)["vmclock_up"] == 0
    with PlayedSegment(segment_path.parent) as played:
        there = run_command(segment_path.parent, "metrics", variables={"VMCLOCK_ASYNC_SEGMENT": str(played.path)})
    assert (there.returncode, there.stderr) == (0, "")
    assert samples_in(there.stdout)["vmclock_bounded"] == 1
    assert "# TYPE vmclock_commits_total counter\n" in there.stdout


def test_metrics_as_json_are_those_of_the_text(segment_path: Path) -> None:
    """One object, with each sample's name, labels and value; not for what is printed nowhere."""
    (line,) = run_command(segment_path.parent, "metrics", "--json", segment_path).stdout.splitlines()
    samples = {sample["name"]: sample for sample in json.loads(line)["samples"]}
    assert samples["vmclock_up"] == {"name": "vmclock_up", "labels": {}, "value": 0}
    assert samples["vmclock_unbounded_info"]["labels"] == {"error": "SegmentNotInitializedError"}
    refused = run_command(segment_path.parent, "metrics", "--json", "--listen", ":0", segment_path)
    assert failure(refused, status=2)["reason"].startswith("Invalid value for --json: ")


def test_textfile_is_replaced_as_a_whole(segment_path: Path, tmp_path: Path) -> None:
    """node_exporter finds the old file or the new one, and may read it; nothing is left beside it."""
    directory = tmp_path / "collector"
    directory.mkdir()
    file = directory / "vmclock.prom"
    file.write_text("old\n")
    with file.open() as old:
        done = run_command(tmp_path, "metrics", segment_path, "--textfile", file)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert old.read() == "old\n"
    assert samples_in(file.read_text())["vmclock_up"] == 0
    assert os.listdir(directory) == ["vmclock.prom"]
    assert file.stat().st_mode & 0o777 == 0o644


def test_textfile_that_cannot_be_written_is_one_line(segment_path: Path, tmp_path: Path) -> None:
    """It names the path, and the exit status is 1, so that a timer fails."""
    file = tmp_path / "missing" / "vmclock.prom"
    assert_one_line(run_command(tmp_path, "metrics", segment_path, "--textfile", file), str(file), "No such file")


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("metrics", "--listen", "9123"), "'9123' is no address to listen on"),
        (("metrics", "--textfile", "vmclock.txt"), "node_exporter reads names that end in .prom alone"),
        (("metrics", "--textfile", "vmclock.prom", "--listen", ":0"), "take this or --listen"),
        (("publish", "kernel", "--metrics", "localhost:9123"), "'localhost:9123' is no address to listen on"),
    ],
)
def test_wrong_usage_is_one_line(tmp_path: Path, options: tuple[str, ...], part: str) -> None:
    """Exit status 2, and what is expected."""
    wrong = run_command(tmp_path, *options)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert part in wrong.stderr
    assert len(wrong.stderr.splitlines()) == 1


def test_without_prometheus_client_one_line_says_how_to_install_it(
    start_script: Callable[..., Started], segment_path: Path
) -> None:
    """Both commands name the extra; the others, and the help, work."""
    for arguments in (
        ("metrics",),
        ("metrics", "--listen", ":0"),
        ("publish", "kernel", "--segment", segment_path, "--metrics", ":0"),
    ):
        process = start_script("metrics_without_prometheus_client", *arguments, stderr=subprocess.PIPE)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out) == (1, "")
        assert err == (
            "vmclock-async: metrics need prometheus-client; install it with: pip install 'vmclock-async[metrics]'\n"
        )
    assert not segment_path.exists()
    helped = start_script("metrics_without_prometheus_client", "--help")
    assert "metrics" in helped.communicate(timeout=30)[0]
    assert helped.returncode == 0


def test_reader_is_scraped_until_it_is_told_to_end(start: Callable[..., Started], segment_path: Path) -> None:
    """It begins before there is a segment, follows it, and SIGTERM is a clean end that frees the port."""
    process = start("metrics", segment_path, "--listen", ":0")
    address = address_of(process)
    assert address.startswith("127.0.0.1:")
    assert samples_in(scrape(address))["vmclock_up"] == 0
    with PlayedSegment(segment_path.parent):
        assert samples_in(scrape(address))["vmclock_bounded"] == 1
    process.terminate()
    assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == 0
    with pytest.raises(OSError, match="refused"):
        scrape(address)


def test_publisher_is_scraped_while_it_runs(start: Callable[..., Started], segment_path: Path) -> None:
    """Its own counts beside those of its segment; they end with it."""
    process = start(*publishing(segment_path))
    address = address_of(process)

    def bounded() -> Samples | None:
        samples = samples_in(scrape(address))
        return samples if samples["vmclock_bounded"] else None

    samples = eventually(bounded)
    assert samples["vmclock_publisher_commits_total"] >= samples["vmclock_commits_total"] - 1
    assert samples["vmclock_source_updates_total{replay}"] >= 1
    assert samples["vmclock_source_published{time,replay}"] == samples["vmclock_source_state{replay,running}"] == 1
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    with pytest.raises(OSError, match="refused"):
        scrape(address)


def test_address_in_use_is_one_line_and_writes_nothing(tmp_path: Path, segment_path: Path) -> None:
    """Known before the first commit; as JSON too."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        sets: tuple[Any, ...] = (
            "--set",
            f"replay.path={RECORDING}",
            "--segment",
            segment_path,
            "--metrics",
            address,
        )
        assert_one_line(run_command(tmp_path, "publish", "replay", *sets), address, "EADDRINUSE", "choose another")
        said = failure(run_command(tmp_path, "publish", "replay", "--json", *sets))
        assert said["error"] == "MetricsAddressError"
        listening = run_command(tmp_path, "metrics", segment_path, "--listen", address)
        assert_one_line(listening, address, "EADDRINUSE")
    assert not segment_path.exists()
