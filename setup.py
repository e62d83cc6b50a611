"""The extension alone; all else is in pyproject.toml.

One wheel per architecture serves 3.11 and later (stable ABI). Free-threaded builds have no stable ABI.
Switches, from the environment: VMCLOCK_ASYNC_DEBUG=1 (-O0 -g), VMCLOCK_ASYNC_SANITIZE=address,undefined,
VMCLOCK_ASYNC_WERROR=1 (for CI).
"""

import os
import sysconfig
from glob import glob

from setuptools import Extension, setup

stable_abi = not sysconfig.get_config_var("Py_GIL_DISABLED")
flags = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wno-cast-function-type", "-fvisibility=hidden"]
if os.environ.get("VMCLOCK_ASYNC_WERROR"):
    flags.append("-Werror")
# By name: where CFLAGS is set, even to nothing, setuptools leaves out the interpreter's own flags.
flags += ["-O0", "-g"] if os.environ.get("VMCLOCK_ASYNC_DEBUG") else ["-O3"]
sanitizers = os.environ.get("VMCLOCK_ASYNC_SANITIZE")
sanitize = [f"-fsanitize={sanitizers}"] if sanitizers else []

setup(
    ext_modules=[
        Extension(
            "vmclock_async._core",
            sources=sorted(glob("csrc/*.c")),
            depends=sorted(glob("csrc/*.h")),
            define_macros=[("Py_LIMITED_API", "0x030B0000")] if stable_abi else [],
            py_limited_api=stable_abi,
            extra_compile_args=flags + sanitize,
            extra_link_args=sanitize,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if stable_abi else {},
)
