"""Import the package in an interpreter with its own GIL."""

import sys

program = "import vmclock_async"
if sys.version_info < (3, 12):
    # No interpreter has a GIL of its own here: what a later Python says of the core is played.
    class Refusing:
        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> None:
            if name == "vmclock_async._core":
                raise ImportError(f"module {name} does not support loading in subinterpreters")

    sys.meta_path.insert(0, Refusing)
    try:
        exec(program)
    except ImportError as error:
        print(error)
else:
    program = f"import sys; sys.path[:] = {sys.path!r}" + chr(10) + program
    try:
        import _interpreters as interpreters
    except ImportError:
        import _xxsubinterpreters as interpreters
    try:
        failure = interpreters.run_string(interpreters.create(), program)
    except interpreters.RunFailedError as error:
        failure = error
    print(failure)
