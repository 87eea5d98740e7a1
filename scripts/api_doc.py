"""Write docs/python-api.md from the docstrings of the public classes; with --check, only compare the page with them.

The source is read, and not imported: types and defaults stand on the page as they are written.
"""

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "greenroom"
PAGE = ROOT / "docs" / "python-api.md"

INTRODUCTION = """\
<!-- Written by scripts/api_doc.py: change the script, or the docstrings in src/greenroom. -->
# Python API

All names on this page are public. Import them from `greenroom`, unless the section names another module. Modules and
names that are not on this page can change in any release.

Times are seconds and memory is MiB, unless a table names another unit. *Plain data* is data that JSON can hold, or
`bytes`.
"""

TESTING = """\
## Test an app

A test can start a pool of its own. It needs no worker and no port:

<!-- run: {'caller': 'Ada'} -->
```python
import asyncio

import greenroom


async def test_a_job_succeeds() -> None:
    async with greenroom.ProcessPool("agent.py:app", num_idle_processes=1, prewarm_timeout=60) as pool:
        handle = await pool.launch({"caller": "Ada"}, timeout=60)
        report = await handle.wait()
    assert report.outcome == "succeeded", report
    print(report.result)


asyncio.run(test_a_job_succeeds())
```

The decorators of an app return the functions unchanged. So a test can also call the entrypoint in its own process. The
context then has no supervisor: no deadline holds, and no shutdown callback is called.

<!-- run: Ada -->
```python
import asyncio

import greenroom
from agent import entrypoint


async def test_the_entrypoint() -> None:
    ctx = greenroom.JobContext(greenroom.Job("test-1", "Ada"), greenroom.JobProcess(generation=1))
    print(await entrypoint(ctx))


asyncio.run(test_the_entrypoint())
```
"""


@dataclass(frozen=True)
class Section:
    """Part of the page: a heading, an introduction, and the classes of some modules."""

    title: str
    introduction: str
    classes: dict[str, str]
    """Module of each class."""


SECTIONS = [
    Section(
        "The app",
        "An app registers functions by decorators. [Writing an app](writing-an-app.md) explains where each one runs.",
        {"App": "app"},
    ),
    Section(
        "Inside a job",
        "`prewarm` gets a `JobProcess`, `request` a `JobRequest`, and the entrypoint a `JobContext`.",
        {
            "JobContext": "job",
            "JobProcess": "job",
            "Job": "job",
            "JobRequest": "job",
            "Accept": "job",
            "Reject": "job",
            "ServiceClient": "zygote/service_client",
        },
    ),
    Section(
        "The pool",
        "`greenroom start` makes a pool and serves it. A program can make one itself: see "
        "[As a library](writing-an-app.md#as-a-library).",
        {
            "ProcessPool": "pool/pool",
            "PoolOptions": "options",
            "JobHandle": "pool/handles",
            "Reservation": "pool/handles",
            "PoolStats": "pool/pool",
            "ProcessInfo": "pool/pool",
            "Invocation": "pool/shell/script_client",
        },
    ),
    Section(
        "Reports",
        "Each process ends in one `ExitReport`. [How sessions end](exit-reasons.md) explains each `reason`.",
        {"ExitReport": "exit_report", "Timings": "exit_report", "ErrorInfo": "errors"},
    ),
    Section(
        "Errors",
        "An error's message says what failed, the cause and the remedy.",
        {
            "GreenroomError": "errors",
            "AppLoadError": "errors",
            "LaunchError": "errors",
            "NoCapacity": "errors",
            "OptionError": "errors",
            "PayloadError": "errors",
            "PoolClosed": "errors",
            "PrewarmError": "errors",
            "ServiceError": "errors",
        },
    ),
    Section(
        "Settings of a worker",
        "A worker reads its settings from several places: see [Settings](settings.md).",
        {"Settings": "settings/__init__"},
    ),
]

EVENTS = """\
## Events

`ProcessPool.subscribe` passes these events to a function. `GET /v1/events` of a worker streams them: see
[HTTP API](http-api.md#events). They are in the module `greenroom.pool.events`. Each event also has the field `at` of
`Event`.
"""

INTEGRATIONS = """\
## For integrations

These attributes and methods serve integrations of other frameworks, such as LiveKit's. An app does not need them.

| name | meaning |
| --- | --- |
"""

ABOUT_OPTIONS = (
    "`max_idle_processes=None` stands for `auto`. [Settings](settings.md#pool) names the flag and the variable of each "
    "option."
)

UNITS = {
    "at": "s since 1970",
    "Timings": "s since 1970",
    "seconds": "s",
    "timeout": "s",
    "retry_after": "s",
    "expected_wait": "s",
    "beat_age": "s",
    "loop_lag": "s",
    "descendants_killed": "processes",
    "log_records_dropped": "lines and records",
    "result_payload": "bytes",
    "allowed": "processes",
    "most": "processes",
    "num_idle_processes": "processes",
    "max_idle_processes": "processes",
    "max_concurrent_prewarms": "processes",
    "process_limit": "processes",
    "idle": "processes",
    "warming": "processes",
    "idle_target": "processes",
    "idle_ceiling": "processes",
    "zygote_restarts": "zygotes",
    "max_jobs": "jobs",
    "jobs": "jobs",
    "waiting": "jobs",
}
"""Units of fields, by the name of the field or of its class."""
SUFFIXES = {"_mb": "MiB", "_seconds": "s", "_timeout": "s", "_ttl": "s"}
MADE_BY_GREENROOM = {"JobHandle", "Reservation", "ServiceClient"}
"""Classes that a user never constructs."""
PURE_NUMBERS = {"pid", "zygote_pid", "generation", "exit_code", "signal"}
"""Numbers that measure nothing."""
ALIASES = {"Labels": "Mapping[str, str]", "JobState": "str", "Outcome": "str", "Reason": "str"}
"""Types that have a name in another module."""


@dataclass
class Member:
    """Attribute, property or method of a class."""

    name: str
    doc: str
    type: str = ""
    default: str = ""
    signatures: list[str] = field(default_factory=list)
    """Signatures of a method; empty for an attribute."""


@dataclass
class Described:
    """Class with everything that the page says about it."""

    name: str
    bases: list[str]
    doc: str
    signature: str = ""
    members: list[Member] = field(default_factory=list)
    is_kw_only: bool = False


def read(module: str) -> dict[str, Described]:
    """Return all classes of a module."""
    text = (SOURCE / f"{module}.py").read_text()
    body = ast.parse(text).body
    reader = _Reader(text, body)
    return {node.name: reader.described(node) for node in body if isinstance(node, ast.ClassDef)}


class _Reader:
    """Reader of the classes of one source text."""

    def __init__(self, text: str, body: list[ast.stmt]) -> None:
        self._text = text
        self._overloads: list[str] = []
        """Signatures of the next method."""
        self._aliases = dict(ALIASES)
        """Types that have a name in this module only, such as those of the functions that an app registers."""
        for node in body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                self._add_alias(node.targets[0].id, node.value)

    def _add_alias(self, name: str, value: ast.expr) -> None:
        if isinstance(value, ast.Call):  # TypeVar("P", bound=Preload)
            for word in value.keywords:
                if word.arg == "bound":
                    self._aliases[name] = self._type(word.value)
        elif isinstance(value, ast.Subscript | ast.BinOp) and not _is_literal(value):
            self._aliases[name] = self._type(value)

    def described(self, node: ast.ClassDef) -> Described:
        bases = [self._source(base) for base in node.bases]
        found = Described(node.name, bases, ast.get_docstring(node) or "")
        found.is_kw_only = any("kw_only=True" in self._source(decorator) for decorator in node.decorator_list)
        found.members = list(self._fields(node.body))
        for part in node.body:
            if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
                self._add_function(found, part)
        return found

    def _add_function(self, to: Described, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        decorators = [self._source(decorator) for decorator in node.decorator_list]
        doc = ast.get_docstring(node) or ""
        if node.name == "__init__":
            to.signature = self._signature(node, to.name)
            to.members += self._attributes(node)
        elif node.name.startswith("_") and node.name != "__call__":
            return
        elif "property" in decorators:
            to.members.append(Member(node.name, doc, self._type(node.returns)))
        elif "overload" in decorators:
            self._overloads.append(self._signature(node, node.name))
        else:
            signatures = self._overloads or [self._signature(node, node.name)]
            self._overloads = []
            to.members.append(Member(node.name, doc, signatures=signatures))

    def _fields(self, body: list[ast.stmt]) -> Iterator[Member]:
        """Yield the annotated names of a class's body, with the string below each one."""
        for part, below in zip(body, [*body[1:], None], strict=True):
            if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                default = self._default(part.value)
                yield Member(part.target.id, _string(below), self._type(part.annotation), default)

    def _default(self, value: ast.expr | None) -> str:
        if not isinstance(value, ast.Call):
            return self._source(value)
        named = {word.arg: word.value for word in value.keywords}
        return self._source(named.get("default")) or self._source(named.get("default_factory"))

    def _attributes(self, init: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Member]:
        """Yield the attributes that ``__init__`` sets, if a string below explains them."""
        arguments = [*init.args.posonlyargs, *init.args.args, *init.args.kwonlyargs]
        types = {argument.arg: self._type(argument.annotation) for argument in arguments}
        for part, below in zip(init.body, [*init.body[1:], None], strict=True):
            target = part.targets[0] if isinstance(part, ast.Assign) else getattr(part, "target", None)
            if not isinstance(target, ast.Attribute) or not _string(below):
                continue
            kind = self._type(part.annotation) if isinstance(part, ast.AnnAssign) else ""
            if isinstance(part, ast.Assign) and isinstance(part.value, ast.Name):
                kind = types.get(part.value.id, "")
            yield Member(target.attr, _string(below), kind)

    def _signature(self, node: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> str:
        arguments = node.args
        parts = [self._argument(one, default) for one, default in _with_defaults(arguments)][1:]  # without self
        if arguments.posonlyargs:
            parts.insert(len(arguments.posonlyargs) - 1, "/")
        if arguments.vararg is not None:
            parts.append("*" + self._argument(arguments.vararg, None))
        elif arguments.kwonlyargs:
            parts.append("*")
        keywords = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        parts += [self._argument(one, default) for one, default in keywords]
        if arguments.kwarg is not None:
            parts.append("**" + self._argument(arguments.kwarg, None))
        start = "async def " if isinstance(node, ast.AsyncFunctionDef) else "def "
        end = "" if node.name == "__init__" else f" -> {self._type(node.returns)}"
        return _folded("" if node.name == "__init__" else start, name, parts, end)

    def _argument(self, argument: ast.arg, default: ast.expr | None) -> str:
        kind = f": {self._type(argument.annotation)}" if argument.annotation is not None else ""
        if default is None:
            return argument.arg + kind
        return f"{argument.arg}{kind} {'= ' if kind else '='}{self._source(default)}"

    def _type(self, node: ast.expr | None) -> str:
        if node is None or _is_literal(node):
            return self._source(node)
        text = self._source(node).replace('"', "")
        return re.sub(r"\w+", lambda match: self._aliases.get(match[0], match[0]), text)

    def _source(self, node: ast.AST | None) -> str:
        return "" if node is None else " ".join((ast.get_source_segment(self._text, node) or "").split())


def _with_defaults(arguments: ast.arguments) -> list[tuple[ast.arg, ast.expr | None]]:
    names = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(names) - len(arguments.defaults)) + list(arguments.defaults)
    return list(zip(names, defaults, strict=True))


def _is_literal(node: ast.expr | None) -> bool:
    return node is not None and any(isinstance(part, ast.Name) and part.id == "Literal" for part in ast.walk(node))


def _string(node: ast.stmt | None) -> str:
    """Return the text of a statement that is a string; ``""`` for any other one."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return node.value.value
    return ""


def _folded(start: str, name: str, parts: list[str], end: str) -> str:
    line = f"{start}{name}({', '.join(parts)}){end}"
    if len(line) <= 100:
        return line
    return f"{start}{name}(\n" + "".join(f"    {part},\n" for part in parts) + f"){end}"


# --- the page ------------------------------------------------------------------------------------


class Page:
    """Page under construction."""

    def __init__(self) -> None:
        modules = {module for section in SECTIONS for module in section.classes.values()}
        self._known = {module: read(module) for module in modules}
        self._events = read("pool/events")
        shown = [self._known[module][name] for section in SECTIONS for name, module in section.classes.items()]
        self._anchors = {one.name for one in [*shown, *self._events.values()]}
        for one in shown:
            self._anchors |= {f"{one.name}.{member.name}" for member in one.members if _is_method(member)}
        self._integrations: list[tuple[str, Member]] = []

    def text(self) -> str:
        parts = [INTRODUCTION]
        for section in SECTIONS:
            parts.append(f"## {section.title}\n\n{section.introduction}\n")
            parts += [self._class(self._known[module][name]) for name, module in section.classes.items()]
        parts.append(EVENTS)
        parts += [self._class(one) for one in self._events.values()]
        rows = [
            f"| `{of}.{member.name}` | {self._prose(_cell(_without_mark(member.doc)), of)} |"
            for of, member in self._integrations
        ]
        parts.append(INTEGRATIONS + "\n".join(rows) + "\n")
        parts.append(TESTING)
        return "\n".join(parts)

    def _class(self, one: Described) -> str:
        lines = [f"### `{one.name}`", ""]
        if one.signature and one.name not in MADE_BY_GREENROOM:
            lines += ["```python", one.signature, "```", ""]
        lines += [self._prose(one.doc, one.name), ""]
        if one.bases and one.bases[0] not in ("Event", "Exception"):
            lines += [f"Base classes: {', '.join(f'`{base}`' for base in one.bases)}.", ""]
        if one.name == "PoolOptions":
            lines += [ABOUT_OPTIONS, ""]
        plain = [member for member in one.members if not _is_for_integrations(member)]
        self._integrations += [(one.name, member) for member in one.members if _is_for_integrations(member)]
        lines += self._table(one, [member for member in plain if not member.signatures])
        for member in plain:
            if member.signatures:
                lines += [f"#### `{one.name}.{member.name}`", "", "```python", *member.signatures, "```", ""]
                lines += [self._prose(member.doc, one.name), ""]
        return "\n".join(lines)

    def _table(self, one: Described, members: list[Member]) -> list[str]:
        if not members:
            return []
        columns = ["field", "type", "default", "unit", "meaning"]
        if one.name != "PoolOptions":
            columns.remove("default")
        if not any(_unit(one.name, member) for member in members):
            columns.remove("unit")
        rows = [f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns)]
        for member in members:
            assert member.doc, f"{one.name}.{member.name} has no docstring"
            cells = {
                "field": f"`{member.name}`",
                "type": f"`{_cell(member.type)}`" if member.type else "",
                "default": f"`{member.default}`" if member.default else "",
                "unit": _unit(one.name, member),
                "meaning": self._prose(_cell(member.doc), one.name),
            }
            rows.append("| " + " | ".join(cells[column] for column in columns) + " |")
        return [*rows, ""]

    def _prose(self, doc: str, owner: str) -> str:
        """Return a docstring as Markdown: roles become links, and double backticks single ones."""

        def link(match: re.Match[str]) -> str:
            name = match[1].lstrip("~").removeprefix("greenroom.").removeprefix("pool.events.")
            for target in (name, f"{owner}.{name}"):
                if target in self._anchors:
                    return f"[`{name}`](#{target.lower().replace('.', '')})"
            return f"`{name}`"

        assert doc, f"{owner} lacks a docstring"
        text = re.sub(r":\w+:`([^`]+)`", link, doc.strip())
        return text.replace("``", "`")


def _is_method(member: Member) -> bool:
    return bool(member.signatures) and not _is_for_integrations(member)


def _is_for_integrations(member: Member) -> bool:
    return member.doc.startswith(("For integrations:", "For sources:"))


def _without_mark(doc: str) -> str:
    text = doc.partition(":")[2].strip()
    return text[:1].upper() + text[1:]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _unit(owner: str, member: Member) -> str:
    """Return the unit of a field. A number without one is an error, unless it measures nothing."""
    is_number = re.match(r"(int|float)\b", member.type) is not None
    if owner in UNITS and is_number:
        return UNITS[owner]
    for suffix, unit in SUFFIXES.items():
        if member.name.endswith(suffix) and is_number:
            return unit
    if member.name in UNITS:
        return UNITS[member.name]
    assert not is_number or member.name in PURE_NUMBERS, f"{owner}.{member.name} has no unit: add it to UNITS"
    return ""


def main() -> int:
    text = Page().text()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text)
        return 0
    if PAGE.exists() and PAGE.read_text() == text:
        return 0
    print("docs/python-api.md differs from the docstrings. Run: python scripts/api_doc.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
