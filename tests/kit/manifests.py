"""The Kubernetes manifests of ``deploy/``, and what their pods run."""

from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

__all__ = ("DEPLOY", "containers_of", "pod_of")

DEPLOY: Final = Path(__file__).parent.parent.parent / "deploy"


@cache
def pod_of(name: str) -> Any:
    """The pod of the manifest *name*, whose last object has its template."""
    *_, last = yaml.safe_load_all((DEPLOY / f"kubernetes/{name}.yaml").read_text(encoding="utf-8"))
    return last["spec"]["template"]["spec"]


def containers_of(name: str) -> list[dict[str, Any]]:
    """The containers of that pod, those that run before the others first."""
    pod = pod_of(name)
    return [*pod["initContainers"], *pod["containers"]]
