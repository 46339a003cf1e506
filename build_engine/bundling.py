"""From what a build found out to the bundle on disk."""

from __future__ import annotations

import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import onnx

from build_engine.graph import opset_of, random_inputs
from build_engine.outcome import Built
from build_engine.quantize.int8 import CPU_INT8, VNNI
from build_engine.report import render
from build_engine.session import Session
from build_engine.verify import check_graphs
from engine.bundle import Bundle, BundleWriter, ReferenceCase, pack_reference
from engine.manifest import GraphEntry, Manifest, PlanEntry, Provenance, TensorPostprocessing


def write(built: Built) -> None:
    """Write the bundle with its report, once it passes the check that every server runs before it serves.

    Raises:
        BuildError: A graph of the bundle disagrees with the reference cases by more than servers accept.
        BundleInvalid: Something that is no bundle lies at the path.
    """
    writer = BundleWriter()
    graphs = {}
    for graph in built.graphs:
        path = f"graphs/{graph.name}.onnx"
        writer.add(path, graph.data)
        graphs[graph.name] = GraphEntry(
            path=path,
            precision=graph.precision,
            targets=graph.targets,
            cpu_features=VNNI if graph.name == CPU_INT8.name else (),
        )
    plans = []
    for compiled in built.compiled:
        if compiled.graph == built.served(compiled.target).name:
            path = f"plans/{compiled.target}.plan"
            writer.add(path, compiled.plan.data)
            plans.append(PlanEntry(path=path, graph=compiled.graph, target=compiled.target, key=compiled.plan.key))
    references = []
    for case in _reference_cases(built):
        writer.add(case.name, pack_reference(case))
        references.append(case.name)
    model = onnx.load_from_string(built.float_graph.data)
    manifest = Manifest(
        name=built.name,
        version=built.options.version,
        inputs=built.inputs,
        outputs=built.outputs,
        max_batch=built.max_batch,
        dimensions=dict(built.free.by_name),
        preprocessing=built.preprocessing,
        postprocessing=built.postprocessing or TensorPostprocessing(),
        graphs=graphs,
        plans=tuple(plans),
        reference=tuple(references),
        files=writer.entries(),
        provenance=Provenance(
            source=built.loaded.origin,
            source_sha256=built.loaded.sha256,
            calibration_sha256=built.samples.sha256() if built.samples else None,
            opset=opset_of(model),
            ir_version=model.ir_version,
            tools=_tools(built),
        ),
    )
    output = built.options.output
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as scratch:
        writer.write(Path(scratch) / "bundle", manifest, {})
        check_graphs(Bundle.open(Path(scratch) / "bundle"))
    writer.write(output, manifest, render(built, manifest))


def _reference_cases(built: Built) -> list[ReferenceCase]:
    count = built.options.reference_cases
    inputs = (
        built.samples.spread(count)
        if built.samples
        else tuple(random_inputs(built.inputs, 1, seed, built.free.usual) for seed in range(count))
    )
    session = Session(built.float_graph.data)
    return [
        ReferenceCase(f"reference/case-{index}.npz", dict(entry), session.run(entry))
        for index, entry in enumerate(inputs, start=1)
    ]


def _tools(built: Built) -> dict[str, str]:
    tools = {**built.loaded.tools, "onnxruntime": version("onnxruntime")}
    try:
        tools["monocoque"] = version("monocoque")
    except PackageNotFoundError:  # run from a checkout that was not installed
        tools["monocoque"] = "unknown"
    for compiled in built.compiled:
        tools[compiled.plan.key["runtime"]] = compiled.plan.key["runtime_version"]
    return dict(sorted(tools.items()))
