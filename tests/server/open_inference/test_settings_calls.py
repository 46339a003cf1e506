from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from protos.inference.service_pb2 import LogSettingsRequest, TraceSettingRequest
from server.errors import NotSupported, RequestInvalid
from server.open_inference.settings_calls import LOGGER, log_settings, trace


@pytest.fixture(autouse=True)
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger(LOGGER)
    before = logger.level
    logger.setLevel(logging.INFO)
    yield logger
    logger.setLevel(before)


def change(**settings: Any) -> dict[str, Any]:
    """Change settings; returns all of them."""
    kinds = {bool: "bool_param", int: "uint32_param", str: "string_param"}
    answer = log_settings(
        LogSettingsRequest(settings={name: {kinds[type(value)]: value} for name, value in settings.items()})
    )
    return {name: getattr(value, value.WhichOneof("parameter_choice")) for name, value in answer.settings.items()}


def test_switches_and_levels_say_the_same(logger: logging.Logger) -> None:
    assert change() == {
        "log_info": True,
        "log_warning": True,
        "log_error": True,
        "log_verbose_level": 0,
        "log_file": "",
        "log_format": "default",
    }
    assert change(log_info=False)["log_warning"] is True
    assert logger.level == logging.WARNING
    assert change(log_warning=False)["log_error"] is True
    assert logger.level == logging.ERROR
    assert change(log_error=False)["log_error"] is False
    assert logger.level == logging.CRITICAL
    assert change(log_info=True)["log_error"] is True
    assert logger.level == logging.INFO
    assert change(log_verbose_level=3)["log_verbose_level"] == 1
    assert logger.level == logging.DEBUG
    assert change(log_verbose_level=0, log_file="")["log_verbose_level"] == 0
    assert logger.level == logging.INFO


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"log_info": "yes"}, RequestInvalid),
        ({"colour": "red"}, RequestInvalid),
        ({"log_file": "/tmp/x"}, NotSupported),
        ({"log_format": "ISO8601"}, NotSupported),
    ],
)
def test_what_cannot_be_changed_is_refused_and_nothing_is(
    logger: logging.Logger, settings: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        change(log_warning=False, **settings)
    assert logger.level == logging.INFO


def test_tracing_stays_off() -> None:
    value = TraceSettingRequest.SettingValue
    assert list(trace(TraceSettingRequest()).settings["trace_level"].value) == ["OFF"]
    assert trace(TraceSettingRequest(settings={"trace_rate": value()})).settings["trace_rate"].value == ["1000"]
    with pytest.raises(NotSupported, match="'trace_level' stays 'OFF'"):
        trace(TraceSettingRequest(settings={"trace_level": value(value=["TIMESTAMPS"])}))
