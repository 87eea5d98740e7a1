"""Check that what README.md, CONTRIBUTING.md and docs/*.md tell the reader to run and to open exists.

In ```console and ```sh blocks: `make X` names a target, `greenroom X --flag` a subcommand and an option of
it, `python -m X` a module of this repository, and a path into this repository a file. In the text: a relative
link leads to a file. Nothing is run but `greenroom X --help`.
"""

import itertools
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^ *```(console|sh)\n(.*?)^ *```", re.M | re.S)
ANY_BLOCK = re.compile(r"^ *```.*?^ *```|`[^`\n]+`", re.M | re.S)
LINK = re.compile(r"\]\(([^)\s#]+)[^)]*\)")
ASSIGNMENT = re.compile(r"\w+=.*")
FOLDERS = ("benchmarks", "docs", "examples", "scripts", "src", "tests")


@cache
def make_targets() -> frozenset[str]:
    return frozenset(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))


@cache
def greenroom_help(*subcommand: str) -> str | None:
    """The help text of a subcommand, or None if there is no such subcommand."""
    greenroom = Path(sys.executable).parent / "greenroom"
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run(
        [greenroom, *subcommand, "--help"], env=environment, capture_output=True, text=True, check=False
    )
    return done.stdout if done.returncode == 0 else None


def commands(block: str, *, console: bool) -> Iterator[list[str]]:
    """The simple commands of a block. In a console session only lines with a prompt are commands."""
    for line in textwrap.dedent(block).replace("\\\n", " ").splitlines():
        if console and not line.startswith("$ "):
            continue
        lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
        words: list[str] = []
        for word in [*lexer, ";"]:
            if not set(word) <= set(";&|()"):
                words.append(word)
                continue
            while words and ASSIGNMENT.fullmatch(words[0]):
                words.pop(0)
            if words:
                yield words
            words = []


def check_make(arguments: list[str]) -> Iterator[str]:
    for target in arguments:
        if not target.startswith("-") and "=" not in target and target not in make_targets():
            yield f"make has no target {target!r}"


def check_greenroom(arguments: list[str]) -> Iterator[str]:
    # Up to two, as in `greenroom jobs run`; where the second word is an argument, the help is the same.
    subcommand = list(itertools.takewhile(lambda word: not word.startswith("-"), arguments[:2]))
    text = greenroom_help(*subcommand)
    if text is None:
        yield f"`greenroom {' '.join([*subcommand, '--help'])}` fails"
        return
    if subcommand and " COMMAND [ARGS]" in text:  # a group, as in `greenroom init systemd`
        subcommand = arguments[:2]
        text = greenroom_help(*subcommand) or ""
    known = set(re.findall(r"--[a-z][a-z-]*", text))
    for word in arguments:
        option = word.partition("=")[0]
        if option.startswith("--") and option not in known:
            yield f"`greenroom {' '.join(subcommand)}` has no option {option}"


def check_module(arguments: list[str]) -> Iterator[str]:
    if "-m" not in arguments[:-1]:
        return
    module = arguments[arguments.index("-m") + 1]
    base = ROOT / module.replace(".", "/")
    runnable = base.with_suffix(".py").exists() or (base / "__main__.py").exists()
    if module.split(".")[0] in FOLDERS and not runnable:
        yield f"there is no module {module} to run"


def check_paths(words: list[str]) -> Iterator[str]:
    for word in words:
        path = word.removeprefix("./").partition(":")[0]
        if path.partition("/")[0] in FOLDERS and "/" in path and not any(ROOT.glob(path)):
            yield f"there is no file {path}"


def check_command(words: list[str]) -> Iterator[str]:
    program, *arguments = words
    match Path(program).name:
        case "make":
            yield from check_make(arguments)
        case "greenroom":
            yield from check_greenroom(arguments)
        case "python" | "python3":
            yield from check_module(arguments)
    yield from check_paths(words)


def check_page(page: Path) -> Iterator[str]:
    text = page.read_text()
    for language, block in BLOCK.findall(text):
        for words in commands(block, console=language == "console"):
            yield from check_command(words)
    for target in LINK.findall(ANY_BLOCK.sub("", text)):
        if not re.match(r"[a-z]+:", target) and not (page.parent / target).exists():
            yield f"there is no file for the link {target!r}"


def main() -> int:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("**/*.md"))]
    problems = [f"{page.relative_to(ROOT)}: {problem}" for page in pages for problem in check_page(page)]
    print("\n".join(problems) or f"{len(pages)} pages: every command and link is valid")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
