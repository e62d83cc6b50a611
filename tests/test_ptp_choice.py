"""Which PTP clock the source takes, what is known of it by its name, and what it says where there is none to take."""

import errno
import os
from pathlib import Path

import pytest

from kit.played_ptp import KVM, PlayedPtp
from vmclock_async import SourceUnavailableError, TimeType
from vmclock_ptp.choice import chosen
from vmclock_ptp.kinds import kind_of
from vmclock_ptp.machine import Machine


@pytest.fixture
def machine(tmp_path: Path) -> PlayedPtp:
    """A machine without a PTP clock."""
    return PlayedPtp(tmp_path)


def taken(machine: PlayedPtp, device: str = "auto", timescale: TimeType | None = None) -> str:
    """The device that is chosen, and its timescale."""
    clock = chosen(machine, device, timescale)
    machine.close(clock.descriptor)
    return f"{Path(clock.clock.path).name} {clock.time_type.name}"


def refusal(machine: PlayedPtp, device: str = "auto", timescale: TimeType | None = None) -> str:
    """The reason why none is."""
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(SourceUnavailableError) as caught:
        chosen(machine, device, timescale)
    assert set(os.listdir("/proc/self/fd")) <= before
    return caught.value.reason


@pytest.mark.parametrize(
    ("name", "release", "time_type"),
    [
        (KVM, "6.1.0", TimeType.UTC),
        ("ena-ptp-05", "6.1.0", TimeType.UTC),
        ("ena-ptp-1f", "6.1.0", TimeType.UTC),
        ("hyperv", "6.1.0", TimeType.UTC),
        ("vmclock0", "6.13.1-amd64", TimeType.UTC),
        ("vmclock0", "6.19.14", TimeType.UTC),
        ("vmclock0", "7.0-rc1", TimeType.TAI),
        ("vmclock12", "10.2.3", TimeType.TAI),
        ("vmclock0", "unheard of", None),
        ("Virtio PTP type 0/variant 0", "6.17.0", TimeType.UTC),
        ("Virtio PTP type 1/variant 0", "6.17.0", TimeType.TAI),
        ("Virtio PTP type 2/variant 0", "6.17.0", None),
        ("Virtio PTP type 3/variant 1", "6.17.0", None),
        ("Virtio PTP type 4/variant 0", "6.17.0", None),
        ("igc", "6.1.0", None),
        ("", "6.1.0", None),
    ],
)
def test_timescale_follows_from_the_name(name: str, release: str, time_type: TimeType | None) -> None:
    """Drivers of hosts' clocks give them names of their own; what another clock counts is not known."""
    assert kind_of(name, release).time_type == time_type


def test_best_known_clock_is_taken(machine: PlayedPtp) -> None:
    """The one that claims a bound, then the host's, the page's last; a network card's is nothing to take unasked."""
    machine.add(0, "igc")
    machine.add(10, "vmclock0")
    assert taken(machine) == "ptp10 UTC"
    machine.add(2)
    assert taken(machine) == "ptp2 UTC"
    machine.add(9, "ena-ptp-05", claim="20000")
    assert taken(machine) == "ptp9 UTC"


def test_clock_that_cannot_be_read_is_passed_over(machine: PlayedPtp) -> None:
    """For the next one; and where no one can be, each says why."""
    machine.add(0)
    machine.add(1, "vmclock0")
    machine.refused["ptp0"] = errno.EOPNOTSUPP
    assert taken(machine) == "ptp1 UTC"
    machine.refused["ptp1"] = errno.EINVAL
    said = refusal(machine)
    assert f"ptp0 ({KVM}) cannot be read (Operation not supported): its driver cannot tell the time" in said
    assert "ptp1 (vmclock0) cannot be read (Invalid argument): either this is no PTP clock, or its driver" in said


def test_clock_is_named_by_path_link_or_name(machine: PlayedPtp) -> None:
    """As udev's links (``/dev/ptp_kvm``) and sysfs have it; a clock of unknown kind needs its timescale."""
    machine.add(0, "igc")
    machine.add(1)
    (machine.dev / "ptp_kvm").symlink_to("ptp1")
    assert taken(machine, str(machine.dev / "ptp1")) == "ptp1 UTC"
    assert taken(machine, str(machine.dev / "ptp_kvm")) == "ptp_kvm UTC"
    assert taken(machine, KVM) == "ptp1 UTC"
    assert taken(machine, KVM, TimeType.TAI) == "ptp1 TAI"
    assert taken(machine, "igc", TimeType.TAI) == "ptp0 TAI"
    assert "ptp0 (igc): what it counts is not known; if you know it, set ptp.timescale" in refusal(machine, "igc")


def test_link_in_a_circle_is_refused(machine: PlayedPtp) -> None:
    """As the kernel refuses it, on one line; it ends no publisher."""
    (machine.dev / "here").symlink_to("there")
    (machine.dev / "there").symlink_to("here")
    path = str(machine.dev / "here")
    assert f"{path} cannot be opened (Too many levels of symbolic links)" in refusal(machine, path, TimeType.UTC)


def test_fifo_is_not_waited_for(machine: PlayedPtp) -> None:
    """A path that is no device at all is opened without waiting for its writer."""
    path = machine.dev / "fifo"
    os.mkfifo(path)
    descriptor = machine.open(str(path))
    machine.close(descriptor)


def test_clocks_are_in_order_of_their_numbers(machine: PlayedPtp) -> None:
    """Of two alike the first is taken, and 10 comes after 9."""
    for number in (10, 9):
        machine.add(number)
    assert [clock.path.rpartition("/")[2] for clock in machine.clocks()] == ["ptp9", "ptp10"]
    assert taken(machine) == "ptp9 UTC"


def test_smeared_and_monotonic_clocks_say_why_not(machine: PlayedPtp) -> None:
    """A device of virtio names its clocks' types, and some are no UTC."""
    machine.add(0, "Virtio PTP type 3/variant 1")
    assert "it smears leap seconds" in refusal(machine, str(machine.dev / "ptp0"))
    assert "none of the PTP clocks is one to choose unasked: name it with ptp.device" in refusal(machine)


def test_what_is_not_there_is_named_with_what_is(machine: PlayedPtp) -> None:
    """No clock, none of that name, no such device: each with what to do."""
    assert refusal(machine).startswith("no PTP clock; under KVM: modprobe ptp_kvm")
    assert "no PTP clock is called ice; there is none at all" in refusal(machine, "ice")
    machine.add(0)
    assert f"there is {machine.dev}/ptp0 ({KVM})" in refusal(machine, "ice")
    assert "ptp7 cannot be opened (No such file or directory): look into /sys/class/ptp" in refusal(
        machine, str(machine.dev / "ptp7"), TimeType.UTC
    )


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EACCES, "the udev rule that vmclock-async install-units writes"),
        (errno.EPERM, "DeviceAllow=char-ptp r"),
        (errno.ENODEV, "its driver was unloaded, or its device removed"),
        (errno.ENXIO, "remove the stale file"),
        (errno.EIO, "see the kernel's log"),
    ],
)
def test_device_that_cannot_be_opened_has_its_remedy(tmp_path: Path, number: int, remedy: str) -> None:
    """One line, with the device, its name, the kernel's reason and what to do."""

    class Refusing(PlayedPtp):
        def open(self, path: str) -> int:
            raise OSError(number, os.strerror(number), path)

    machine = Refusing(tmp_path)
    machine.add(0)
    said = refusal(machine)
    assert said.startswith(f"{machine.dev}/ptp0 ({KVM}) cannot be opened ({os.strerror(number)}): ")
    assert remedy in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENODEV, "its driver was unloaded, or its device removed; it is looked for again"),
        (errno.EBUSY, "it is asked again"),
        (errno.EOPNOTSUPP, "use another clock"),
        (errno.EINVAL, "vmclock-async show /dev/vmclock0"),
        (errno.ETIMEDOUT, "the hypervisor does not finish an update of its page"),
        (errno.ESTALE, "enable the time synchronization service"),
        (errno.EIO, "see the kernel's log"),
    ],
)
def test_clock_that_cannot_be_read_has_its_remedy(machine: PlayedPtp, number: int, remedy: str) -> None:
    """One line, with the device, its name, the kernel's reason and what to do; the device is closed again."""
    machine.add(0)
    machine.refused["ptp0"] = number
    said = refusal(machine)
    assert said.startswith(f"{machine.dev}/ptp0 ({KVM}) cannot be read ({os.strerror(number)}): ")
    assert remedy in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("claim", "claimed_ns"),
    [
        ("20123\n", 20_123),
        ("4294967294", 2**32 - 2),
        ("4294967295\n", None),
        ("0\n", None),
        ("-5", None),
        ("1e4", None),
        ("", None),
        ("nonsense \xff", None),
        ("1" * 5000, None),
        (None, None),
    ],
)
def test_claim_is_a_number_of_nanoseconds_or_none(
    machine: PlayedPtp, claim: str | None, claimed_ns: int | None
) -> None:
    """ENA's ``phc_error_bound``: what is not there, not a number, zero or the driver's "not known" is no claim."""
    machine.add(0, "ena-ptp-05", claim=claim)
    assert machine.claimed_error_ns(machine.clocks()[0], "phc_error_bound") == claimed_ns


def test_claim_that_cannot_be_read_is_none(machine: PlayedPtp) -> None:
    """The driver answers with EBUSY while the device does not know it; here it is a directory."""
    machine.add(0, "ena-ptp-05")
    (machine.sys / "class/ptp/ptp0/device/phc_error_bound").mkdir()
    assert machine.claimed_error_ns(machine.clocks()[0], "phc_error_bound") is None


def test_clock_without_a_readable_name_is_unknown(machine: PlayedPtp) -> None:
    """In a container that hides /sys, say."""
    machine.add(0)
    (machine.sys / "class/ptp/ptp0/clock_name").unlink()
    path = str(machine.dev / "ptp0")
    assert "ptp0 (its name cannot be read): what it counts is not known" in refusal(machine, path)
    assert taken(machine, path, TimeType.UTC) == "ptp0 UTC"


def test_this_machine_can_be_asked() -> None:
    """Its own sysfs, whatever is there."""
    assert all(clock.path.startswith("/dev/ptp") for clock in Machine().clocks())
