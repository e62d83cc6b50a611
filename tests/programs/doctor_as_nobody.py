"""Run ``doctor`` as an ordinary user, with what the command needs imported before."""

import sys

import pychrony  # noqa: F401  while it may be read
import pydantic.json_schema  # noqa: F401

from nobody import become_nobody
from vmclock_async._cli import doctor  # noqa: F401
from vmclock_async._cli.app import run
from vmclock_async.sources import installed_sources

for source in installed_sources().values():
    source.load()
become_nobody()
sys.exit(run(["doctor", *sys.argv[1:]]))
