"""The files with which systemd, its user database and udev run the publisher. ``docs/how-to/systemd.md`` shows them.

The service has a user of its own, not DynamicUser=: together with RuntimeDirectoryPreserve= that would put the segment
below /run/private, which root alone may enter. It asks chronyd at its port, because membership in chronyd's group does
not help: only root and chronyd's own user may write to its socket and its directory.
"""

import sys
import sysconfig
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import vmclock_async

__all__ = ("CONFIGURATION", "arguments", "command", "hidden_parts", "sources", "units")

CONFIGURATION: Final = Path("/etc/vmclock-async.toml")
"""The file that the publisher's unit reads, if it is there when the unit is written."""
_HIDDEN: Final = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")
"""Directories that ProtectHome=yes and PrivateTmp=yes hide from the services."""

_CONFINED: Final = """\
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
ProtectProc=invisible
ProcSubset=pid
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
ProtectHostname=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
"""

_SERVICE: Final = """\
# /etc/systemd/system/vmclock-async.service
[Unit]
Description=Publish the time of this machine as a VMClock segment
After=chronyd.service

[Service]
Type=notify
ExecStart={command} publish {arguments}
User=vmclock-async
RuntimeDirectory=vmclock-async
RuntimeDirectoryMode=0755
RuntimeDirectoryPreserve=yes
WatchdogSec=30s
Restart=on-failure
RestartSec=3s
RestartPreventExitStatus=2

# The kernel's log reports restores; ProtectKernelLogs= and PrivateDevices= would hide it.
AmbientCapabilities=CAP_SYSLOG
CapabilityBoundingSet=CAP_SYSLOG
DevicePolicy=closed
DeviceAllow=/dev/vmclock0 r
DeviceAllow=/dev/kmsg r
DeviceAllow=char-ptp r
# Reading the kernel's clock needs these two calls; ProtectClock= would deny them.
SystemCallFilter=@system-service adjtimex clock_adjtime
# chronyd is asked at 127.0.0.1, and the kernel's uevents come by netlink.
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
IPAddressDeny=any
IPAddressAllow=localhost
{confined}
[Install]
WantedBy=multi-user.target
"""

_BOUNDED: Final = """\
# /etc/systemd/system/vmclock-bounded.service
[Unit]
Description=Wait for a bounded time
Wants=vmclock-async.service
After=vmclock-async.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={command} wait /run/vmclock-async/shm0 --max-error 1ms --stable 10s --timeout 5min
DynamicUser=yes

CapabilityBoundingSet=
DevicePolicy=closed
DeviceAllow=/dev/vmclock0 r
SystemCallFilter=@system-service
RestrictAddressFamilies=AF_UNIX
PrivateNetwork=yes
IPAddressDeny=any
ProtectKernelLogs=yes
ProtectClock=yes
{confined}
[Install]
WantedBy=multi-user.target
"""

_USER: Final = """\
# /etc/sysusers.d/vmclock-async.conf
u vmclock-async - "VMClock publisher"
"""

_RULE: Final = """\
# /etc/udev/rules.d/60-vmclock.rules
KERNEL=="vmclock[0-9]*", MODE="0444"
SUBSYSTEM=="ptp", ATTR{clock_name}=="KVM virtual PTP|Virtio PTP type *|ena-ptp-*|hyperv|vmclock[0-9]*", MODE="0444"
"""
"""The PTP clocks are those that hosts give their guests: nobody can set them, and they have no pins to program."""


def units(command: str, arguments: str) -> Mapping[str, str]:
    """The files by path, for an installation whose command is *command*; ``publish`` gets *arguments*."""
    texts = (
        _SERVICE.format(command=command, arguments=arguments, confined=_CONFINED),
        _BOUNDED.format(command=command, confined=_CONFINED),
        _USER,
        _RULE,
    )
    return {text.partition("\n")[0].removeprefix("# "): text for text in texts}


def command() -> str:
    """The command of this installation, for ExecStart=: by its absolute path, quoted as systemd.service(5) has it."""
    script = Path(sysconfig.get_path("scripts")).absolute() / "vmclock-async"
    if script.exists():
        return _quoted(str(script))
    return f"{_quoted(sys.executable)} -m vmclock_async"


def arguments(configuration: Path = CONFIGURATION) -> str:
    """The arguments of ``publish``: the *configuration* if that file is there, else the sources."""
    return f"--config {configuration}" if configuration.exists() else sources()


def sources() -> str:
    """The sources for ``publish``: chrony only where pychrony is installed, because without it the publisher fails."""
    if find_spec("pychrony") is None:
        return "device vmgenid ptp kernel"
    return "device vmgenid chrony ptp kernel --set chrony.address=127.0.0.1:323"


def hidden_parts() -> list[str]:
    """Parts of this installation that lie where the services cannot see them."""
    parts = {sys.executable, str(Path(sys.executable).resolve()), str(Path(vmclock_async.__file__).resolve())}
    return sorted(part for part in parts if part.startswith(tuple(f"{place}/" for place in _HIDDEN)))


def _quoted(path: str) -> str:
    text = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"' if text != path or " " in path else path
