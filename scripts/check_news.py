"""Check that the news fragments are well named, that they build, and that this version has some news."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    draft = subprocess.run(
        [sys.executable, "-m", "towncrier", "build", "--draft", "--version", version],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if draft.returncode:
        print(f"error: the news fragments do not build:\n{draft.stdout}{draft.stderr}", file=sys.stderr)
        return 1
    fragments = sorted((ROOT / "news").glob("*.md"))
    if not fragments and f"\n## {version} " not in (ROOT / "CHANGELOG.md").read_text():
        print(f"error: {version} has no fragments in news/ and no section in CHANGELOG.md", file=sys.stderr)
        return 1
    print(f"{len(fragments)} news fragments for {version}; the draft builds")
    return 0


if __name__ == "__main__":
    sys.exit(main())
