"""Libraries that stand in for functions of the C library in other processes, by LD_PRELOAD."""

import os
import subprocess
from pathlib import Path


def compiled(name: str, directory: Path) -> Path:
    """The C file *name* beside this one as a shared library in *directory*, made by the machine's C compiler."""
    library = directory / f"{name}.so"
    source = Path(__file__).with_name(f"{name}.c")
    command = ["cc", "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([*command, "-o", library, source, "-ldl"], check=True)
    return library


def preloaded(library: Path) -> dict[str, str]:
    """The environment of a process that loads *library* first, before any that it would load first without it."""
    return {"LD_PRELOAD": ":".join([str(library), *filter(None, [os.environ.get("LD_PRELOAD")])])}
