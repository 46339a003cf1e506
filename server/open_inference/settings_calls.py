"""`TraceSetting` and `LogSettings`: what is traced and logged, as far as a client may ask or change it."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from protos.inference import service_pb2 as pb
from server.errors import NotSupported, RequestInvalid

TRACE = {
    "trace_level": "OFF",
    "trace_rate": "1000",
    "trace_count": "-1",
    "log_frequency": "0",
    "trace_file": "",
    "trace_mode": "triton",
}
"""Triton's settings with tracing off, and it stays off: every answer of a camera's stream carries its stage times."""

LOGGER = "monocoque"
SWITCHES = {"log_info": logging.INFO, "log_warning": logging.WARNING, "log_error": logging.ERROR}
"""What each switch lets through; a level lets through everything above it, too."""
VERBOSE = "log_verbose_level"
FIXED = {"log_file": "", "log_format": "default"}


def trace(request: pb.TraceSettingRequest) -> pb.TraceSettingResponse:
    """Answer `TraceSetting`.

    Raises:
        RequestInvalid: There is no such setting.
        NotSupported: It would turn tracing on.
    """
    for name, setting in request.settings.items():
        if name not in TRACE:
            raise RequestInvalid(f"no trace setting '{name[:80]}'", remedy=f"there are {', '.join(TRACE)}")
        if list(setting.value) not in ([], [TRACE[name]]):
            raise NotSupported(
                f"'{name}' stays '{TRACE[name]}': nothing is traced",
                remedy="take the times from ModelStatistics, or from the ledger of StreamFrames' results",
            )
    value = pb.TraceSettingResponse.SettingValue
    return pb.TraceSettingResponse(settings={name: value(value=[text]) for name, text in TRACE.items()})


def log_settings(request: pb.LogSettingsRequest) -> pb.LogSettingsResponse:
    """Answer `LogSettings`, and change what is logged.

    Raises:
        RequestInvalid: There is no such setting, or its value is of another kind.
        NotSupported: The log goes elsewhere or looks different only after a restart.
    """
    _check_log(request.settings)
    logger = logging.getLogger(LOGGER)
    level = _wanted_level(request.settings, logger.getEffectiveLevel())
    if level is not None:
        logger.setLevel(level)
    return _log_answer(logger.getEffectiveLevel())


def _check_log(settings: Mapping[str, pb.LogSettingsRequest.SettingValue]) -> None:
    kinds = {
        **dict.fromkeys(SWITCHES, "bool_param"),
        VERBOSE: "uint32_param",
        **dict.fromkeys(FIXED, "string_param"),
    }
    for name, setting in settings.items():
        if name not in kinds:
            raise RequestInvalid(f"no log setting '{name[:80]}'", remedy=f"there are {', '.join(kinds)}")
        given = setting.WhichOneof("parameter_choice")
        if given != kinds[name]:
            raise RequestInvalid(f"'{name}' came as {given}", remedy=f"send a {kinds[name]}")
        if name in FIXED and setting.string_param != FIXED[name]:
            raise NotSupported(
                f"'{name}' cannot be changed while the server runs", remedy="redirect its standard error at the start"
            )


def _wanted_level(settings: Mapping[str, pb.LogSettingsRequest.SettingValue], level: int) -> int | None:
    """The level that makes the switches true; None where none was given."""
    given = {name: settings[name].bool_param for name in SWITCHES if name in settings}
    if VERBOSE in settings:
        level = logging.DEBUG if settings[VERBOSE].uint32_param else max(level, logging.INFO)
    elif not given:
        return None
    on = {name: given.get(name, level <= least) for name, least in SWITCHES.items()}
    if not all(on.values()):
        level = min((least for name, least in SWITCHES.items() if on[name]), default=logging.CRITICAL)
    elif level > logging.INFO:
        level = logging.INFO
    return level


def _log_answer(level: int) -> pb.LogSettingsResponse:
    answer = pb.LogSettingsResponse()
    for name, least in SWITCHES.items():
        answer.settings[name].bool_param = level <= least
    answer.settings[VERBOSE].uint32_param = int(level <= logging.DEBUG)
    for name, text in FIXED.items():
        answer.settings[name].string_param = text
    return answer
