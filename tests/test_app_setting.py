"""What a process tells of the app's settings is user code's: texts are cut and cleaned before anybody sees them."""

from __future__ import annotations

import pytest

from greenroom import AppLoadError
from greenroom.app_facts import AppSetting, packed, unpacked


def test_settings_come_back_as_they_were() -> None:
    settings = {
        "port": AppSetting(8081, "AgentServer(port=8081)"),
        "host": AppSetting("::1", "AgentServer(host='::1')"),
        "job_timeout": AppSetting(None, "AgentServer(...)"),
    }
    assert unpacked(packed(settings)) == settings


def test_texts_are_cut_and_cleaned() -> None:
    ((name, setting),) = unpacked(
        {"n\ud800" + "n" * 10_000: ["v\udfff" + "v" * 10_000, "\udc80" + "o" * 10_000]}
    ).items()
    assert isinstance(setting.value, str)
    for text, start in ((name, "n\\ud800n"), (setting.value, "v\\udfffv"), (setting.origin, "\\udc80o")):
        assert text.startswith(start)
        assert text.endswith("characters more)")
        assert len(text.encode()) < 400


def test_another_form_is_refused_in_few_words() -> None:
    with pytest.raises(AppLoadError, match="has an unknown form") as error:
        unpacked({"x" * 10_000: [[], "AgentServer()"]})
    assert len(str(error.value)) < 500
