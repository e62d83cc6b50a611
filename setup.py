"""The extension alone; all else is in pyproject.toml.

One wheel per architecture serves 3.11 and later (stable ABI). Free-threaded builds have no stable ABI.
Switches, from the environment: VMCLOCK_ASYNC_DEBUG=1 (-O0 -g), VMCLOCK_ASYNC_SANITIZE=address,undefined,
VMCLOCK_ASYNC_WERROR=1 (for CI).
"""

import os
import sysconfig

from setuptools import Extension, setup

stable_abi = not sysconfig.get_config_var("Py_GIL_DISABLED")
flags = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wno-cast-function-type"]
if os.environ.get("VMCLOCK_ASYNC_WERROR"):
    flags.append("-Werror")
if os.environ.get("VMCLOCK_ASYNC_DEBUG"):
    flags += ["-O0", "-g"]
sanitizers = os.environ.get("VMCLOCK_ASYNC_SANITIZE")
sanitize = [f"-fsanitize={sanitizers}"] if sanitizers else []

setup(
    ext_modules=[
        Extension(
            "vmclock_async._core",
            sources=["src/vmclock_async/_core.c"],
            depends=["src/vmclock_async/_seqlock.h"],
            define_macros=[("Py_LIMITED_API", "0x030B0000")] if stable_abi else [],
            py_limited_api=stable_abi,
            extra_compile_args=flags + sanitize,
            extra_link_args=sanitize,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if stable_abi else {},
)
