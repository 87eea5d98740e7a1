"""Options of a command, made from the fields of the types that declare them."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import textwrap
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal

import typer

__all__ = ["with_fields"]

_OFF = ("none", "off")


def with_fields(command: Callable[..., int]) -> Callable[..., int]:
    """Replace each parameter that has a dataclass instance as its default by an option for each of its fields.

    The instance gives the defaults, the docstrings of the fields give the help, and the command gets an
    instance again. ``ValueError``, which such a type raises for a value that makes no sense, comes through.
    """
    signature = inspect.signature(command, eval_str=True)
    defaults: dict[str, Any] = {name: parameter.default for name, parameter in signature.parameters.items()}
    groups: dict[str, Any] = {name: value for name, value in defaults.items() if dataclasses.is_dataclass(value)}
    kept = [p for name, p in signature.parameters.items() if name not in groups]
    options = [option for default in groups.values() for option in _options_of(default)]

    @functools.wraps(command)
    def run(**values: Any) -> int:
        built = {name: dataclasses.replace(default, **_taken(values, default)) for name, default in groups.items()}
        return command(**values, **built)

    # All of it for typer, which reads a function's signature.
    seen: Any = run
    seen.__signature__ = inspect.Signature([*kept, *options])
    seen.__annotations__ = {}
    del seen.__wrapped__
    return run


def _taken(values: dict[str, Any], default: Any) -> dict[str, Any]:
    return {field.name: values.pop(field.name) for field in dataclasses.fields(default)}


def _options_of(default: Any) -> list[inspect.Parameter]:
    kind = type(default)
    docs, hints = _docstrings(kind), typing.get_type_hints(kind)
    panel = (kind.__doc__ or "").split(".")[0].replace("``", "")
    return [
        _option(field.name, hints[field.name], getattr(default, field.name), docs.get(field.name, ""), panel)
        for field in dataclasses.fields(kind)
    ]


def _option(name: str, hint: Any, default: Any, doc: str, panel: str) -> inspect.Parameter:
    parser, metavar = _parser(hint, "MIB" if name.endswith("_mb") else "SECONDS")
    shown = "default:" not in doc
    option = typer.Option(
        f"--{name.replace('_', '-')}",
        help=doc.replace("``", ""),
        parser=parser,
        metavar=metavar,
        show_default="off" if default is None and shown else shown,
        rich_help_panel=panel,
    )
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, keyword, default=default, annotation=Annotated[str, option])


def _parser(hint: Any, unit: str) -> tuple[Callable[[Any], Any], str]:
    """How to read a value of this type, and what to call it in the help."""
    if typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        return functools.partial(_choice, choices), "|".join(choices)
    if isinstance(hint, types.UnionType):
        (inner,) = (part for part in typing.get_args(hint) if part is not types.NoneType)
        parser, metavar = _parser(inner, unit)
        return functools.partial(_or_off, parser), f"{metavar}|off"
    known: dict[type, tuple[Callable[[Any], Any], str]] = {
        int: (functools.partial(_number, int, "a whole number"), "N"),
        float: (functools.partial(_number, float, "a number"), unit),
        str: (str, "TEXT"),
    }
    return known[hint]


def _choice(choices: tuple[str, ...], value: str) -> str:
    if value not in choices:
        raise typer.BadParameter(f"{value!r} is none of: {', '.join(choices)}")
    return value


def _or_off(parser: Callable[[Any], Any], value: Any) -> Any:
    return None if value in _OFF else parser(value)


def _number(kind: Callable[[Any], Any], what: str, value: Any) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise typer.BadParameter(f"{value!r} is not {what}") from None


def _docstrings(kind: type) -> dict[str, str]:
    """The string below each field. Empty where there is no source to read, as in a frozen program."""
    try:
        source = inspect.getsource(kind)
    except OSError:
        return {}
    (definition,) = ast.parse(textwrap.dedent(source)).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, below in itertools.pairwise(definition.body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            found[field.target.id] = str(ast.literal_eval(below.value))
    return found
