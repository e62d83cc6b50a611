"""What pydantic found wrong, in one line for people."""

from pydantic import ValidationError
from pydantic_core import ErrorDetails

__all__ = ("validation_reason",)


def validation_reason(error: ValidationError) -> str:
    """What *error* found, on one line: each field with what is allowed and what was given; the first three."""
    details = error.errors(include_url=False, include_context=False)
    found = [_describe(detail) for detail in details[:3]]
    if len(details) > 3:
        found.append(f"{len(details) - 3} more")
    return ", and ".join(found)


def _describe(detail: ErrorDetails) -> str:
    where = _shortened(".".join(str(part) for part in detail["loc"]))
    message = detail["msg"]
    match detail["type"]:
        case "extra_forbidden":
            return f"{where}: no such field"
        case "missing":
            return f"{where}: is missing"
        case "json_invalid":
            return f"not JSON ({message.removeprefix('Invalid JSON: ')})"
        case "value_error":  # of a settings model's own validator: about several fields at once
            return f"{where + ': ' if where else ''}{message.removeprefix('Value error, ')}"
        case _:
            return f"{where + ': ' if where else ''}{message}, not {_shortened(repr(detail['input']))}"


def _shortened(text: str) -> str:
    line = text.replace("\n", "\\n")
    return line if len(line) <= 60 else line[:57] + "..."
