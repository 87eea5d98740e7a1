"""Print the command that runs the newest HAProxy of Debian, for `haproxy -c` on another release than the installed one.

The packages of Debian's unstable release, with all libraries that they need, are unpacked in
``$XDG_CACHE_HOME/greenroom`` (``~/.cache/greenroom``). Nothing is installed. apt gets folders of its own, and checks
signatures with the keys of this machine. Standard library only. Exit codes: 0 the command is on stdout, 1 otherwise.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SUITE = "unstable"
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
SECONDS = 300
LOADERS = {"x86_64": "ld-linux-x86-64.so.2", "aarch64": "ld-linux-aarch64.so.1"}


class NotFound(Exception):
    """Error that names the reason why there is no newest HAProxy."""


def cached() -> Path:
    """Return the folder of the unpacked packages, whether it is there or not."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "greenroom" / f"haproxy-{SUITE}"


def fetch() -> Path:
    """Download and unpack the newest packages, and return their folder. Raises ``NotFound``."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise NotFound("apt-get or dpkg-deb is not on this machine")
    target = cached()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="haproxy-") as folder:
        state, root = Path(folder, "apt"), Path(folder, "root")
        options = _apt_options(state)
        _run("apt-get", *options, "update", "-qq")
        # With no package installed, apt downloads all that HAProxy needs, the C library included.
        _run("apt-get", *options, "install", "--download-only", "--no-install-recommends", "-y", "-qq", "haproxy")
        root.mkdir()
        for package in sorted((state / "cache" / "archives").glob("*.deb")):
            _run("dpkg-deb", "-x", str(package), str(root))
        shutil.rmtree(target, ignore_errors=True)
        os.replace(root, target)
    return target


def _mirror() -> str:
    """Return the address from which this machine installs its packages: not that of security fixes or updates alone."""
    listed = _run("apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME)")
    places = [line.split() for line in listed.splitlines()]
    whole = [place[0] for place in places if len(place) == 2 and "-" not in place[1]]
    if not whole:
        raise NotFound("apt knows no source of packages")
    return whole[0]


def _apt_options(state: Path) -> list[str]:
    """Make folders for apt, and return the options that have it use these, and this machine's keys and mirror."""
    for name in ("lists/partial", "cache/archives/partial", "etc"):
        (state / name).mkdir(parents=True)
    (state / "status").touch()
    (state / "etc" / "sources.list").write_text(f"deb [signed-by={KEYS}] {_mirror()} {SUITE} main\n")
    options = {
        "Dir::Etc::sourcelist": state / "etc" / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": state / "lists",
        "Dir::State::status": state / "status",
        "Dir::Cache": state / "cache",
        "APT::Sandbox::User": "root",
        "Debug::NoLocking": "true",
    }
    return [f"-o{name}={value}" for name, value in options.items()]


def _run(*command: str) -> str:
    """Return the output of a command. Raises ``NotFound`` if it fails."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=SECONDS
    )
    if done.returncode:
        raise NotFound(f"`{' '.join(command)}` failed with exit code {done.returncode}:\n{done.stdout[-2000:]}")
    return done.stdout


def command(root: Path) -> str:
    """Return the command that runs the unpacked HAProxy, with its own C library. Raises ``NotFound``."""
    name = LOADERS.get(platform.machine())
    loader = next(iter(sorted(root.rglob(name))), None) if name else None
    program = root / "usr" / "sbin" / "haproxy"
    if loader is None or not program.exists():
        raise NotFound(f"{root} has no HAProxy that runs on this machine")
    # Libraries are in folders for the architecture, and those of systemd below.
    folders = sorted({str(library.parent) for library in root.rglob("*.so*")})
    return f"{loader} --library-path {':'.join(folders)} {program}"


def main() -> int:
    try:
        print(command(fetch()))
    except (NotFound, OSError, subprocess.TimeoutExpired) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
