"""Rules of this repository that no linter knows."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("src", "plugins", "tests", "tools", "benchmarks")
Modules = dict[Path, list[ast.AST]]


@pytest.fixture(scope="module")
def modules() -> Modules:
    """The nodes of each Python file."""
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    return {path: list(ast.walk(ast.parse(path.read_text()))) for path in paths}


@pytest.mark.long
def test_each_module_constant_is_used(modules: Modules) -> None:
    """Its own module reads each constant, or another imports it or has it as an attribute."""
    taken = {alias.name for nodes in modules.values() for node in nodes if isinstance(node, ast.ImportFrom)
             for alias in node.names}  # fmt: skip
    taken |= {node.attr for nodes in modules.values() for node in nodes if isinstance(node, ast.Attribute)}
    unused = []
    for path, nodes in modules.items():
        read = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
        unused += [f"{path.relative_to(ROOT)}: {name}" for name in _constants(nodes[0]) - read - taken]
    assert not unused


def _constants(module: ast.AST) -> set[str]:
    """The names in capitals that *module* assigns at its top level."""
    assignments = [node for node in ast.iter_child_nodes(module) if isinstance(node, ast.Assign | ast.AnnAssign)]
    names = [node for assignment in assignments for node in ast.walk(assignment) if isinstance(node, ast.Name)]
    return {
        name.id for name in names if isinstance(name.ctx, ast.Store) and re.fullmatch(r"_?[A-Z][A-Z\d_]+", name.id)
    }


@pytest.mark.long
def test_names_of_tests_take_no_article(modules: Modules) -> None:
    """Names are test_clock_does_x, not test_a_clock_does_x."""
    names = [getattr(node, "name", None) or "" for nodes in modules.values() for node in nodes]
    assert not [name for name in names if re.match("test_(a|an|the)_", name)]
