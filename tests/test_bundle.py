"""The file for a bug report: what is in it, and that nothing personal is."""

import json
import os
import re
import socket
import tarfile
from pathlib import Path

import pytest

from kit.commands import failure, run_command
from kit.played_machine import played_machine, put
from kit.told_world import World
from vmclock_async import SegmentReader
from vmclock_async._cli.bundle import Redaction, write_bundle


def unpacked(bundle: Path) -> dict[str, bytes]:
    """The members of *bundle*, none of which names a user."""
    with tarfile.open(bundle) as archive:
        members = archive.getmembers()
        assert {(member.uid, member.uname, member.gname) for member in members} == {(0, "", "")}
        files = {member.name: archive.extractfile(member) for member in members}
        return {name: file.read() for name, file in files.items() if file}


@pytest.fixture
def personal(segment_path: Path) -> Path:
    """The path of a segment that has the host's, the user's and the home directory's name in it."""
    path = segment_path.parent / "home-of-alicia/of alicia" / socket.gethostname() / "shm0"
    path.parent.mkdir(parents=True)
    return path


@pytest.mark.parametrize("how", ["named", "by a variable"])
def test_bundle_has_nothing_personal(how: str, personal: Path, tmp_path: Path) -> None:
    """No host's name, no user's, no home directory, no value of a variable; what is left says what was there."""
    world = World(personal)
    home = personal.parents[2]
    variables = {"HOME": str(home), "USER": "alicia", "VMCLOCK_ASYNC_TOKEN": "hunter2"}
    if how == "by a variable":
        variables["VMCLOCK_ASYNC_SEGMENT"] = str(personal)
    bundle = tmp_path / "alicia.tar.gz"
    words = [personal] if how == "named" else []
    done = run_command(tmp_path, "doctor", "--json", "--bundle", bundle, *words, variables=variables)
    world.close()
    assert done.returncode == 0, done.stderr
    assert str(personal) in done.stdout  # it was there to be hidden
    files = unpacked(bundle)
    text = "\n".join(f"{name}\n{data.decode('latin-1')}" for name, data in files.items())
    for word in (str(home), home.name, "alicia", socket.gethostname(), "hunter2", str(tmp_path)):
        assert not re.search(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])", text), word
    assert b"alicia" not in bundle.read_bytes()[:100]  # gzip's header can name the file
    shown = "~/of USER/HOST/shm0" if how == "named" else "$VMCLOCK_ASYNC_SEGMENT"
    found = {finding["id"]: finding["found"] for finding in json.loads(files["doctor/report.json"])["findings"]}
    assert found["segment"].startswith(f"{shown}: uid {os.geteuid()}, ")
    assert f"{home}" not in json.dumps(found)


def test_bundle_has_the_pages_and_nothing_else_of_their_files(world: World, tmp_path: Path) -> None:
    """The page is whole and can be read; what lies behind it in the file is not taken along."""
    with world.path.open("ab") as file:
        file.write(b"SECRET")
    bundle = tmp_path / "bundle.tar.gz"
    write_bundle(bundle, {}, played_machine(tmp_path, world.path))
    files = unpacked(bundle)
    assert not any(b"SECRET" in data for data in files.values())
    with (
        SegmentReader(put(tmp_path / "page", files["doctor/segment.page"])) as copy,
        SegmentReader(world.path) as real,
    ):
        assert copy.snapshot().model_dump(exclude={"inode", "opened"}) == real.snapshot().model_dump(
            exclude={"inode", "opened"}
        )
    with SegmentReader(put(tmp_path / "page", files["doctor/device.page"])) as copy:
        assert copy.snapshot().body.disruption_marker == 7


def test_bundle_takes_no_other_file_for_a_page(tmp_path: Path) -> None:
    """A file that is no page is left out, whatever its name."""
    secret = put(tmp_path / "secret", "SECRET" * 100)
    write_bundle(tmp_path / "bundle", {}, played_machine(tmp_path, secret))
    files = unpacked(tmp_path / "bundle")
    assert "doctor/segment.page" not in files
    assert not any(b"SECRET" in data for data in files.values())


def test_bundle_has_few_lines_of_the_kernel(world: World, tmp_path: Path) -> None:
    """Of the log those about the devices, never the command line; of cpuinfo the model and the flags, once."""
    machine = played_machine(tmp_path, world.path)
    log = ["6,1,1,-;usb: mouse", "6,2,2,-;vmclock vmclock0: up", "5,3,3,-;Kernel command line: vmclock password=x"]
    put(machine.kmsg, "\n".join([*log, "5,4,4,-;random: crng reseeded due to virtual machine fork", ""]))
    write_bundle(tmp_path / "bundle", {}, machine)
    files = unpacked(tmp_path / "bundle")
    assert files["doctor/kernel-log.txt"].decode().splitlines() == [
        "6,2,2,-;vmclock vmclock0: up",
        "5,4,4,-;random: crng reseeded due to virtual machine fork",
    ]
    assert files["doctor/cpuinfo.txt"].decode() == "model name : Played\nflags : constant_tsc nonstop_tsc\n"
    versions = json.loads(files["doctor/versions.json"])
    assert versions["kernel"] == "6.13.0-played"
    assert versions["python"].startswith("CPython ")
    assert versions["vmclock-async"]


def test_bundle_says_what_cannot_be_read(world: World, tmp_path: Path) -> None:
    """Without a log and cpuinfo there is a bundle all the same."""
    machine = played_machine(tmp_path, world.path)
    machine.kmsg.unlink()
    (machine.proc / "cpuinfo").unlink()
    (machine.dev / "vmclock0").unlink()
    write_bundle(tmp_path / "bundle", {}, machine)
    files = unpacked(tmp_path / "bundle")
    assert (
        files["doctor/kernel-log.txt"]
        == files["doctor/cpuinfo.txt"]
        == b"cannot be read (No such file or directory)\n"
    )
    assert "doctor/device.page" not in files


def test_bundle_overwrites_nothing(world: World, tmp_path: Path) -> None:
    """A file, and a link that leads nowhere yet, stay as they are."""
    there = put(tmp_path / "there", "precious")
    done = run_command(tmp_path, "doctor", "--json", "--bundle", there, world.path)
    assert "is not overwritten" in failure(done)["reason"]
    assert there.read_text() == "precious"
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "target")
    done = run_command(tmp_path, "doctor", "--json", "--bundle", link, world.path)
    assert failure(done)["reason"] == "cannot be written (File exists)"
    assert not (tmp_path / "target").exists()


def test_bundle_that_cannot_be_written_is_the_only_object(world: World, tmp_path: Path) -> None:
    """With --json one object says so."""
    done = run_command(tmp_path, "doctor", "--json", "--bundle", tmp_path / "none/bundle", world.path)
    said = failure(done)
    assert said["path"] == str(tmp_path / "none/bundle")
    assert said["reason"] == "cannot be written (No such file or directory)"


REDACTED = {
    "synchronized to 10.1.2.3": "synchronized to ADDRESS",
    "chronyd at 10.1.2.3:323, synchronized to 192.0.2.1.": "chronyd at ADDRESS:323, synchronized to ADDRESS.",
    "at:2001:db8::1: no": "at:ADDRESS: no",
    "fe80::1%eth0 and [2001:db8:1:2:3:4:5:6]:323": "ADDRESS%eth0 and [ADDRESS]:323",
    "no answer at 127.0.0.1:323, [::1]:323": "no answer at 127.0.0.1:323, [::1]:323",
    "Linux 6.18.44, 12:34:56, 0x0040": "Linux 6.18.44, 12:34:56, 0x0040",
    "2026-11-28T21:43:49.856Z": "2026-11-28T21:43:49.856Z",
    "/home/mallory/x, /home/bob: gone": "/home/USER/x, /home/USER: gone",
    "owned by mallory (uid 1001), mode 0644": "owned by USER (uid 1001), mode 0644",
    "alice's box, malice, /opt/alice": "USER's HOST, malice, /opt/USER",
    "/srv/alice/a and /srv/alicent": "~/a and /srv/alicent",
}  # fmt: skip


@pytest.mark.parametrize("text", REDACTED)
def test_redaction_replaces_what_is_personal(text: str) -> None:
    """Addresses other than loopback, homes, owners, and the given words where they stand by themselves."""
    assert (
        Redaction({"alice": "USER", "box": "HOST", "/srv/alice": "~", "": "X", "root": "Y"}).text(text)
        == REDACTED[text]
    )


def test_redaction_leaves_what_everybody_has() -> None:
    """root is no name of a person, and an empty variable is no text."""
    assert Redaction({"": "X", "root": "Y"}).text("run as root") == "run as root"


def test_redaction_goes_through_all_of_a_report() -> None:
    """Texts in objects and lists are redacted, keys and numbers are not."""
    redaction = Redaction({"alice": "USER"})
    assert redaction.value({"alice": [{"a": "of alice"}, ("alice",), 5, None]}) == {
        "alice": [{"a": "of USER"}, ["USER"], 5, None]
    }
