"""The server's configuration: one schema for flags, environment and a YAML file, with the defaults."""

from __future__ import annotations

import argparse
import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml  # type: ignore[import-untyped] # its stubs would be one more package for one call
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    CliPositionalArg,
    CliSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from engine.manifest import Target
from server.errors import StartFailed
from server.host.tuning import parse_cpus

ENVIRONMENT_PREFIX = "MONOCOQUE_"
OTHERS_VARIABLES = ("MONOCOQUE_BIND", "MONOCOQUE_EXTRAS", "MONOCOQUE_IMAGE_TEST", "MONOCOQUE_MEMORY_LIMIT")
"""Those of docker-compose.yml and of the tests, which a shell may have exported."""

EXAMPLES = """\
examples:
  python -m server out/bundle                          serve a bundle on 127.0.0.1:8001, metrics on 127.0.0.1:8002
  python -m server out/bundle --threads 1              leave the other cores to the cameras
  python -m server out/bundle --target rtx --fallback  NVIDIA GPU; without one, the CPU, and every result says so
  python -m server out/bundle --max-frame 3840x2160    accept frames up to 4K
  python -m server --config server.yaml                the same names in a file:  bundle: out/bundle
  MONOCOQUE_PORT=9001 python -m server out/bundle      the same names in the environment
  curl http://127.0.0.1:8002/metrics                   what Prometheus reads

A flag beats the environment, the environment beats the file, the file beats the default.
SIGTERM ends the server once what it accepted is answered; SIGHUP swaps the engines whose bundles were replaced.
Exit code: 0 after SIGTERM, 1 after a second one, 2 where the server cannot start.
"""


METAVARS = {
    "--config": "FILE",
    "--host": "ADDRESS",
    "--port": "PORT",
    "--metrics-port": "PORT",
    "--threads": "N",
    "--max-frame": "WIDTHxHEIGHT",
    "--max-batch": "N",
    "--max-streams": "N",
    "--max-cameras": "N",
    "--max-watchers": "N",
    "--memory-budget": "BYTES",
    "--drain-seconds": "SECONDS",
    "--shared-memory-socket": "PATH",
    "--plan-cache": "DIR",
    "--repository": "DIR",
    "--instances": "N",
    "--cpus": "LIST",
    "--realtime-priority": "N",
    "--wake-latency-us": "N",
    "--record-scheduler": "DIR",
}


def _parse_bytes(text: object) -> object:
    """`512M` or `2G` in bytes (powers of 1024); a number is left as it is."""
    if not isinstance(text, str):
        return text
    match = re.fullmatch(r"\s*(\d+)\s*([KMG]?)(i?B)?\s*", text, re.IGNORECASE)
    if match is None:
        raise ValueError(f"{text!r} is no amount of memory; write for example 512M or 2G")
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2].upper()]


SIZE = re.compile(r"([1-9]\d{0,4})[xX]([1-9]\d{0,4})")
LARGEST_SIDE = 16_384
"""Pixels. A frame of twice that would not fit the 2 GiB of a gRPC message."""
YAML_NOTHING = ("", "~", "null")
"""How a file says that a setting is not given."""
MOST_THREADS = 1024
LONGEST_WAKE_LATENCY_US = 1_000_000
MOST_INSTANCES = 256
MOST_AT_ONCE = 100_000
"""Streams, cameras and watchers: far beyond any host, and what gRPC is told still fits 32 bits."""


def _check_size(text: str) -> str:
    match = SIZE.fullmatch(text)
    if match is None:
        raise ValueError("write WIDTHxHEIGHT, for example 1920x1080")
    if max(int(match[1]), int(match[2])) > LARGEST_SIDE:
        raise ValueError(f"a side has at most {LARGEST_SIDE} pixels")
    return text


def _one_or_more(value: object) -> object:
    """One path is a list of one; several in one text are separated as in PATH."""
    if isinstance(value, str):
        return value.split(os.pathsep) if value else ()
    return [value] if isinstance(value, Path) else value


Paths = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_one_or_more)]


def _check_cpus(text: str) -> str:
    parse_cpus(text)
    return text


Cpus = Annotated[str, AfterValidator(_check_cpus)]
Size = Annotated[str, AfterValidator(_check_size)]
Bytes = Annotated[int, Field(ge=1), BeforeValidator(_parse_bytes)]
Port = Annotated[int, Field(ge=0, le=65_535)]


class Settings(BaseSettings):
    """Serves camera frames through an engine bundle over gRPC."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        frozen=True,
        extra="forbid",
        cli_prog_name="python -m server",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
    )

    bundle: CliPositionalArg[Paths] = Field(default=(), description="engine bundles: directories or .zip files")
    repository: Path | None = Field(
        default=None, description="directory of bundles: all are served, by name and version"
    )
    config: Path | None = Field(default=None, description="YAML file with any of these names")
    host: str = Field(default="127.0.0.1", min_length=1, description="address to listen on, for frames and for metrics")
    port: Port = Field(default=8001, description="port for frames (gRPC); 0 takes a free one")
    metrics_port: Port = Field(default=8002, description="port for Prometheus (HTTP); 0 takes a free one")
    target: Target = Field(default="cpu", description="device class that runs the engine")
    fallback: bool = Field(default=False, description="run on the CPU where the target cannot be had, and say so")
    self_check: bool = Field(default=True, description="compare the engine with the bundle's reference at start")
    threads: int | None = Field(
        default=None, ge=1, le=MOST_THREADS, description="threads of one inference; else one per core"
    )
    instances: int = Field(
        default=1, ge=1, le=MOST_INSTANCES, description="engines of each bundle, each with its own thread and memory"
    )
    overlap: Literal["auto", "on", "off"] = Field(
        default="auto", description="prepare a batch while another is computed; auto where there is a second core"
    )
    engine_process: bool = Field(
        default=False, description="run the engine in a process of its own; one that dies is opened again"
    )
    cpus: Cpus | None = Field(default=None, description="cores to run on, for example 0,2-3; else all")
    realtime_priority: int | None = Field(
        default=None, ge=1, le=99, description="run the engine's thread in SCHED_FIFO, 1 to 99; else like any other"
    )
    lock_memory: bool = Field(default=False, description="keep all memory resident (mlockall)")
    wake_latency_us: int | None = Field(
        default=None,
        ge=0,
        le=LONGEST_WAKE_LATENCY_US,
        description="while streams are open, idle cores sleep no deeper than wakes in this time; 0: they poll",
    )
    spin: bool = Field(default=False, description="let the engine's idle threads spin: faster, and a busy core each")
    record_scheduler: Path | None = Field(
        default=None, description="write the scheduler's events there, NAME-VERSION.jsonl for each engine"
    )
    plan_cache: Path | None = Field(
        default=None, description="plans that a GPU compiles for itself; else the user's cache directory"
    )
    max_frame: Size = Field(default="1920x1080", description="largest frame accepted; the gRPC message limit follows")
    max_batch: int = Field(default=1, ge=1, description="frames per launch, at most; more than 1 pays on GPUs only")
    max_streams: int = Field(default=16, ge=1, le=MOST_AT_ONCE, description="frame streams at the same time")
    max_cameras: int = Field(
        default=32, ge=1, le=MOST_AT_ONCE, description="cameras at the same time, and camera names in the metrics"
    )
    max_watchers: int = Field(default=16, ge=0, le=MOST_AT_ONCE, description="subscribers to results at the same time")
    memory_budget: Bytes = Field(
        default="1G", validate_default=True, description="bytes for frames that wait, over all streams (512M, 2G)"
    )
    shared_memory_socket: str | None = Field(
        default=None, description="Unix socket that hands shared memory to clients: PATH, @name, off; else chosen"
    )
    drain_seconds: float = Field(default=10.0, ge=0, description="time to answer what was accepted, after SIGTERM")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="what is logged")

    @model_validator(mode="after")
    def _serves_something(self) -> Settings:
        if not self.bundle and self.repository is None:
            raise PydanticCustomError("missing", "not given, and no --repository")
        return self

    @property
    def frame_size(self) -> tuple[int, int]:
        """Columns and rows of the largest frame."""
        width, _, height = self.max_frame.lower().partition("x")
        return int(width), int(height)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment beats the file; flags are put in front of both."""
        return init_settings, env_settings, _YamlAsText(settings_cls)


class _YamlAsText(YamlConfigSettingsSource):
    """A YAML file that says what the flags would: keys as they are written, and values.

    With types of its own, YAML would make a truth of `overlap: off` and a number of `cpus: 0`.
    """

    def _read_file(self, file_path: Any) -> dict[str, Any]:  # noqa: ANN401 - the base class has a type of its own
        with file_path.open(encoding="utf-8") as file:
            loader = yaml.BaseLoader(file)
            node = loader.get_single_node()
        if node is None:
            return {}
        if not isinstance(node, yaml.MappingNode):
            raise TypeError("it is not made of lines like `port: 8001`")
        found: dict[str, Any] = {}
        for key, value in node.value:
            name = str(key.value).replace("-", "_")
            if name in found:
                raise ValueError(f"it says {name.replace('_', '-')} twice")
            found[name] = loader.construct_object(value, deep=True)
        return {name: value for name, value in found.items() if value not in YAML_NOTHING}


def load_settings(arguments: Sequence[str]) -> Settings:
    """Read the configuration.

    Args:
        arguments: Command-line arguments, without the program's name.

    Raises:
        StartFailed: A value is not valid, or the file cannot be read; every fault is named.
        SystemExit: `--help` was asked for, or a flag is not known (argparse has then said so).
    """
    parser = argparse.ArgumentParser(
        prog="python -m server",
        usage="python -m server BUNDLE [--flag value]...",
        description=Settings.__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    flags: CliSettingsSource[Any] = CliSettingsSource(
        Settings, root_parser=parser, cli_parse_args=list(arguments), add_argument_method=_add_argument
    )
    path = flags().get("config") or os.environ.get(f"{ENVIRONMENT_PREFIX}CONFIG")
    if path is not None and not Path(path).is_file():
        raise StartFailed(f"no configuration file at {path}", remedy="check --config, or MONOCOQUE_CONFIG")

    class FromFile(Settings):
        model_config = SettingsConfigDict(yaml_file=path)

    remedy = "see python -m server --help"
    try:
        return FromFile(_cli_settings_source=flags)  # type: ignore[call-arg]
    except ValidationError as error:
        raise StartFailed(_explain(error), remedy=remedy) from None
    except Exception as error:  # whatever the YAML parser makes of a file that is no mapping
        raise StartFailed(f"{path} cannot be read as settings: {error}", remedy=remedy) from None


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """What is wrong with each variable that looks like a setting and is none, so that a misspelt one is noticed.

    Args:
        environment: Variables of the process.
    """
    known = [f"{ENVIRONMENT_PREFIX}{name.upper()}" for name in Settings.model_fields]
    complaints = []
    for name in sorted(environment):
        if name.startswith(ENVIRONMENT_PREFIX) and name not in (*known, *OTHERS_VARIABLES):
            close = difflib.get_close_matches(name, known, n=1)
            complaints.append(f"{name} is no setting" + (f"; is {close[0]} meant?" if close else ""))
    return complaints


class _JoinPaths(argparse.Action):
    """Several bundles as one text, separated as in PATH: the environment variable's form."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        if isinstance(values, list) and values:
            setattr(namespace, self.dest, os.pathsep.join(values))


def _add_argument(group: Any, *names: str, **options: Any) -> argparse.Action:  # noqa: ANN401 - argparse's own
    """What the schema cannot say: the bundle may come from elsewhere, and a size is no `str`."""
    if "metavar" in options or "choices" not in options:
        options["metavar"] = METAVARS.get(names[-1], options.get("metavar"))
    if isinstance(options.get("action"), type):
        options.pop("metavar", None)  # a switch has no value
    if names == ("bundle",):
        options |= {"nargs": "*", "action": _JoinPaths, "metavar": "BUNDLE"}
        options["help"] = options["help"].replace(" (default: ())", "")
    action: argparse.Action = group.add_argument(*names, **options)
    return action


def _explain(error: ValidationError) -> str:
    faults = []
    for fault in error.errors():
        name = str(fault["loc"][0]).replace("_", "-") if fault["loc"] else "bundle"
        if fault["type"] == "missing":
            faults.append(f"{name}: {'not given' if fault['loc'] else fault['msg']}")
        elif fault["type"] == "extra_forbidden":
            faults.append(f"{name}: no such setting")
        else:
            source = f"{ENVIRONMENT_PREFIX}{name.upper().replace('-', '_')}"
            said = f"{name}: {fault['msg'].removeprefix('Value error, ')}, not {fault['input']!r}"
            faults.append(f"{said} ({source})" if os.environ.get(source) == fault["input"] else said)
    return "; ".join(faults)
