"""``install-units``: the files that run the publisher under systemd."""

from pathlib import Path
from typing import Annotated, Final

import typer

from vmclock_async._cli.output import complain, print_json, print_line
from vmclock_async._cli.outputs import OutputError, replace_file
from vmclock_async._cli.units import arguments, command, hidden_parts, sources, units

__all__ = ("NEXT", "install_units")

NEXT: Final = (
    "systemd-sysusers",
    "systemctl daemon-reload",
    "udevadm control --reload",
    "udevadm trigger --sysname-match='vmclock*' --sysname-match='ptp*'",
    "systemctl enable --now vmclock-async",
)
_LINES_SHOWN: Final = 3


def install_units(
    print_only: Annotated[bool, typer.Option("--print", help="Print the files, and write nothing.")] = False,
    root: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write below DIR, as for a package of a distribution.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the files, or what was done, as JSON.")] = False,
) -> None:
    """Write the systemd units, the user and the udev rule of the publisher.

    The units run this installation's command: a hardened vmclock-async.service, and vmclock-bounded.service, which has
    started once there is a bounded time. If a file is there already and differs, nothing is written. To change a unit,
    use a drop-in: systemctl edit vmclock-async. The publisher reads /etc/vmclock-async.toml, if that is there.

    vmclock-async install-units --print
    """
    if print_only and root is not None:
        raise typer.BadParameter("it takes no --print, which writes nothing", param_hint="--root")
    # A package does not depend on the machine that makes it.
    named = arguments() if root is None else sources()
    if named == sources() and "chrony" not in named.split():
        complain("warning: the units do not name chrony; pip install 'vmclock-async[chrony]', and run this again")
    files = units(command(), named)
    hidden = hidden_parts()
    if print_only:
        if hidden:
            complain(f"warning: {_hidden_reason(hidden)}")
        if as_json:
            print_json({"files": dict(files)})
        else:
            print_line("\n".join(files.values()).removesuffix("\n"))
        return
    if hidden and root is None:  # a package's files are for another place
        raise OutputError(hidden[0], _hidden_reason(hidden).partition(": ")[2])
    places = {path: path if root is None else f"{root.absolute()}{path}" for path in files}
    missing = {places[path]: text for path, text in files.items() if not _is_there(places[path], text)}
    for place, text in missing.items():
        _write(Path(place), text)
    kept = [place for place in places.values() if place not in missing]
    for place in places.values():
        complain(f"info: {'wrote' if place in missing else 'as it should be:'} {place}")
    next_commands = [] if root is not None else list(NEXT)
    for line in next_commands:
        complain(f"next: {line}")
    if as_json:
        print_json({"written": list(missing), "unchanged": kept, "next": next_commands})


def _hidden_reason(hidden: list[str]) -> str:
    return (
        f"{hidden[0]}: the services cannot see it, because home directories and /tmp are hidden from them; install in "
        "another place: python3 -m venv /opt/vmclock-async"
    )


def _is_there(place: str, text: str) -> bool:
    """Whether the file at *place* is there, with *text*.

    Raises:
        OutputError: it has another text, or cannot be read.
    """
    try:
        present = Path(place).read_bytes().decode(errors="replace")
    except FileNotFoundError:
        return False
    except OSError as exc:
        raise OutputError(place, f"cannot be read ({exc.strerror}); see who may read it") from exc
    if present == text:
        return True
    has, lacks = (_only_in(present, text), _only_in(text, present))
    raise OutputError(
        place,
        f"differs, so nothing was written: it has {has}, and lacks {lacks}; put changes of your own into a drop-in "
        "(systemctl edit), remove the file, and run this again",
    )


def _only_in(text: str, other: str) -> str:
    others = set(other.splitlines())
    lines = [line for line in text.splitlines() if line not in others]
    shown = " and ".join(repr(line) for line in lines[:_LINES_SHOWN])
    more = len(lines) - _LINES_SHOWN
    return (f"{shown} and {more} more lines" if more > 0 else shown) or "no line of its own"


def _write(place: Path, text: str) -> None:
    """Write the file as a whole, or not at all."""
    try:
        place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        replace_file(place, text, 0o644)
    except PermissionError as exc:
        raise OutputError(
            str(place), f"cannot be written ({exc.strerror}); run this as root, or see the files with --print"
        ) from exc
    except OSError as exc:
        raise OutputError(str(place), f"cannot be written ({exc.strerror}); see the files with --print") from exc
