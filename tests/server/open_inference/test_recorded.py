"""Our answers beside Triton's own, field by field (`record_triton.py` recorded them)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.open_inference.conftest import serving
from tests.server.open_inference.exchanges import EXCHANGES, play, shared_memory

RECORDED: dict[str, Any] = json.loads(Path(__file__).with_name("triton.json").read_text())

NO_NUMBER = "our versions are texts such as 1.2.0, so none is malformed, only unknown"
INTERNAL_IS_OURS = "INTERNAL means a fault of the server; what the request got wrong is INVALID_ARGUMENT"
UNKNOWN_IS_NOT_FOUND = "an unknown model is NOT_FOUND, whichever call names it"
NO_SUCH_SETTING = "a setting that does not exist is refused, not passed over"
DIFFERENCES = {
    "metadata, version that is no number": ("NOT_FOUND", NO_NUMBER),
    "version that is no number": ("NOT_FOUND", NO_NUMBER),
    "batch of none": ("OK", "no entries in, no entries out"),
    "too many raw contents": ("INVALID_ARGUMENT", "bytes that belong to no input are refused, not passed over"),
    "statistics, unknown": ("NOT_FOUND", UNKNOWN_IS_NOT_FOUND),
    "statistics, unknown version": ("NOT_FOUND", UNKNOWN_IS_NOT_FOUND),
    "trace, unknown model": ("NOT_FOUND", UNKNOWN_IS_NOT_FOUND),
    "load, unknown": ("NOT_FOUND", UNKNOWN_IS_NOT_FOUND),
    "region that does not exist": ("INVALID_ARGUMENT", INTERNAL_IS_OURS),
    "register, empty": ("INVALID_ARGUMENT", INTERNAL_IS_OURS),
    "output larger than its shared memory": ("INVALID_ARGUMENT", INTERNAL_IS_OURS),
    "register gpu memory": ("UNIMPLEMENTED", "no GPU memory of clients is taken"),
    "trace, unknown setting": ("INVALID_ARGUMENT", NO_SUCH_SETTING),
    "log, unknown setting": ("INVALID_ARGUMENT", NO_SUCH_SETTING),
}
"""Our outcome where it is another than Triton's, and why."""

OWN_FIELDS = {"platform", "backend", "default_model_filename", "parameters", "memory_usage", "reason"}
"""Of configurations, statistics and the index: what serves a model is another thing here; `reason` is ours alone."""
MEASURED = {"ns", "last_inference"}
REWORDED = {
    "datatype that does not exist": "ours says which one",
    "no datatype": "ours says which one",
    "wrong rank": "ours says both batches",
    "batches that differ": "ours says both batches",
    "sizes that overflow": "ours says both batches",
    "missing input": "Triton spells the list in brackets",
    "no inputs": "Triton spells the list in brackets",
    "typed values of another type": "Triton names the type that came, ours the list",
    "typed half precision": "as above",
    "raw contents for an input in shared memory": "ours counts the contents before it looks at their sizes",
    "typed contents for an input in shared memory": "Triton writes 'content', the field is `contents`",
    "no classes": "Triton says at least 0, and means 1",
}
"""Errors whose values are not the very same ones."""


@pytest.fixture(scope="module")
def played(repository: Path) -> Iterator[dict[str, Any]]:
    with serving(repository) as server, shared_memory():
        yield {exchange.name: play(server.channel, exchange) for exchange in EXCHANGES}


def comparable(value: Any) -> Any:
    """Without what is measured, and what only one of the two can have."""
    if isinstance(value, dict):
        kept = {key: comparable(entry) for key, entry in value.items() if key not in MEASURED}
        if "infer_response" not in value and "model_name" not in value and "error_message" not in value:
            kept = {key: entry for key, entry in kept.items() if key not in OWN_FIELDS}
        if "models" in kept:  # there are more of ours, and unloading ends before its answer
            kept["models"] = [
                entry | {"state": entry["state"].replace("UNLOADING", "UNAVAILABLE")}
                for entry in kept["models"]
                if entry["name"] in ("flat", "mixed", "scores")
            ]
        return kept
    return [comparable(entry) for entry in value] if isinstance(value, list) else value


def facts(text: str) -> set[str]:
    """What an error is about: words in quotes and numbers; the model's name only where there is nothing else."""
    found = set(re.findall(r"'([^'\s]+)'", text)) | set(re.findall(r"\b\d+\b", text))
    return found - {"mixed", "flat"} or found


def check_words(name: str, ours: str, tritons: str) -> None:
    """Ours names what Triton's names, and says what to do."""
    if tritons:
        assert name in REWORDED or facts(tritons) <= set(re.findall(r"[\w/]+", ours))
        assert "→" in ours
    else:
        assert not ours


@pytest.mark.parametrize("name", [exchange.name for exchange in EXCHANGES])
def test_an_answer_is_triton_s_own(played: dict[str, Any], name: str) -> None:
    ours, tritons = played[name], RECORDED[name]
    if name in DIFFERENCES:
        assert ours.get("code", "OK") == DIFFERENCES[name][0]
        assert ours.get("code", "OK") != tritons.get("code", "OK")
    elif "code" in tritons:
        assert ours["code"] == tritons["code"]
        check_words(name, ours["details"], tritons["details"])
    elif name == "stream that goes on after errors":
        for our_answer, tritons_answer in zip(ours["answers"], tritons["answers"], strict=True):
            assert our_answer["infer_response"] == tritons_answer["infer_response"]
            check_words(name, our_answer.get("error_message", ""), tritons_answer.get("error_message", ""))
    elif name == "server":
        (our_server,), (tritons_server,) = ours["answers"], tritons["answers"]
        assert our_server.keys() == tritons_server.keys()
        assert set(tritons_server["extensions"]) - set(our_server["extensions"]) == {
            "sequence",
            "cuda_shared_memory",
            "trace",
        }
    elif name == "statistics":
        check_statistics(ours["answers"][0]["model_stats"][0], tritons["answers"][0]["model_stats"][0])
    else:
        assert comparable(ours) == comparable(tritons)


def check_statistics(ours: dict[str, Any], tritons: dict[str, Any]) -> None:
    """The same fields; a request less, which Triton computed and we refused."""
    assert ours.keys() - tritons.keys() <= OWN_FIELDS
    assert tritons.keys() <= ours.keys()
    assert int(ours["execution_count"]) == int(tritons["execution_count"]) - 1
    assert int(ours["inference_count"]) == int(tritons["inference_count"]) - 2  # a batch of two
    assert ours["inference_stats"].keys() == tritons["inference_stats"].keys()
    for part in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        assert ours["inference_stats"][part]["count"] == ours["execution_count"]
        assert int(ours["inference_stats"][part]["ns"]) > 0
    (our_batch,), (tritons_batch,) = ours["batch_stats"], tritons["batch_stats"]
    assert our_batch.keys() == tritons_batch.keys()
    assert our_batch["batch_size"] == tritons_batch["batch_size"]
    parts = [int(ours["inference_stats"][part]["ns"]) for part in ("queue", "compute_input", "compute_infer")]
    assert sum(parts) <= int(ours["inference_stats"]["success"]["ns"])
