"""``install-units``: files that systemd takes and the manual shows; the publisher works as confined as they say."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

import pytest

from kit.chronyd import Chronyd, needs_chronyd
from kit.commands import assert_one_line, environment, failure, run_command
from kit.mounts import in_own_mounts
from kit.played_manager import PlayedManager
from kit.programs import path_of
from kit.replays import ROOT
from kit.systemd import analyze, confined_command, needs_systemd
from vmclock_async._cli import main
from vmclock_async._cli.install_units import NEXT
from vmclock_async._cli.units import arguments, command, hidden_parts, sources, units
from vmclock_ptp.kinds import UNKNOWN, kind_of

SERVICE: Final = "/etc/systemd/system/vmclock-async.service"
BOUNDED: Final = "/etc/systemd/system/vmclock-bounded.service"
MANUAL: Final = ROOT / "docs/how-to/systemd.md"
INTERPRETER: Final = (sys.executable, "-W", "error")
"""What ``in_own_mounts`` runs."""
FILES: Final = units(command(), sources())


@pytest.fixture
def install(tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs ``install-units`` below a directory of the test's."""
    return lambda *args: run_command(tmp_path, "install-units", "--root", tmp_path / "root", *args)


Install = Callable[..., "subprocess.CompletedProcess[str]"]


def written(tmp_path: Path) -> dict[str, str]:
    """The files below the root, by path."""
    root = tmp_path / "root"
    return {f"/{path.relative_to(root)}": path.read_text() for path in root.rglob("*") if path.is_file()}


def test_files_are_written_and_named(install: Install, tmp_path: Path) -> None:
    """All of them, whole, readable by all; and run again it changes nothing."""
    said = json.loads(install("--json").stdout)
    assert written(tmp_path) == dict(FILES)
    assert said["written"] == [f"{tmp_path}/root{path}" for path in FILES]
    assert {Path(path).stat().st_mode & 0o777 for path in said["written"]} == {0o644}
    again = json.loads(install("--json").stdout)
    assert (again["written"], again["unchanged"]) == ([], said["written"])


def test_printed_files_are_those_that_are_written(tmp_path: Path) -> None:
    """``--print`` shows them under their paths, and with ``--json`` as one object; it writes nothing."""
    printed = run_command(tmp_path, "install-units", "--print")
    assert printed.stdout == "\n".join(FILES.values())
    shown = json.loads(run_command(tmp_path, "install-units", "--print", "--json").stdout)
    assert shown == {"files": dict(FILES)}
    for path, text in FILES.items():
        assert text.startswith(f"# {path}\n")
    assert run_command(tmp_path, "install-units", "--print", "--root", tmp_path).returncode == 2
    assert not written(tmp_path)


def test_file_that_differs_is_left_and_nothing_is_written(install: Install, tmp_path: Path) -> None:
    """The line says which lines differ, and where changes of one's own belong."""
    theirs = tmp_path / f"root{BOUNDED}"
    theirs.parent.mkdir(parents=True)
    theirs.write_text(FILES[BOUNDED].replace("--max-error 1ms", "--max-error 5ms"))
    before = theirs.read_text()
    assert_one_line(install(), str(theirs), "--max-error 5ms", "--max-error 1ms", "drop-in")
    assert written(tmp_path) == {BOUNDED: before}
    assert failure(install("--json"))["path"] == str(theirs)


def test_who_may_not_write_there_reads_what_to_do(segment_path: Path) -> None:
    """One line with the remedy, in JSON too; nothing is left half written."""
    closed = segment_path.parent / "root"
    closed.mkdir(mode=0o555)
    program = [sys.executable, path_of("install_units_as_nobody"), "install-units", "--root", str(closed)]
    for more in ([], ["--json"]):
        done = subprocess.run([*program, *more], capture_output=True, text=True, timeout=50)
        assert done.returncode == 1, done.stderr
        assert "run this as root, or see the files with --print" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert "run this as root" in json.loads(done.stdout)["remedy"]
    assert list(closed.iterdir()) == []


def test_units_run_this_installation() -> None:
    """ExecStart= has an absolute path, of a program that is there; and names sources that are installed."""
    (start,) = re.findall("^ExecStart=(.*)$", FILES[SERVICE], re.MULTILINE)
    program, verb, *rest = shlex.split(start)
    assert os.access(program, os.X_OK)
    assert Path(program).is_absolute()
    assert (verb, rest[0]) == ("publish", "device")
    assert rest[-1] == "chrony.address=127.0.0.1:323"


def test_unit_reads_the_configuration_that_is_there(tmp_path: Path) -> None:
    """An operator who has a configuration file needs no drop-in; without one the unit names the sources."""
    assert arguments(tmp_path / "publish.toml") == sources()
    (tmp_path / "publish.toml").touch()
    read = units("/opt/vmclock-async", arguments(tmp_path / "publish.toml"))
    assert f"ExecStart=/opt/vmclock-async publish --config {tmp_path}/publish.toml\n" in read[SERVICE]


@pytest.mark.parametrize(
    ("executable", "quoted"),
    [("/opt/a b/python", '"/opt/a b/python"'), ("/opt/50%/python", '"/opt/50%%/python"'), ("/opt/p", "/opt/p")],
)
def test_path_is_quoted_as_systemd_reads_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, executable: str, quoted: str
) -> None:
    """An installation without the script runs the module; a path with spaces or percent signs stays that path."""
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(sys, "executable", executable)
    assert command() == f"{quoted} -m vmclock_async"


def test_installation_that_the_services_cannot_see_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """ProtectHome= hides home directories, so a unit of an installation there could never start."""
    monkeypatch.setattr(sys, "executable", "/home/operator/venv/bin/python")
    assert "/home/operator/venv/bin/python" in hidden_parts()
    monkeypatch.setattr(sys, "executable", "/homes/venv/bin/python")
    assert "/homes/venv/bin/python" not in hidden_parts()


def test_installation_in_a_home_directory_is_refused(tmp_path: Path) -> None:
    """One line says where to install instead; nothing is written to /etc."""
    mounted = [f"mount --bind {shlex.quote(sys.prefix)} /home", "mount -t tmpfs none /etc"]
    program = in_own_mounts(*mounted)[: -len(INTERPRETER)]
    asked = "/home/bin/python -m vmclock_async install-units --json; ls -A /etc"
    done = subprocess.run([*program, "sh", "-c", asked], capture_output=True, text=True, timeout=50)
    (said,) = map(json.loads, done.stdout.splitlines())  # and ls has nothing to list
    assert said["path"].startswith("/home/")
    assert "python3 -m venv /opt/vmclock-async" in said["remedy"]
    assert "python3 -m venv /opt/vmclock-async" in done.stderr


def test_units_leave_out_chrony_where_it_cannot_be_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without pychrony a publisher that is to ask chronyd fails for good; a line says how to have it."""
    monkeypatch.setitem(sys.modules, "pychrony", None)
    assert main(["install-units", "--print"]) == 0
    said = capsys.readouterr()
    assert "publish device vmgenid ptp kernel\n" in said.out
    assert "pip install 'vmclock-async[chrony]'" in said.err


def test_manual_shows_what_is_printed() -> None:
    """The manual and the command have one text; the manual's installation is in /opt/vmclock-async."""
    manual = MANUAL.read_text(encoding="utf-8")
    assert "\n".join(["install-units", *NEXT, "systemctl status"]) in manual
    for text in units("/opt/vmclock-async/bin/vmclock-async", sources()).values():
        assert text in manual


def test_rule_opens_the_hosts_ptp_clocks_alone() -> None:
    """Those that the source ptp takes unasked, or knows to be a host's, and no network card's, with its pins."""
    (pattern,) = re.findall(r'ATTR{clock_name}=="([^"]*)"', FILES["/etc/udev/rules.d/60-vmclock.rules"])

    def is_open(name: str) -> bool:
        return any(fnmatchcase(name, word) for word in pattern.split("|"))

    hosts = (
        "KVM virtual PTP",
        "hyperv",
        "ena-ptp-05",
        "vmclock0",
        *(f"Virtio PTP type {n}/variant 0" for n in range(5)),
    )
    for name in hosts:
        assert is_open(name), name
        assert kind_of(name, "7.3") != UNKNOWN, name
    for name in ("igc", "ice", "mlx5_ptp", "", "hyperv2", "ptp_mock"):
        assert not is_open(name), name
        assert kind_of(name, "7.3") == UNKNOWN, name


@needs_systemd
def test_systemd_takes_the_units(install: Install, tmp_path: Path) -> None:
    """No line is unknown to it, or of no effect; and the user is one that systemd-sysusers makes."""
    install()
    said = analyze("verify", *(f"{tmp_path}/root{unit}" for unit in (SERVICE, BOUNDED)))
    assert said == ""
    dry = ["systemd-sysusers", "--dry-run", f"{tmp_path}/root/etc/sysusers.d/vmclock-async.conf"]
    made = subprocess.run(dry, capture_output=True, text=True, timeout=50)
    assert made.returncode == 0, made.stderr


@needs_systemd
@pytest.mark.parametrize("unit", [SERVICE, BOUNDED])
def test_exposure_is_not_above_the_documented_one(install: Install, tmp_path: Path, unit: str) -> None:
    """``systemd-analyze security`` rates the units as the manual says, or better."""
    install()
    name = Path(unit).name
    said = analyze("security", "--offline=yes", "--no-pager", f"{tmp_path}/root{unit}")
    (exposure,) = re.findall(r"Overall exposure level for .*: ([0-9.]+)", said)
    (documented,) = re.findall(rf"`{name}` ([0-9]+\.[0-9])", MANUAL.read_text(encoding="utf-8"))
    assert float(exposure) <= float(documented)


@needs_systemd
@needs_chronyd
def test_services_work_under_their_confinement(
    followed: tuple[Chronyd, int], segment_path: Path, tmp_path: Path
) -> None:
    """With the units' filters and only processes in /proc the publisher is ready, and the other one's wait ends.

    These are the printed sources, chronyd and the kernel's clock among them; the port is that of the test's chronyd.
    """
    _, port = followed
    words = sources().replace("127.0.0.1:323", f"127.0.0.1:{port}").split()
    run = ["-m", "vmclock_async", "publish", *words, "--segment", str(segment_path), "--ready", "bounded"]
    mounts = in_own_mounts(
        "mount -t tmpfs none /mnt", *(f"mount --bind /mnt /proc/{name}" for name in ("sys", "fs"))
    )
    program = [*mounts, path_of("confined"), *confined_command(FILES[SERVICE], tmp_path, *run)]
    wait = ["-m", "vmclock_async", "wait", str(segment_path), "--max-error", "1s", "--timeout", "20s"]
    waiting = [*mounts, path_of("confined"), *confined_command(FILES[BOUNDED], tmp_path, *wait)]
    with PlayedManager(tmp_path / "notify") as manager:
        env = environment(tmp_path, {"NOTIFY_SOCKET": manager.address})
        process = subprocess.Popen(program, env=env, stderr=subprocess.PIPE, text=True)
        try:
            manager.read_until(lambda heard: "READY=1" in heard or process.poll() is not None)
            manager.read_until(lambda heard: any("from chrony" in text for text in heard) or process.poll())
            waited = subprocess.run(waiting, env=env, capture_output=True, text=True, timeout=50)
        finally:
            process.terminate()
            _, said = process.communicate(timeout=30)
        heard = manager.read()
    assert "READY=1" in heard, said
    assert waited.returncode == 0, waited.stderr
    assert heard[-1] == "STOPPING=1"
    # Whether this machine lets a user of a namespace read the kernel's log has nothing to do with the filters.
    assert "not permitted" not in re.sub(".*/dev/kmsg.*", "", said)
    assert "Traceback" not in said
