"""Write docs/settings.md from the types of the settings; with --check, only report whether it is up to date."""

import sys
from pathlib import Path

from greenroom.settings import DEFAULTS
from greenroom.settings.fields import Setting, all_settings, groups
from greenroom.settings.values import as_text, described

PAGE = Path(__file__).resolve().parent.parent / "docs" / "settings.md"

INTRODUCTION = """\
<!-- Written by scripts/settings_doc.py: change the script, or the types in src/greenroom. -->
# Settings

Each setting has one name. Its value comes from one of five places, and the last place in this list that has a value
wins:

1. the **default**, which for some settings differs between `greenroom start` and `greenroom dev`;
2. the **app**: a LiveKit agent sets some by [the options of its server](livekit.md#options-of-the-server);
3. a **file**: `--config` or `GREENROOM_CONFIG` names it. Otherwise it is `greenroom.toml` in the current folder, if
   there is one. `pyproject.toml` is not read;
4. an **environment variable**: `GREENROOM_` and the name in capitals;
5. a **flag**: the name with hyphens.

```toml
# greenroom.toml
[pool]
num_idle_processes = 8
max_jobs = 64
job_timeout = "off"

[server]
drain_timeout = 300
```

`greenroom config` shows the settings that hold, and the origin of each: the file and line, the variable, the flag or
the default. `greenroom config agent.py` loads the app. It also shows the settings of the app, and the options of the
app that have no effect. `--for dev` shows the settings of `dev`. `--json` prints them for programs, and `--toml` as a
file for `--config`.

A wrong name or value is an error, also if a later place has another value. The error names the origin and the nearest
right name. Nothing starts, and the exit code is 2.

Times are seconds, memory is MiB. `off` (also `none`) switches a limit off; in a file it is a text like any other. A
list is an array in a file, and has commas between its items elsewhere. Blanks and line ends around a value do not
count; a control character within a text is an error.

An empty environment variable counts as not set. Only an empty variable of a token, its file or a file of TLS is an
error, because a protection would be off. Secrets are never shown. Give them by environment or file: everybody on a
machine can read its command lines.

## Environment variables that are not settings

An unknown variable that begins with `GREENROOM_` is an error, because it is most often a setting with a typing error.
These are left alone:

- `GREENROOM_APP_...`, for what an app wants to call its own;
- `GREENROOM_CONFIG`, which names the settings file, and `GREENROOM_URL`, by which commands find a worker;
- `GREENROOM_POOL`, `GREENROOM_OWNER` and `GREENROOM_PROCESS`, by which Greenroom marks the processes that it starts;
- `GREENROOM_COMMAND`, which a worker sets for its processes: `start` or `dev`. It also sets `GREENROOM_LOG_LEVEL` for
  them if you chose the level by a flag or in a file, so a worker that is started within a job inherits that level;
- `GREENROOM_BENCH_...`, which the benchmarks use;
- what Kubernetes sets for a Service whose name is `greenroom` or begins with `greenroom-`: names that end in
  `_SERVICE_HOST`, `_SERVICE_PORT` or `_PORT_8700_TCP` and their like, and any `..._PORT` with a value such as
  `tcp://10.0.0.7:8700`. **`GREENROOM_PORT` with such a value is not taken for the port to listen on.** With
  `enableServiceLinks: false` in the pod, none of them are there.
"""


def page() -> str:
    sections = [INTRODUCTION, *(_section(group) for group in groups())]
    return "\n".join(sections)


def _section(group: str) -> str:
    about = (groups()[group].__doc__ or "").partition(".")[0] + "."
    rows = [_row(setting) for setting in all_settings().values() if setting.group == group]
    head = "| setting | values | default | environment, flag | meaning |\n| --- | --- | --- | --- | --- |"
    return f"## `[{group}]`\n\n{about}\n\n{head}\n" + "\n".join(rows) + "\n"


def _row(setting: Setting) -> str:
    defaults = {command: as_text(setting, setting.default(command)) or "empty" for command in DEFAULTS}
    start, dev = defaults["start"], defaults["dev"]
    default = f"`{start}`" if start == dev else f"`{start}`; `dev`: `{dev}`"
    doc = setting.doc.replace("``", "`") + (" **Secret.**" if setting.is_secret else "")
    cells = (f"`{setting.name}`", described(setting), default, f"`{setting.variable}` `{setting.flag}`", doc)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def main() -> int:
    text = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text)
        return 0
    if PAGE.exists() and PAGE.read_text() == text:
        return 0
    print("docs/settings.md differs from the types. Run: python scripts/settings_doc.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
