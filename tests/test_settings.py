"""Settings: which layer holds, and what is said of a name or value that cannot be."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from greenroom import OptionError, PoolOptions
from greenroom.integrations.livekit.job_source.livekit_jobs import ANSWER_TIMEOUT
from greenroom.settings import DEFAULTS, LiveKitOptions, Settings
from greenroom.settings.environment import from_environment
from greenroom.settings.fields import Setting, all_settings, groups
from greenroom.settings.file import from_file, lines_of_keys
from greenroom.settings.layers import Resolved, from_flags, resolve
from greenroom.settings.values import as_text, as_toml, convert, redacted

NAMES = sorted(all_settings())
COMMANDS = sorted(DEFAULTS)
LAYERS = ("file", "environment", "flag")

# What makes sense, where it is less than what the type can hold.
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "host": st.sampled_from(["127.0.0.1", "127.0.0.9", "::1", "localhost"]),
    "num_idle_processes": st.integers(0, 50),
    "max_idle_processes": st.none() | st.integers(50, 1000),
    "livekit_offer_timeout": st.floats(0, 2.3),
    "livekit_max_restarts": st.integers(0, 999),
    "livekit_loss_timeout": st.floats(1, 10**5),
    "tls_key": st.none(),  # these two need a certificate
    "tls_client_ca": st.none(),
    "view_token": st.none(),  # these two need a token
    "sessions_may": st.just("none"),
    "allowed_hosts": st.lists(st.sampled_from(["calls.example", "here"]), min_size=1).map(tuple),
    "trusted_proxies": st.lists(st.sampled_from(["10.0.0.5", "10.1.0.0/16", "fd00::/8"]), min_size=1).map(tuple),
}


def values_of(setting: Setting) -> st.SearchStrategy[Any]:
    if setting.name in VALUES:
        return VALUES[setting.name]
    by_kind: dict[Any, st.SearchStrategy[Any]] = {
        int: st.integers(1, 60_000),
        float: st.floats(0.001, 10**8),
        bool: st.booleans(),
        str: st.text("abcdefghijklmnopqrstuvwxyz-", min_size=16),
    }
    if setting.choices:
        values: st.SearchStrategy[Any] = st.sampled_from(setting.choices)
    elif setting.is_list:
        values = st.lists(by_kind[str], min_size=1).map(setting.kind.__origin__)
    else:
        values = by_kind[setting.kind]
    return values | st.none() if setting.none else values


def plain(setting: Setting, value: Any) -> str:
    """As text, secrets too."""
    return as_text(dataclasses.replace(setting, is_secret=False), value)


def write(path: Path, values: Mapping[str, Any]) -> Path:
    tables = [
        "\n".join([f"[{group}]", *(f"{n} = {as_toml(s, values[n])}" for n, s in of_group(group) if n in values)])
        for group in groups()
    ]
    path.write_text("\n".join(tables))
    return path


def of_group(group: str) -> list[tuple[str, Setting]]:
    return [(name, setting) for name, setting in all_settings().items() if setting.group == group]


def resolved(command: str, folder: Path, layers: Mapping[str, Mapping[str, Any]]) -> Resolved:
    """Through a real file, and text as the environment and the command line hold it."""
    flags = {name: plain(all_settings()[name], value) for name, value in layers.get("flag", {}).items()}
    environ = {
        all_settings()[name].variable: plain(all_settings()[name], value)
        for name, value in layers.get("environment", {}).items()
        if plain(all_settings()[name], value)  # an empty variable sets nothing
    }
    file = write(folder / "settings.toml", layers["file"]) if "file" in layers else None
    return resolve(command, flags=flags, environ=environ, file=file)


def makes_sense(command: str, setting: Setting, value: Any) -> bool:
    try:
        dataclasses.replace(getattr(DEFAULTS[command], setting.group), **{setting.name: value})
    except OptionError:
        return False
    return True


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("settings")


@pytest.mark.parametrize("name", NAMES)
@hypothesis.settings(max_examples=30)
@given(data=st.data())
def test_the_last_layer_that_speaks_holds_for_every_setting(name: str, folder: Path, data: st.DataObject) -> None:
    setting = all_settings()[name]
    command = data.draw(st.sampled_from(COMMANDS))
    values = {layer: data.draw(values_of(setting)) for layer in LAYERS if data.draw(st.booleans())}
    assume(all(makes_sense(command, setting, value) for value in values.values()))
    found = resolved(command, folder, {layer: {name: value} for layer, value in values.items()})
    layer, value = list(values.items())[-1] if values else ("default", setting.default(command))
    assert setting.of(found.settings) == value
    assert found.origins[name].kind == layer


@given(data=st.data(), command=st.sampled_from(COMMANDS))
def test_layers_are_laid_over_each_other_setting_by_setting(folder: Path, data: st.DataObject, command: str) -> None:
    some = st.fixed_dictionaries({}, optional={name: values_of(all_settings()[name]) for name in NAMES})
    layers = {layer: data.draw(some, layer) for layer in LAYERS}
    for values in layers.values():
        assume(all(makes_sense(command, all_settings()[name], value) for name, value in values.items()))
    expected = {name: (all_settings()[name].default(command), "default") for name in NAMES}
    for layer, values in layers.items():
        expected |= {name: (value, layer) for name, value in values.items()}
    assume(expected["token"][0] in (None, "auto") or expected["token_file"][0] is None)  # they exclude each other
    found = resolved(command, folder, layers)
    assert {n: (all_settings()[n].of(found.settings), found.origins[n].kind) for n in NAMES} == expected


def test_dev_and_start_differ_where_the_documentation_says_so() -> None:
    differing = {name for name, one in all_settings().items() if one.default("dev") != one.default("start")}
    assert {"num_idle_processes", "drain_timeout"} <= differing
    assert DEFAULTS["start"] == Settings()


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_is_documented_and_of_a_type_that_can_be_read(name: str) -> None:
    setting = all_settings()[name]
    assert setting.doc.endswith((".", ")"))
    for command in COMMANDS:
        value = setting.default(command)
        assert convert(setting, plain(setting, value), is_text=True, subject=name) == value


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_name_is_told_with_its_origin_and_the_right_one(name: str, folder: Path) -> None:
    setting, wrong = all_settings()[name], name + name[-1]
    file = folder / "wrong.toml"
    file.write_text(f"# a comment\n[{setting.group}]\n{wrong} = 1\n")
    with pytest.raises(OptionError, match=rf"wrong.toml, line 3: .*{wrong}; did you mean {name} under") as told:
        from_file(file)
    assert f"[{setting.group}]" in str(told.value)
    with pytest.raises(OptionError, match=f"{wrong.upper()} is not a setting. Did you mean {setting.variable}"):
        from_environment({f"GREENROOM_{wrong.upper()}": "1"})


@pytest.mark.parametrize("name", [name for name in NAMES if all_settings()[name].kind is not str])
def test_a_value_of_the_wrong_type_is_told_with_its_origin(name: str, folder: Path) -> None:
    setting = all_settings()[name]
    file = folder / "wrong.toml"
    file.write_text(f"[{setting.group}]\n\n{name} = {{}}\n")
    with pytest.raises(OptionError, match=f"wrong.toml, line 3: {name} is "):
        from_file(file)
    if not setting.is_list:
        with pytest.raises(OptionError, match=f"{setting.variable} is "):
            from_environment({setting.variable: "so-so"})
        with pytest.raises(OptionError, match=f"{setting.flag} is "):
            resolve("start", flags={name: "so-so"}, environ={})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("port = 1", "line 1: port belongs under [server]"),
        ("[pool]\nport = 1", "line 2: port belongs under [server]"),
        ("[pol]\nmax_jobs = 1", "line 1: there is no setting pol; did you mean [pool]?"),
        ("max_job = 1", "line 1: there is no setting max_job; did you mean max_jobs under [pool]?"),
        ("pool = 1", "line 1: pool is a group of settings; write it as a table [pool]"),
        ("[qqqq]", "line 1: there is no setting qqqq; the groups are pool, "),
        ("[pool]\nmax_jobs = true", "line 2: max_jobs is True, which is not a whole number"),
        ("[pool]\nmax_jobs = '3'", "line 2: max_jobs is '3', which is not a whole number"),
        ("[server]\nhost = 1", "line 2: host is 1, which is not a text"),
        ("[pool]\nstart_method = 'thread'", "line 2: start_method is 'thread', which is none of: zygote, spawn"),
        ("[pool]\nmax_jobs =\n", "not TOML: Invalid value (at line 2, column 11)"),
        ("pool.max_jobs = 0", "line 1: max_jobs is 0; it must be a whole number of at least 1"),
        ("[pool]\nidle_ttl = nan", "line 2: idle_ttl is nan"),
    ],
)
def test_a_file_that_cannot_be(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "greenroom.toml"
    file.write_text(text)
    with pytest.raises(OptionError) as told:
        resolve("start", flags={}, environ={}, file=file)
    assert says in str(told.value)
    assert str(told.value).startswith(str(file))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="cannot be read: No such file"):
        from_file(tmp_path / "missing.toml")
    with pytest.raises(OptionError, match="cannot be read: Is a directory"):
        from_file(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9\n")
    with pytest.raises(OptionError, match=r"is not UTF-8: .* at byte 5"):
        from_file(tmp_path / "latin.toml")


def test_settings_that_contradict_each_other_are_told_with_both_origins(tmp_path: Path) -> None:
    file = tmp_path / "greenroom.toml"
    file.write_text("[pool]\nmax_idle_processes = 2\n")
    with pytest.raises(OptionError) as told:
        resolve("start", flags={}, environ={"GREENROOM_NUM_IDLE_PROCESSES": "7"}, file=file)
    assert str(told.value).startswith(f"{file}, line 2; GREENROOM_NUM_IDLE_PROCESSES: max_idle_processes is 2")


def test_an_offer_timeout_leaves_time_for_the_answer() -> None:
    with pytest.raises(OptionError, match=r"^--livekit-offer-timeout: .* is 2\.5; .* from 0 to 2\.3"):
        resolve("start", flags={"livekit_offer_timeout": "2.5"}, environ={})
    assert LiveKitOptions(livekit_offer_timeout=2.3).livekit_offer_timeout < ANSWER_TIMEOUT


def test_a_wrong_value_is_refused_though_a_later_layer_replaces_it() -> None:
    with pytest.raises(OptionError, match="GREENROOM_PORT is 'http'"):
        resolve("start", flags={"port": "80"}, environ={"GREENROOM_PORT": "http"})


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("GREENROOM_PORT", "tcp://10.0.0.7:8700"),
        ("GREENROOM_VOICE_PORT", "udp://10.0.0.7:8700"),
        ("GREENROOM_SERVICE_HOST", "10.0.0.7"),
        ("GREENROOM_SERVICE_PORT", "8700"),
        ("GREENROOM_SERVICE_PORT_HTTP", "8700"),
        ("GREENROOM_VOICE_SERVICE_HOST", "10.0.0.7"),
        ("GREENROOM_PORT_8700_TCP", "tcp://10.0.0.7:8700"),
        ("GREENROOM_PORT_8700_TCP_PROTO", "tcp"),
        ("GREENROOM_VOICE_PORT_8700_TCP_ADDR", "10.0.0.7"),
        ("GREENROOM_POOL", "abc"),
        ("GREENROOM_PROCESS", "1-1"),
        ("GREENROOM_CONFIG", "greenroom.toml"),
        ("GREENROOM_APP_NAME", "receptionist"),
        ("GREENROOM_MAX_JOBS", ""),
        ("_GREENROOM_COMPLETE", "complete_bash"),
        ("PORT", "80"),
    ],
)
def test_variables_that_set_nothing(variable: str, text: str) -> None:
    assert from_environment({variable: text}) == {}


def test_a_word_switches_off() -> None:
    for word in ("off", "none"):
        assert from_environment({"GREENROOM_STALL_TIMEOUT": word})["stall_timeout"].value is None
    found = resolve("start", flags={"max_idle_processes": "auto"}, environ={"GREENROOM_MAX_IDLE_PROCESSES": "9"})
    assert found.settings.pool == PoolOptions()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("end", ["\n", "\r\n", " ", "\t"])
def test_blanks_around_a_value_do_not_count(name: str, end: str) -> None:
    """As a here-document or a Kubernetes secret has them."""
    setting = all_settings()[name]
    given = {"host": "localhost"}.get(name, "a-text-of-one-word")
    by_kind = {int: "300", float: "2.0", bool: "true", str: given}
    text = setting.choices[-1] if setting.choices else by_kind.get(setting.kind, "a,b")
    value = convert(setting, text, is_text=True, subject="")
    for around in (text + end, end + text, f"{end}{text}{end}"):
        assert from_environment({setting.variable: around})[name].value == value
        assert from_flags({name: around})[name].value == value
        if setting.kind is str or setting.choices:
            assert convert(setting, around, is_text=False, subject="") == value
        if setting.none:
            assert convert(setting, f"{setting.none}{end}", is_text=True, subject="") is None


@pytest.mark.parametrize("name", [name for name in NAMES if all_settings()[name].kind is str])
@pytest.mark.parametrize("mark", ["\n", "\r", "\t", "\0", "\x1b", "\x7f", "\x85", "\u2028"])
def test_no_text_holds_a_control_character(name: str, mark: str) -> None:
    text = f"a-text-that-is{mark}broken-here"
    with pytest.raises(OptionError, match="control character") as told:
        from_environment({all_settings()[name].variable: text})
    assert str(told.value).isprintable()
    assert not all_settings()[name].is_secret or "broken-here" not in str(told.value)


NEVER_EMPTY = ("token", "token_file", "view_token", "tls_cert", "tls_key", "tls_client_ca")


def test_only_a_token_and_the_files_of_tls_must_not_be_empty() -> None:
    for text in ("", " ", "\n"):
        for name in NAMES:
            found = from_environment({all_settings()[name].variable: text})
            assert (name in found) == (name in NEVER_EMPTY)
        for name in NEVER_EMPTY:
            with pytest.raises(OptionError, match=f"{name} is empty"):
                resolve("start", flags={name: text}, environ={})
            with pytest.raises(OptionError, match=f"{name} is empty"):
                resolve("start", flags={}, environ={f"GREENROOM_{name.upper()}": text})


def test_a_token_and_its_file_exclude_each_other_wherever_they_are_set(tmp_path: Path) -> None:
    file = tmp_path / "greenroom.toml"
    file.write_text("[server]\ntoken = 'a-token-of-this-length'")
    environ = {"GREENROOM_TOKEN_FILE": "token"}
    with pytest.raises(OptionError, match=r"line 2; GREENROOM_TOKEN_FILE: token and token_file are both set"):
        resolve("start", flags={}, environ=environ, file=file)
    resolve("start", flags={"token": "off"}, environ=environ, file=file)


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(OptionError, match=r"GREENROOM_HOST is .*, which is not a text"):
        from_environment({"GREENROOM_HOST": os.fsdecode(b"caf\xe9")})


def test_lists_and_switches() -> None:
    names = Setting("g", "names", tuple[str, ...], None, False, "")
    assert convert(names, "a, b,", is_text=True, subject="") == ("a", "b")
    assert convert(names, ["a", "b"], is_text=False, subject="") == ("a", "b")
    assert (as_text(names, ("a", "b")), as_toml(names, ("a", "b"))) == ("a,b", '["a", "b"]')
    switch = Setting("g", "switch", bool, None, False, "")
    assert [convert(switch, text, is_text=True, subject="") for text in ("true", "0")] == [True, False]
    assert (as_text(switch, True), as_toml(switch, False)) == ("true", "false")


def test_a_secret_is_in_no_message() -> None:
    secret = Setting("g", "pin", int, "off", True, "")
    with pytest.raises(OptionError) as told:
        convert(secret, "hunter2", is_text=True, subject="GREENROOM_PIN")
    assert str(told.value) == "GREENROOM_PIN is ***, which is not a whole number or off"
    assert as_text(secret, 1234) == "***"
    assert as_text(secret, None) == "off"
    message = "pin is 'hunter2', and host is 'hunter2hunter2'"
    assert redacted(message, {"pin": "hunter2"}, {"pin": secret}) == "pin is ***, and host is 'hunter2hunter2'"


def test_lines_of_keys() -> None:
    text = """\
# a comment
top = 1

[a]
one = [
  1,
  2, # [b]
]
"two" = '''
[c]
three = 1
'''
x.y = 3
inline = { four = 4 }
  [ a . "b c" ]
five = 5
[[d]]
six = 6"""
    assert lines_of_keys(text) == {
        ("top",): 2,
        ("a",): 4,
        ("a", "one"): 5,
        ("a", "two"): 9,
        ("a", "x"): 13,
        ("a", "x", "y"): 13,
        ("a", "inline"): 14,
        ("a", "inline", "four"): 14,
        ("a", "b c"): 15,
        ("a", "b c", "five"): 16,
        ("d",): 17,
        ("d", "six"): 18,
    }
