"""Check the form of commit messages: `area: imperative`, 60 characters at most, an empty line before the body.

Usage: python scripts/check_commits.py [--last N]      the last N commits
       python scripts/check_commits.py --message FILE  a message that git is about to use

Standard library only, so that the hook starts at once.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

LONGEST = 60
LAST = 50
AREA = re.compile(r"[a-z][a-z0-9_./-]*(?:, [a-z][a-z0-9_./-]*)*")
GENERATED = re.compile(r'Merge |Revert "|Reapply "')
UNFINISHED = re.compile(r"(?:fixup|squash|amend)! ")
NO_IMPERATIVE = re.compile(r"[a-z]+(?:ed|ing|[^aisu]s)")
IMPERATIVES = frozenset(
    ["bring", "embed", "exceed", "feed", "focus", "need", "ping", "proceed", "seed", "shed", "speed", "string"]
)
"""Verbs that only look like another form of a verb."""
SCISSORS = "------------------------ >8 ------------------------"


def problems(message: str) -> Iterator[str]:
    """Yield what is wrong with a message."""
    subject, _, rest = message.partition("\n")
    if GENERATED.match(subject):
        return
    area, colon, text = subject.partition(": ")
    if not colon or not AREA.fullmatch(area):
        yield "the subject names no area. Write `area: imperative`, for example `pool: bound the queue`."
        text = ""
    if len(subject) > LONGEST:
        yield f"the subject has {len(subject)} characters, and {LONGEST} is the most. Move the reason into the body."
    if text and (why := _no_imperative(text)):
        yield why
    if subject.endswith("."):
        yield "the subject ends with a full stop. Remove it."
    if rest.partition("\n")[0].strip():
        yield "the second line is not empty. Put an empty line between subject and body."


def _no_imperative(text: str) -> str | None:
    word = re.split(r"[\s,]", text, maxsplit=1)[0]
    if word[:1].isupper() and word[1:].islower():
        return f"{word!r} begins with a capital. Write the verb in small letters."
    if NO_IMPERATIVE.fullmatch(word) and word not in IMPERATIVES:
        return f"{word!r} is not an imperative. Write `fix`, not `fixed`, `fixes` or `fixing`."
    return None


def written(file: Path) -> str:
    """Return the message in a file of git's, without git's comments."""
    text = file.read_text(errors="replace").partition(f"# {SCISSORS}")[0]
    return "\n".join(line for line in text.splitlines() if not line.startswith("#")).strip()


def check_message(file: Path) -> int:
    """Check a message before its commit is made. A fixup is allowed: it is squashed later."""
    message = written(file)
    found = [] if not message or UNFINISHED.match(message) else list(problems(message))
    if found:
        print(f"error: the commit was not made: the message breaks the rules in CONTRIBUTING.md:\n  {message[:200]}")
        print("\n".join(f"  - {problem}" for problem in found))
    return 1 if found else 0


def check_last(count: int) -> int:
    """Check the last commits. Merges are left out."""
    # The checkout may belong to another user: git refuses that without this option.
    git = ["git", "-c", f"safe.directory={Path.cwd()}"]
    if subprocess.run([*git, "rev-parse", "--verify", "--quiet", "HEAD"], capture_output=True, check=False).returncode:
        print("There is no history here: no commit message was checked.")
        return 0
    command = [*git, "log", "--no-merges", f"--max-count={count}", "-z", "--format=%h %B"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"error: the commits were not checked: {done.stderr.strip()}", file=sys.stderr)
        return 2
    commits = [commit.partition(" ")[::2] for commit in done.stdout.split("\0") if commit]
    found = [f"{name}: {problem}" for name, message in commits for problem in problems(message.strip())]
    print("\n".join(found) or f"{len(commits)} commit messages have the form `area: imperative`")
    return 1 if found else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Check the form of commit messages.")
    parser.add_argument("--last", type=int, default=LAST, metavar="N", help=f"number of commits to check ({LAST})")
    parser.add_argument("--message", type=Path, metavar="FILE", help="check the message in this file instead")
    options = parser.parse_args()
    return check_message(options.message) if options.message else check_last(options.last)


if __name__ == "__main__":
    sys.exit(main())
