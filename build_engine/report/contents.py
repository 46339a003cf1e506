"""The facts of a build as one JSON-able structure: `report.json`, from which `report.html` is drawn."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from typing import Any

from build_engine.fuse.cost import Cost
from build_engine.outcome import FLOAT, UNFUSED, Built
from build_engine.report.blocks import structure
from build_engine.report.fusion import fusion_facts
from build_engine.report.headline import headline
from build_engine.report.layers import layers
from build_engine.report.precision import quantization
from build_engine.report.stayed_out import slower, stayed_out
from engine.cpu import cpu_name
from engine.manifest import Manifest

SCHEMA_VERSION = 1


def contents(built: Built, manifest: Manifest) -> dict[str, Any]:
    """Everything worth keeping about a build.

    Args:
        built: What it found out.
        manifest: What the bundle says about itself.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "headline": headline(built),
        "stayed_out": [*stayed_out(built), *slower(built)],
        "model": {
            "name": manifest.name,
            "version": manifest.version,
            "source": manifest.provenance.source,
            "precision": built.options.precision,
            "targets": list(built.options.targets),
            "max_batch": manifest.max_batch,
            "dimensions": {name: sizes.model_dump() for name, sizes in manifest.dimensions.items()},
            "largest_request": largest_request(built),
            "inputs": [spec.model_dump(mode="json") for spec in manifest.inputs],
            "outputs": [spec.model_dump(mode="json") for spec in manifest.outputs],
            "preprocessing": manifest.preprocessing.model_dump() if manifest.preprocessing else None,
        },
        "machine": {
            "processor": cpu_name(),
            "cores": os.cpu_count(),
            "system": f"{platform.system()} {platform.machine()}",
            "threads": built.options.threads,
        },
        "notes": list(built.notes),
        "fusion": fusion_facts(
            built.fusion,
            structure(built.unfused),
            structure(built.float_graph.model),
            built.verification,
            built.shortcuts,
            built.mean,
        ),
        "memory": _memory(built),
        "compiled": [
            {
                "target": compiled.target,
                "graph": compiled.graph,
                "runtime": f"{compiled.plan.key['runtime']} {compiled.plan.key['runtime_version']}",
                "max_batch": built.max_batch,
                "activation_bytes": compiled.plan.activation_bytes,
                "weights_bytes": compiled.plan.weights_bytes,
                "kernels": len(compiled.plan.layers),
                "build_seconds": round(compiled.plan.build_seconds, 3),
                "layers": [{"name": layer.name, "sources": list(layer.sources)} for layer in compiled.plan.layers],
            }
            for compiled in built.compiled
        ],
        "latency": [asdict(latency) for latency in built.latency],
        "accuracy": {
            "samples": min(built.options.evaluation_frames, len(built.samples.inputs)) if built.samples else 0,
            "metric": built.options.metric,
            "graphs": [asdict(accuracy) for accuracy in built.accuracy],
        },
        "quantization": quantization(built),
        "layers": [asdict(layer) for layer in layers(built)],
        "files": [
            {"name": name, "size_bytes": entry.size_bytes, "sha256": entry.sha256}
            for name, entry in manifest.files.items()
        ],
        "provenance": manifest.provenance.model_dump(),
    }


def largest_request(built: Built) -> str:
    """What memory is for: `batch 8, length 512`."""
    chosen = dict.fromkeys(name for spec in built.inputs for name in spec.free)
    sizes = {name: built.free.by_name[name].largest for name in chosen}
    return ", ".join(f"{name} {size}" for name, size in {"batch": built.max_batch, **sizes}.items())


def _memory(built: Built) -> list[dict[str, Any]]:
    """What each account of memory says, before and after."""
    rows = [_cost_row("peak of live tensors, one frame", built.fusion.before, built.fusion.after)]
    by_target: dict[str, dict[str, int]] = {}
    for compiled in built.compiled:
        if compiled.plan.activation_bytes is not None:
            by_target.setdefault(compiled.target, {})[compiled.graph] = compiled.plan.activation_bytes
    for target, by_graph in by_target.items():
        runtime = next(c.plan.key["runtime"] for c in built.compiled if c.target == target)
        name = {"tensorrt-rtx": "TensorRT-RTX", "tensorrt": "TensorRT"}.get(runtime, runtime)
        rows.append(
            {
                "account": f"{name}'s activation memory, {largest_request(built)}",
                "compiled": True,
                "bytes": {name: by_graph[name] for name in (UNFUSED, FLOAT, *by_graph) if name in by_graph},
            }
        )
    return rows


def _cost_row(account: str, before: Cost, after: Cost) -> dict[str, Any]:
    return {
        "account": account,
        "compiled": False,
        "bytes": {UNFUSED: before.activation_bytes, FLOAT: after.activation_bytes},
    }
