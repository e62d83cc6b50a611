"""The device source: passes on the page of ``/dev/vmclock0``, whole body by whole body.

As a publisher's only source it is relayed bit for bit. Beside others it reports disruptions, and the time if the
hypervisor gives it; QEMU and Firecracker do not.

When a page changes faster than it is read, not all updates are seen, but the last one always is.
"""

import errno
import os
from pathlib import Path
from typing import ClassVar, Final, final

import anyio.to_thread
from pydantic import BaseModel, ConfigDict, Field

from vmclock_async import (
    BodyUpdate,
    Emit,
    SegmentError,
    SegmentNotInitializedError,
    SegmentReader,
    SegmentUnstableError,
    Snapshot,
    SourceUnavailableError,
)
from vmclock_async.abi import name_of

__all__ = ("DeviceSettings", "DeviceSource")

DEVICE: Final = Path("/dev/vmclock0")


@final
class DeviceSettings(BaseModel):
    """Options of the device source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path = Field(DEVICE, description="the device, a captured page or a segment")
    poll_interval: float = Field(
        0.1, gt=0, allow_inf_nan=False, description="seconds between looks where nothing wakes the source"
    )


@final
class DeviceSource:
    """Follows one page.

    Raises from ``run``:
        SourceUnavailableError: nothing is there, nothing is committed there yet, an update does not end, it may not
            be read, or it is no readable page. Other sources go on in each of these cases.
    """

    settings_type: ClassVar[type[BaseModel]] = DeviceSettings

    def __init__(self, settings: DeviceSettings) -> None:
        self._settings = settings
        self._reader: SegmentReader | None = None

    @property
    def rests_on_system_clock(self) -> bool | None:
        """False for a device, whose time is the hypervisor's; a page in a file may hold anybody's time."""
        return False if Path(self._settings.path).is_char_device() else None

    def disruption_marker(self) -> int | None:
        """The page's marker as it is now; None while the page is not open."""
        try:
            return self._reader.disruption_marker if self._reader else None
        except SegmentError:
            return None  # closed at this very moment

    def probe(self) -> str:
        """The page's present content, in words; blocks for at most 100 ms.

        Raises:
            SourceUnavailableError: as for ``run``.
        """
        path = self._settings.path
        try:
            with SegmentReader(path) as reader:
                body = reader.snapshot().body
        except (SegmentNotInitializedError, SegmentUnstableError) as exc:
            if not path.exists():
                raise self._unavailable(exc) from exc
            return f"{path}, not readable at this moment"  # in the middle of an update: it is tried again
        except (SegmentError, OSError) as exc:
            raise self._unavailable(exc) from exc
        time = f"time {name_of(body.clock_status)}" if body.counter_period_frac_sec else "no time"
        return f"{path}, marker {body.disruption_marker}, {time}"

    async def run(self, emit: Emit) -> None:
        """Emit the page, and then each change of it, until it is cancelled."""
        try:
            with await anyio.to_thread.run_sync(SegmentReader, self._settings.path) as reader:
                self._reader = reader
                snapshot = await anyio.to_thread.run_sync(reader.snapshot)  # takes up to 100 ms
                while True:
                    await emit(_update(snapshot))
                    snapshot = await reader.wait_changed(snapshot, poll_interval=self._settings.poll_interval)
        except (SegmentError, OSError) as exc:  # OSError: no descriptors or memory left for reading a page
            raise self._unavailable(exc) from exc
        finally:
            self._reader = None

    def _unavailable(self, error: SegmentError | OSError) -> SourceUnavailableError:
        cause = error.__cause__
        is_forbidden = isinstance(cause, PermissionError) and cause.errno == errno.EACCES
        return SourceUnavailableError("device", _forbidden(self._settings.path) if is_forbidden else str(error))


def _update(snapshot: Snapshot) -> BodyUpdate:
    return BodyUpdate.from_body(snapshot.body, counter_id=snapshot.counter_id, time_type=snapshot.time_type)


def _forbidden(path: Path) -> str:
    try:
        status = os.stat(path)
        who = f"user {status.st_uid} (mode {status.st_mode & 0o777:04o})"
    except OSError:
        who = "others"
    return (
        f"{path} may be read by {who} alone; run as that user, or let others read it, for a device by a udev "
        'rule: KERNEL=="vmclock[0-9]*", MODE="0444"'
    )
