"""When chronyd's time is reliable again after a disruption.

chronyd does not notice that the machine was migrated or restored, and goes on with measurements from before. So no
time is given until everything that its estimate rests on is newer, which is shown in one of two ways:

* chronyd is reset (``chronyc reset sources``, then ``burst``): it drops all its measurements and is not
  synchronized until it has new ones. This needs its Unix socket, as root or the chrony user.
* Otherwise: its measurements of the sources that it may select all began after the disruption: span and age of the
  newest together are shorter than the time since, each rounded to whole seconds. And its result from them is newer
  than that: its reference time has changed since then.
"""

import logging
import time
from typing import Final, final

import anyio

from vmclock_chrony.connection import Connection, ask
from vmclock_chrony.measure import Tracking

__all__ = ("Recovery",)

_ROUNDING_S: Final = 2
_COMMAND_LIMIT_S: Final = 3
_COUNTING: Final = (0, 3, 4, 5)
"""States in the ``sources`` report of sources that are or may be selected: chronyc's * ~ + and -."""

_log: Final = logging.getLogger("vmclock_async.chrony")


@final
class Recovery:
    """One recovery, from the moment at which a disruption was noticed."""

    def __init__(self) -> None:
        self._noticed_s: Final = time.monotonic()
        self._old: Tracking | None = None
        """chronyd's last report that may still rest on measurements made before the disruption."""

    async def reset(self, connection: Connection) -> None:
        """Reset chronyd, if it permits; if not, only waiting helps.

        Raises:
            SourceUnavailableError: chronyd does not answer.
        """
        old = Tracking.of(await ask(connection, connection.tracking))
        address = connection.address
        if address is None or not address.startswith("/"):
            _log.info("chronyd at %s cannot be reset: only its Unix socket takes commands", address)
            return
        if await _chronyc(address, "reset", "sources"):
            self._old = old
            _log.info("reset chronyd at %s after a disruption", address)
            await _chronyc(address, "burst", "4/4")  # for speed; refused if there are only reference clocks

    async def is_over(self, connection: Connection, tracking: Tracking) -> bool:
        """Whether *tracking*, of a synchronized chronyd, rests on nothing from before the disruption.

        Raises:
            SourceUnavailableError: chronyd does not answer.
        """
        if self._old is not None:
            return tracking.ref_time_ns != self._old.ref_time_ns
        if await self._sources_are_new(connection):
            # It may have computed its present report from old measurements.
            self._old = Tracking.of(await ask(connection, connection.tracking))
        return False

    async def _sources_are_new(self, connection: Connection) -> bool:
        elapsed_s = time.monotonic() - self._noticed_s
        sources = await ask(connection, connection.sources)
        used = [(source, statistics) for source, statistics in sources if source.state.value in _COUNTING]
        return bool(used) and all(
            statistics.span + source.last_sample_ago + _ROUNDING_S < elapsed_s for source, statistics in used
        )


async def _chronyc(address: str, *command: str) -> bool:
    """Run chronyc; return whether chronyd accepted *command*."""
    said = "no answer"
    try:
        with anyio.move_on_after(_COMMAND_LIMIT_S):
            done = await anyio.run_process(["chronyc", "-h", address, *command], check=False)
            said = (done.stdout + done.stderr).decode(errors="replace").strip()
            if done.returncode == 0:
                return True
    except OSError as exc:
        said = f"chronyc: {exc.strerror}"
    _log.warning("chronyc %s: %s; waiting for chronyd to measure again by itself", " ".join(command), said)
    return False
