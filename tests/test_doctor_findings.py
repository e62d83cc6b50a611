"""What ``doctor`` finds on a machine that is played in a directory: each finding at each level it can have."""

import os
import socket
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import NamedTuple

import pytest

import vmclock_ntp.source
from kit.chronyd import Chronyd, free_port, needs_chronyd
from kit.fitness import fit
from kit.ntp import NtpResponder
from kit.played_chronyd import PlayedChronyd
from kit.played_machine import NOW_S, PATIENCE_S, SYNCHRONIZED, played_machine, put, vmclock_page
from kit.told_world import World
from kit.udp import UdpServer
from kit.waits import eventually
from vmclock_async._cli.findings import LOOKS, Finding, Level, Machine, Probing, Report, look
from vmclock_async.timebase import COUNTER_ID, ClockStatusBits, Timex
from vmclock_ntp.address import ServerName

OK, WARNING, MISSING = Level.OK, Level.WARNING, Level.MISSING
x86 = pytest.mark.skipif(COUNTER_ID != 1, reason="CNTVCT is fit by architecture")
CLOCKSOURCE = "devices/system/clocksource/clocksource0/current_clocksource"
UNSYNCHRONIZED = SYNCHRONIZED._replace(status=ClockStatusBits.UNSYNC, tai_offset_s=0)


@pytest.fixture
def machine(tmp_path: Path, world: World) -> Machine:
    """A machine where nothing is wrong, with a segment that has the time."""
    return played_machine(tmp_path, world.path)


def nothing(machine: Machine) -> Machine:
    """Neither procfs nor sysfs."""
    return replace(machine, proc=machine.proc / "nothing", sys=machine.sys / "nothing")


def with_timex(timex: Timex) -> Callable[[Machine], Machine]:
    return lambda machine: replace(machine, timex=lambda: timex)


def refusing(machine: Machine) -> Machine:
    """A seccomp filter forbids adjtimex."""

    def refuse() -> Timex:
        raise PermissionError(1, "Operation not permitted")

    return replace(machine, timex=refuse)


def without(path: str) -> Callable[[Machine], None]:
    """The same without the file at *path*, from the directory of the machine."""
    return lambda machine: (machine.dev.parent / path).unlink()


def with_file(path: str, content: str | bytes) -> Callable[[Machine], None]:
    """The same with another file at *path*."""

    def change(machine: Machine) -> None:
        (machine.dev.parent / path).unlink(missing_ok=True)
        put(machine.dev.parent / path, content)

    return change


def with_link(path: str, target: str) -> Callable[[Machine], None]:
    def change(machine: Machine) -> None:
        (machine.dev.parent / path).unlink()
        (machine.dev.parent / path).symlink_to(target)

    return change


def chronyd_says(version: str, *, options: str = "") -> Callable[[Machine], None]:
    """chronyd has *version*, and one with *options* runs."""

    def change(machine: Machine) -> None:
        put(machine.dev.parent / "bin/chronyd", f"#!/bin/sh\necho {version}\n")
        put(machine.proc / "5/comm", "chronyd\n")
        put(machine.proc / "5/cmdline", "\0".join(["/usr/sbin/chronyd", *options.split(), ""]))

    return change


def in_mid_commit(machine: Machine) -> None:
    """A device's page whose update does not end."""
    page = bytearray(vmclock_page(machine.dev / "vmclock0").read_bytes())
    page[12] |= 1
    (machine.dev / "vmclock0").write_bytes(page)


def chmod(mode: int) -> Callable[[Machine], None]:
    return lambda machine: machine.segment_path().chmod(mode)


def no_segment(machine: Machine) -> Machine:
    return replace(machine, segment=machine.dev / "no-segment")


def locked(machine: Machine) -> None:
    """The kernel lists a lock on the segment's lock file, as it does while a publisher lives."""
    status = os.stat(f"{machine.segment_path()}.lock")
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    put(
        machine.proc / "locks",
        f"1: POSIX ADVISORY WRITE 3 00:1:1 0 EOF\n2: FLOCK ADVISORY WRITE 7 {device} 0 EOF\n",
    )


def told_is_a_file(machine: Machine) -> None:
    put(Path(f"{machine.segment_path()}.told"), "")


def told_listens(machine: Machine) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(f"{machine.segment_path()}.told")


def without_time(machine: Machine) -> None:
    vmclock_page(machine.dev / "vmclock0")


def second_device(machine: Machine) -> None:
    vmclock_page(machine.dev / "vmclock1")


def another_file(machine: Machine) -> None:
    machine.segment_path().write_bytes(b"x" * 300)


def without_ptp(machine: Machine) -> None:
    (machine.sys / "class/ptp").rename(machine.sys / "another")


def unfit(reason: str) -> Callable[[Machine], Machine]:
    return lambda machine: replace(machine, counter_unfit_because=lambda: reason)


def leap_list(expires_s: int) -> Callable[[Machine], None]:
    """A list of leap seconds that expires then, in seconds since 1970."""
    return with_file("zoneinfo/leap-seconds.list", f"#@ {expires_s + 2_208_988_800}\n")


class Case(NamedTuple):
    finding: str
    change: Callable[[Machine], Machine | None]
    level: Level
    found: str
    remedy: str = ""


def as_it_is(machine: Machine) -> None:
    """Nothing is wrong."""


CASES = [
    Case("kernel", as_it_is, OK, "Linux 6.13.0-played"),
    Case("kernel", lambda machine: replace(machine, kernel_release="6.1.0"), WARNING, "too old", "6.13"),
    Case("kernel", lambda machine: replace(machine, kernel_release="odd"), OK, "Linux odd"),
    Case("device", as_it_is, OK, "marker 7, generation 3, time 20"),
    Case("device", without_time, OK, "marker 7, no generation, no bou"),
    Case("device", in_mid_commit, WARNING, "seq_count stayed odd", "start the publisher"),
    Case("device", without("dev/vmclock0"), MISSING, "no /", "-device vmclock"),
    Case("device", with_file("dev/vmclock0", b"x" * 300), MISSING, "magic", ""),
    Case("device", second_device, OK, "1 more beside it"),
    Case("vmgenid", as_it_is, OK, "VMGENCTR:00"),
    Case("vmgenid", without("sys/bus/platform/drivers/vmgenid/VMGENCTR:00"), MISSING, "no device", "-device vmgenid"),
    Case("vmgenid", nothing, WARNING, "cannot be read here", "mount sysfs"),
    Case("kernel-log", as_it_is, OK, "may be read"),
    Case("kernel-log", without("dev/kmsg"), MISSING, "no /", "give the container"),
    Case("kernel-log", with_link("dev/kmsg", "kmsg"), WARNING, "may not be read", "CAP_SYSLOG"),
    Case("ptp", as_it_is, OK, "ptp0 (KVM virtual PTP)"),
    Case("ptp", without("sys/class/ptp/ptp0/clock_name"), OK, "ptp0 (its name cannot be read)"),
    Case("ptp", without_ptp, MISSING, "no PTP clock", "ptp_kvm"),
    Case("ptp", nothing, WARNING, "cannot be read here", "mount sysfs"),
    Case("counter", as_it_is, OK, "nothing is known against it"),
    Case("counter", unfit("bad, bad; mend it"), MISSING, "bad, bad", "mend it"),
    Case("counter", unfit("forbidden"), MISSING, "forbidden", "let this"),
    Case("clocksource", nothing, WARNING, "what is unknown is not unfit", "sysfs"),
    Case("proc", as_it_is, OK, "is visible"),
    Case("proc", without("proc/cpuinfo"), WARNING, "cpuinfo in ", "ProcSubset=all"),
    Case("sys", as_it_is, OK, "is visible"),
    Case("sys", nothing, WARNING, "class in ", "nothing has to be done"),
    Case("chronyd-version", as_it_is, OK, "chronyd 4.7"),
    Case("chronyd-version", chronyd_says("version 4.10", options="-x"), OK, "chronyd 4.10"),
    Case("chronyd-version", chronyd_says("version 4.6.1", options="-F 1"), OK, "older than 4.7"),
    Case("chronyd-version", chronyd_says("version 4.3", options="-d -x"), WARNING, "forgets", "remove makestep"),
    Case("chronyd-version", chronyd_says("hello", options=""), WARNING, "said 'hello", "by hand"),
    Case("chronyd-version", without("bin/chronyd"), MISSING, "not installed", "apt-get install chrony"),
    Case("kernel-clock", as_it_is, OK, "synchronized, maxerror 2 ms"),
    Case("kernel-clock", with_timex(UNSYNCHRONIZED), MISSING, "not synchronized", "rtcsync"),
    Case("kernel-clock", with_timex(SYNCHRONIZED._replace(maxerror_ns=None)), WARNING, "without a bound", "chrony"),
    Case("kernel-clock", refusing, WARNING, "adjtimex is refused (Operation not permitted)", "seccomp"),
    Case("kernel-clock", unfit("bad"), WARNING, "unfit", "above"),
    Case("tai-offset", as_it_is, OK, "37 s"),
    Case("tai-offset", with_timex(UNSYNCHRONIZED), WARNING, "no TAI offset", "leapsectz"),
    Case("tai-offset", refusing, WARNING, "adjtimex is refused", "seccomp"),
    Case("leap-seconds", as_it_is, OK, "leap-seconds.list is valid until 2027-05-11"),
    Case("leap-seconds", leap_list(NOW_S - 1), WARNING, "expired on 2027-01-15", "tzdata"),
    Case("leap-seconds", without("zoneinfo/leap-seconds.list"), WARNING, "no list", "install tzdata"),
    Case("leap-seconds", leap_list(10**30), WARNING, "no list", "install tzdata"),
    Case("segment", as_it_is, OK, "mode 0644: everybody may read it"),
    Case("segment", chmod(0o640), OK, "its owner and its group"),
    Case("segment", chmod(0o666), WARNING, "others may write it", "chmod go-w"),
    Case("segment", no_segment, MISSING, "nothing is at", "vmclock-async publish"),
    Case("reading", no_segment, MISSING, "no reading: nothing is there", "vmclock-async publish"),
    Case("reading", another_file, WARNING, "magic", ""),
    Case("publisher", locked, OK, "a publisher lives (process 7)"),
    Case("publisher", as_it_is, WARNING, "nobody holds the lock", "vmclock-async publish"),
    Case("publisher", nothing, WARNING, "cannot be read here", "ps"),
    Case("publisher", no_segment, MISSING, "no segment", "vmclock-async publish"),
    Case("memory", as_it_is, OK, "is on tmpfs"),
    Case("memory", with_file("proc/self/mountinfo", ""), WARNING, "is not on tmpfs", "--segment /dev/shm"),
    Case("memory", nothing, WARNING, "cannot be read here", "/dev/shm"),
    Case("told", told_listens, OK, "this user may report"),
    Case("told", told_is_a_file, WARNING, "is no socket", "rm "),
    Case("told", as_it_is, MISSING, "no /", "the source told"),
    Case("told", no_segment, MISSING, "no segment", "vmclock-async publish"),
    Case("inotify", as_it_is, OK, "0 of 128 instances in use, 8192 watches"),
    Case("inotify", with_file("proc/sys/fs/inotify/max_user_instances", "0"), MISSING, "readers poll", "sysctl"),
    Case("inotify", nothing, WARNING, "cannot be read here", "polls"),
    Case("time-namespace", as_it_is, OK, "the machine's own"),
    Case("time-namespace", with_link("proc/self/ns/time", "time:[5]"), WARNING, "are not the machine's", "stamps"),
    Case("time-namespace", without("proc/self/ns/time"), OK, "no time namespaces"),
    Case("time-namespace", nothing, WARNING, "cannot be read here", "nothing has to be done"),
    Case("sources", as_it_is, OK, "present: device"),
]  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.finding}-{case.level}-{case.found}")
def test_finding_says_what_was_seen_and_how_to_mend_it(case: Case, machine: Machine) -> None:
    """One line says what was seen; where it is not ok, there is a remedy."""
    finding = LOOKS[case.finding](case.change(machine) or machine)
    assert (finding.level, case.found in finding.found, case.remedy in finding.remedy) == (
        case.level,
        True,
        True,
    ), finding
    assert (finding.remedy == "") == (finding.level is OK)


@x86
def test_clocksource_that_is_not_the_counter_is_reported(machine: Machine) -> None:
    """tsc is ok, and with hpet nothing can be computed from the counter."""
    assert LOOKS["clocksource"](machine).level is OK
    put(machine.sys / CLOCKSOURCE, "hpet\n")
    finding = LOOKS["clocksource"](machine)
    assert (finding.level, finding.found.startswith("hpet: "), "dmesg" in finding.remedy) == (MISSING, True, True)


def test_reading_of_a_segment_is_shown(machine: Machine) -> None:
    """A published time counts among what is possible."""
    finding = LOOKS["reading"](machine)
    assert (finding.level, finding.time_from) == (OK, "segment")
    assert "SYNCHRONIZED, reference " in finding.found


def test_publisher_is_found_by_its_lock(world: World) -> None:
    """A writer that lives is seen in the kernel's own list of locks, and one that ended is not."""
    machine = Machine(segment=world.path)
    assert LOOKS["publisher"](machine).found == f"a publisher lives (process {os.getpid()})"
    world.writer.close()
    assert LOOKS["publisher"](machine).level is WARNING


def test_instances_of_inotify_are_counted(machine: Machine) -> None:
    """Those of this user's processes count, and a warning comes before the last one is taken."""
    put(machine.proc / "sys/fs/inotify/max_user_instances", "10")
    descriptors = machine.proc / "77/fd"
    descriptors.mkdir(parents=True)
    for number in range(8):
        (descriptors / str(number)).symlink_to("anon_inode:inotify")
    (descriptors / "99").symlink_to("/dev/null")
    assert LOOKS["inotify"](machine).found.startswith("8 of 10 ")
    (descriptors / "8").symlink_to("anon_inode:inotify")
    finding = LOOKS["inotify"](machine)
    assert (finding.level, finding.remedy) == (WARNING, "sysctl fs.inotify.max_user_instances=128")


@pytest.mark.parametrize(
    ("version", "level"), [("2.0.2", WARNING), ("2.0.3", OK), ("2.10", OK), ("3.0", WARNING), (None, MISSING)]
)
def test_version_of_pychrony_is_held_against_the_requirement(
    version: str | None, level: Level, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Supported are those that the extra ``chrony`` asks for."""

    def installed(_: str) -> str:
        if version is None:
            raise PackageNotFoundError("pychrony")
        return version

    monkeypatch.setattr("importlib.metadata.version", installed)
    finding = LOOKS["pychrony"](machine)
    assert finding.level is level
    assert finding.level is OK or "pip install" in finding.remedy


@fit
def test_answer_of_chronyd_is_understood(played: PlayedChronyd, machine: Machine) -> None:
    """Synchronized; to a reference clock, whose error has to be given; not synchronized."""

    def found() -> Finding:
        return LOOKS["chrony-port"](replace(machine, chrony_port=played.address, probing=Probing(PATIENCE_S)))

    assert (found().level, found().time_from) == (OK, "chrony")
    played.follow_reference_clock(b"PHC0")
    finding = found()
    assert (finding.level, finding.time_from) == (WARNING, "chrony")
    assert "synchronized to PHC0, a reference clock" in finding.found
    assert "chrony.reference_error" in finding.remedy
    played.say(leap=3)
    finding = found()
    assert (finding.level, finding.time_from) == (WARNING, "")
    assert finding.found.endswith("not synchronized")


@fit
@needs_chronyd
def test_real_chronyd_is_found_by_socket_and_by_port(followed: tuple[Chronyd, int], machine: Machine) -> None:
    """A chronyd that follows a server gives a bounded time by both."""
    client, port = followed

    def synchronized() -> bool:
        there = replace(
            machine, chrony_socket=client.socket, chrony_port=f"127.0.0.1:{port}", probing=Probing(PATIENCE_S)
        )
        named = {name: LOOKS[name](there) for name in ("chrony-socket", "chrony-port")}
        assert all("chronyd at" in finding.found for finding in named.values())
        if not all((finding.level, finding.time_from) == (OK, "chrony") for finding in named.values()):
            return False
        return Report(named).possible == ["chrony"]

    eventually(synchronized)


class Silent(UdpServer):
    """A chronyd that was stopped: it has a port, and gives no answer."""

    def _answer(self, request: bytes) -> bytes | None:
        return None


def test_absent_chronyd_is_missing_in_both_places(machine: Machine) -> None:
    """No socket, and nobody at the port."""
    for name in ("chrony-socket", "chrony-port"):
        finding = LOOKS[name](machine)
        assert (finding.level, finding.time_from) == (MISSING, "")
        assert "start chronyd" in finding.remedy


def test_chronyd_that_does_not_answer_is_given_up(machine: Machine) -> None:
    """The wait for a chronyd that is stopped is limited, whatever the library that asks it does."""
    with Silent() as silent:
        asked = replace(machine, chrony_port=f"127.0.0.1:{silent.port}", probing=Probing(0))
        finding = LOOKS["chrony-port"](asked)
    assert (finding.level, finding.found) == (MISSING, f"no answer at {asked.chrony_port}")


def test_verdict_names_everything_that_gives_a_time(machine: Machine) -> None:
    """Each source once, in the order of rank, and the segment."""
    report = look(machine)
    assert report.possible == ["device", "kernel", "segment"]
    assert report.verdict == "a bounded time is possible from: device, kernel, segment"


def test_time_of_a_source_that_may_not_be_used_does_not_count(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's clock is synchronized, but VMCLOCK_ASYNC_SOURCES leaves out the source that reads it."""
    monkeypatch.setenv("VMCLOCK_ASYNC_SOURCES", "device,chrony")
    report = look(machine)
    assert report.possible == ["device", "segment"]
    finding = report.findings["kernel-clock"]
    assert finding.level is Level.WARNING
    assert finding.found.endswith("but the source kernel may not be used")
    assert finding.remedy == "add kernel to VMCLOCK_ASYNC_SOURCES"


def test_verdict_of_a_machine_without_time_says_why(machine: Machine) -> None:
    """What was seen of each source; and as the remedy, that of what is nearest to a time."""
    (machine.dev / "vmclock0").unlink()
    report = look(with_timex(UNSYNCHRONIZED)(no_segment(machine)))
    assert report.possible == []
    seen, _, remedy = report.verdict.partition("; ")
    assert seen.startswith("nothing here can give a bounded time: no /")
    assert "no answer at 127.0.0.1:1" in seen
    assert "the kernel's clock is not synchronized" in seen
    assert remedy.startswith("install and start chronyd")
    assert "no servers are set" in seen
    assert remedy.endswith("without a daemon: vmclock-async publish ntp --set ntp.servers=HOST,HOST,HOST")


def test_verdict_names_no_source_that_may_not_be_used(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the source ntp there are no servers to set."""
    monkeypatch.setenv("VMCLOCK_ASYNC_SOURCES", "chrony")
    (machine.dev / "vmclock0").unlink()
    report = look(with_timex(UNSYNCHRONIZED)(no_segment(machine)))
    assert report.verdict.endswith("systemctl start chronyd")


def test_servers_of_a_cloud_are_found(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they answer, the source ntp has a time; else servers have to be set."""
    with NtpResponder(lambda ns: ns) as server:
        monkeypatch.setattr(vmclock_ntp.source, "LINK_LOCAL", (ServerName("127.0.0.1", server.port),))
        found = LOOKS["ntp"](replace(machine, probing=Probing(PATIENCE_S)))
        assert found == Finding(OK, f"{server.name} of this cloud gives the time", "", "ntp")
    monkeypatch.setattr(vmclock_ntp.source, "LINK_LOCAL", (ServerName("127.0.0.1", free_port()),))
    found = LOOKS["ntp"](replace(machine, probing=Probing(PATIENCE_S)))
    assert (found.level, found.remedy) == (MISSING, "say with ntp.servers which ones to ask")


def test_verdict_of_an_unfit_counter_is_the_counter(machine: Machine) -> None:
    """Whatever the sources say, nothing can be expressed in that counter."""
    (machine.dev / "vmclock0").unlink()
    unfit = replace(no_segment(machine), counter_unfit_because=lambda: "it jumps; buy another")
    report = look(unfit)
    assert report.verdict.endswith("it jumps; buy another")


def test_finding_whose_code_fails_is_a_finding(machine: Machine) -> None:
    """A machine of a kind that nobody foresaw hides none of the other findings."""

    def fail() -> Timex:
        raise ZeroDivisionError("odd")

    found = look(replace(machine, timex=fail)).findings
    assert found["kernel-clock"].level is WARNING
    assert found["kernel-clock"].found == "it could not be looked at (ZeroDivisionError: odd)"
    assert list(found) == list(LOOKS)
    assert found["device"].level is OK
