"""A real Prometheus on loopback, in a directory of its own, that scrapes and evaluates rules all the time."""

import json
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

import pytest

from kit.scrapes import scrape
from kit.waits import eventually

PROMETHEUS: Final = shutil.which("prometheus")
PROMTOOL: Final = shutil.which("promtool")

needs_prometheus = pytest.mark.skipif(
    None in (PROMETHEUS, PROMTOOL), reason="prometheus and promtool are not installed (Debian: prometheus)"
)

_CONFIGURATION: Final = """\
global: {{scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}}
rule_files: [{rules}]
scrape_configs:
  - job_name: vmclock
    static_configs: [{{targets: {targets}}}]
"""


def free_tcp_port() -> int:
    """A TCP port of 127.0.0.1 that nobody has at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class Prometheus:
    """A Prometheus that scrapes *targets* and evaluates the file *rules*; killed at the end of the block."""

    def __init__(self, rules: Path, *targets: str) -> None:
        assert PROMETHEUS is not None
        self._directory: Final = Path(tempfile.mkdtemp(prefix="prometheus-"))
        configuration = self._directory / "prometheus.yml"
        configuration.write_text(_CONFIGURATION.format(rules=json.dumps(str(rules)), targets=json.dumps(targets)))
        self._address: Final = f"127.0.0.1:{free_tcp_port()}"
        self._log: Final = self._directory / "log"
        options = {
            "config.file": configuration,
            "storage.tsdb.path": self._directory,
            "web.listen-address": self._address,
        }
        command = [PROMETHEUS, *(f"--{name}={value}" for name, value in options.items())]
        with self._log.open("wb") as log:
            self._process: Final = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def __enter__(self) -> Self:
        eventually(self._is_ready, pause_s=0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._directory)

    def firing(self) -> set[tuple[str, str]]:
        """The alerts that fire: each one's name, and the target that it is about."""
        labels = [
            alert["labels"] for alert in self._asked("/api/v1/alerts")["alerts"] if alert["state"] == "firing"
        ]
        return {(found["alertname"], found["instance"]) for found in labels}

    def query(self, expression: str) -> list[float]:
        """The values that *expression* has now."""
        return [
            float(found["value"][1]) for found in self._asked(f"/api/v1/query?query={quote(expression)}")["result"]
        ]

    def _asked(self, path: str) -> Any:
        return json.loads(scrape(self._address, path))["data"]

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        try:
            return "Ready" in scrape(self._address, "/-/ready")
        except OSError:  # not yet
            return False
