"""Python processes that another makes by a fork, once it has imported what they need: a tenth of the price.

They are processes like all others, with streams, an environment and signals of their own. Only what an interpreter
looks at when it starts (options, PYTHON..., LC_..., LD_...) cannot be theirs.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.reduction import DupFd
from typing import IO, Any, Final, Self, TypeAlias

from vmclock_async._cli.commands import COMMANDS

__all__ = ("Forked", "Started", "killed_at_the_end", "needs_interpreter", "run_program")

_server: Final = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(
    [
        *("trio", "vmclock_async.restore", "vmclock_async.testing", "vmclock_async._cli.app"),
        *(f"vmclock_async._cli.{name.replace('-', '_')}" for name in COMMANDS),
        *(f"vmclock_async._cli.configuration.{name}" for name in ("choice", "effective", "schema")),
        *(
            f"vmclock_{name}.source"
            for name in ("chrony", "clockbound", "device", "kernel", "ntp", "ptp", "replay", "told", "vmgenid")
        ),
    ]
)


def needs_interpreter(variables: Mapping[str, str]) -> bool:
    """Whether one of *variables* is for an interpreter, or for its libraries, to look at when it starts."""
    return any(name.startswith(("LC_", "LD_", "PYTHON")) for name in variables if name != "PYTHONPATH")


def run_program(path: str, *args: str) -> None:
    """What ``python -W error PATH ARGS`` runs."""
    warnings.simplefilter("error")
    sys.argv[:] = [path, *args]
    sys.path.insert(0, os.path.dirname(path))
    runpy.run_path(path, run_name="__main__")


class Forked:
    """A process that calls *run* with *args*, what that returns is its exit status; as ``subprocess.Popen`` has it.

    Stdin, stdout and stderr are a file or its descriptor, ``subprocess.PIPE``, ``subprocess.DEVNULL``, or None: this
    process's own; stderr may be ``subprocess.STDOUT``. A context manager, at whose end it has ended.
    """

    def __init__(
        self,
        run: Callable[..., object],
        *args: str,
        env: Mapping[str, str],
        stdin: IO[Any] | int | None = subprocess.DEVNULL,
        stdout: IO[Any] | int | None = None,
        stderr: IO[Any] | int | None = None,
        start_new_session: bool = False,
    ) -> None:
        self.stdin: IO[str] | None = None
        self.stdout: IO[str] | None = None
        self.stderr: IO[str] | None = None
        theirs: list[int] = []
        to_close: list[int] = []
        for name, given in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr)):
            if given == subprocess.PIPE:
                ends = os.pipe()
                mine, its = ends[::-1] if name == "stdin" else ends
                setattr(self, name, os.fdopen(mine, "w" if name == "stdin" else "r", encoding="utf-8"))
                to_close.append(its)
            elif given == subprocess.STDOUT:
                its = theirs[1]
            elif given == subprocess.DEVNULL:
                its = os.open(os.devnull, os.O_RDWR)
                to_close.append(its)
            else:
                its = len(theirs) if given is None else given if isinstance(given, int) else given.fileno()
            theirs.append(its)
        try:
            streams = [_Inherited(its) for its in theirs]
            work = (run, args, dict(env), os.getcwd(), start_new_session, streams)
            self._process = _server.Process(target=_become, args=work)
            self._process.start()
        finally:
            for its in to_close:
                os.close(its)
        assert self._process.pid is not None
        self.pid: Final[int] = self._process.pid

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        return self._process.exitcode

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal, or None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, once it has ended."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return self._process.exitcode

    def communicate(self, input: str | None = None, timeout: float | None = None) -> tuple[str, str]:
        """What it prints to its pipes until it ends."""
        if self.stdin is not None and not self.stdin.closed:
            with self.stdin:
                self.stdin.write(input or "")
        texts = {}

        def read(name: str, stream: IO[str]) -> None:
            with stream:
                texts[name] = stream.read()

        piped = [("stdout", self.stdout), ("stderr", self.stderr)]
        readers = [
            threading.Thread(target=read, args=(name, stream), daemon=True)
            for name, stream in piped
            if stream is not None and not stream.closed
        ]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join()
        return texts.get("stdout", ""), texts.get("stderr", "")

    def send_signal(self, number: int) -> None:
        """Send it the signal *number*, unless it has ended."""
        if self._process.exitcode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send it SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send it SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        if failure is not None:  # a test that failed no longer does what the process waits for
            self.kill()
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        self.wait()


class _Inherited:
    """A descriptor that goes along to the process that is made."""

    def __init__(self, fd: int) -> None:
        self._fd: Any = fd

    def __getstate__(self) -> Any:
        return DupFd(self._fd)

    def __setstate__(self, state: Any) -> None:
        self._fd = state

    def detach(self) -> int:
        """The descriptor, there."""
        fd: int = self._fd.detach()
        return fd


def _become(
    run: Callable[..., object],
    args: tuple[str, ...],
    env: dict[str, str],
    directory: str,
    is_own_session: bool,
    streams: list[_Inherited],
) -> None:
    """What ``fork`` and ``exec`` leave of a process."""
    for number, fd in enumerate([stream.detach() for stream in streams]):
        os.dup2(fd, number)
        if fd != number:
            os.close(fd)
    # The server's own objects know of the files that it began with.
    sys.stdin = open(0, closefd=False)
    sys.stdout = open(1, "w", closefd=False)
    sys.stderr = open(2, "w", 1, errors="backslashreplace", closefd=False)
    if is_own_session:
        os.setsid()
    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(env)
    sys.path[:0] = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    status = run(*args)
    sys.exit(status if isinstance(status, int) else 0)


Started: TypeAlias = Forked | subprocess.Popen[str]
"""A process of either kind."""


@contextmanager
def killed_at_the_end(start: Callable[..., Started]) -> Iterator[Callable[..., Started]]:
    """*start*, whose processes are killed when the block ends."""
    processes: list[Started] = []

    def start_one(*args: Any, **how: Any) -> Started:
        processes.append(start(*args, **how))
        return processes[-1]

    try:
        yield start_one
    finally:
        for process in processes:
            process.kill()
            process.communicate()
