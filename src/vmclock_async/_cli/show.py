"""``show``: decode a segment, a captured page or the device."""

import os
from pathlib import Path
from typing import Annotated

import typer

from vmclock_async import timebase
from vmclock_async._cli.output import print_json, print_line, snapshot_fields
from vmclock_async._cli.paths import reader_path
from vmclock_async._notation import duration_text
from vmclock_async._segment.ownership import Ownership
from vmclock_async.abi import BODY_FIELDS, Flags, name_of
from vmclock_async.models import VALIDITY_FLAGS, Snapshot
from vmclock_async.segment import SegmentReader

__all__ = ("show",)


def show(
    path: Annotated[
        Path | None, typer.Argument(readable=False, help="A segment, a captured page or /dev/vmclock0.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with the ABI's names and numbers.")] = False,
) -> None:
    """Decode a segment, a captured page or the device; say who owns it, and whether others may write it.

    vmclock-async show /dev/vmclock0
    """
    chosen = str(reader_path(path))
    with SegmentReader(chosen) as reader:
        snapshot = reader.snapshot()
        ownership = Ownership.of(os.fstat(reader._page.fileno()))
        others_may_write = ownership.others_may_write and not reader.is_device  # nobody may write a device's page
    if as_json:
        owned = {"owner": ownership.owner, "owner_uid": ownership.uid, "others_may_write": others_may_write}
        print_json({**snapshot_fields(chosen, snapshot), **owned})
        return
    who = "OTHERS MAY WRITE IT TOO: chmod go-w" if others_may_write else "others may not write it"
    owned_row = "owner", ownership.owner, f"mode {ownership.mode:04o}: {who}"
    for name, value, remark in (owned_row, *_rows(snapshot)):
        print_line(f"{name:<38} {value:<22} {remark}".rstrip())


def _rows(snapshot: Snapshot) -> list[tuple[str, str, str]]:
    """Name, value and remark of each field, in the order of the page."""
    mine = "" if snapshot.counter_id == timebase.COUNTER_ID else "not this machine's counter"
    rows = [
        ("magic", f"0x{snapshot.magic:08X}", "VCLK"),
        ("size", str(snapshot.size), "bytes"),
        ("version", str(snapshot.version), ""),
        ("counter_id", str(int(snapshot.counter_id)), f"{name_of(snapshot.counter_id)} {mine}".strip()),
        ("time_type", str(int(snapshot.time_type)), name_of(snapshot.time_type)),
        ("seq_count", str(snapshot.seq_count), ""),
    ]
    for name in BODY_FIELDS:
        value = getattr(snapshot.body, name)
        if value is None:
            continue
        if name == "flags":
            rows.append((name, f"0x{value:X}", _flag_names(value)))
        elif name in VALIDITY_FLAGS and not snapshot.body.flags & VALIDITY_FLAGS[name]:
            rows.append((name, str(value), "not valid: its flag is clear"))
        elif name.endswith("error_nanosec"):
            rows.append((name, str(value), duration_text(value)))
        elif name in ("clock_status", "leap_second_smearing_hint", "leap_indicator"):
            rows.append((name, str(int(value)), name_of(value)))
        else:
            rows.append((name, str(value), ""))
    return rows


def _flag_names(flags: Flags) -> str:
    named = [flag.name or "" for flag in Flags if flag & flags]
    unnamed = int(flags) & ~sum(Flags)
    return " ".join(named + ([f"0x{unnamed:X} (unknown)"] if unnamed else []))
