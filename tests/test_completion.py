"""Completion in a shell: commands, their options, sources and events; and paths, which are left to the shell."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from kit.commands import environment
from vmclock_async._cli import main
from vmclock_async._cli.commands import COMMANDS
from vmclock_async.sources import installed_sources

COMPLETIONS = {
    "": COMMANDS,
    "pu": ("publish",),
    "--v": ("--version",),
    "--debug wai": ("wait",),
    "publish ": ("auto", *sorted(installed_sources())),
    "publish kernel rep": ("replay",),
    "publish kernel --se": ("--set", "--segment"),
    "publish --ready b": ("bounded",),
    "on rest": ("restored",),
    "on restored,status,dis": ("restored,status,disrupted",),
    "completion ": ("bash", "zsh", "fish"),
    "now /dev/sh": (),
    "now --max-error": ("--max-error",),
    "record --output /tm": (),
}
"""What has been typed, and the words that may stand in its last word's place; none: the shell offers files."""


def complete(monkeypatch: pytest.MonkeyPatch, shell: str, **variables: str) -> int:
    """What the script of *shell* runs: the command line without arguments, and the words in *variables*."""
    with monkeypatch.context() as patch:
        patch.setenv("_VMCLOCK_ASYNC_COMPLETE", f"complete_{shell}")
        for name, value in variables.items():
            patch.setenv(name, value)
        return main([])


@pytest.mark.parametrize("typed", COMPLETIONS)
def test_completions_for_bash(
    typed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One a line, and status 0."""
    words = ["vmclock-async", *typed.split(" ")]
    typed_so_far = {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
    assert complete(monkeypatch, "bash", **typed_so_far) == 0
    assert capsys.readouterr().out.split() == [*COMPLETIONS[typed]]


@pytest.mark.parametrize(
    ("shell", "form"), [("zsh", '"publish":"Publish what'), ("fish", "publish\tPublish what")]
)
def test_completions_for_other_shells(
    shell: str, form: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the form of each, with the beginning of the help; where a path may stand, the shell offers files."""
    action = {"_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    assert complete(monkeypatch, shell, _TYPER_COMPLETE_ARGS="vmclock-async pu", **action) == 0
    assert form in capsys.readouterr().out
    path = {"_TYPER_COMPLETE_ARGS": "vmclock-async now /dev/sh", "_TYPER_COMPLETE_FISH_ACTION": "is-args"}
    offers_words = complete(monkeypatch, shell, **path) == 0
    assert ("_files" in capsys.readouterr().out) if shell == "zsh" else not offers_words


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_names_the_shell_and_the_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The variable in it is the one that asks for completions."""
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert f"_VMCLOCK_ASYNC_COMPLETE=complete_{shell}" in script
    assert "vmclock-async" in script


@pytest.mark.process
def test_bash_completes(tmp_path: Path) -> None:
    """A real bash takes the script, and offers what the installed command says; files where it says nothing."""
    program = """
        source <(vmclock-async completion bash)
        complete -p vmclock-async
        COMP_WORDS=(vmclock-async publish ke) COMP_CWORD=2
        _vmclock_async_completion vmclock-async
        echo "${COMPREPLY[@]}"
    """
    here = os.path.dirname(sys.executable)
    variables = environment(tmp_path, {"PATH": f"{here}:{os.environ['PATH']}"})
    command = ["bash", "--norc", "-euc", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=variables, check=False)
    assert done.stderr == "", shlex.join(command)
    assert done.stdout.splitlines() == [
        "complete -o default -F _vmclock_async_completion vmclock-async",
        "kernel",
    ]
