"""The contract between the two halves: the bundle's format, and the runtimes that execute it.

================================  ==================================================================================
`engine.bundle`                   `Bundle.open` reads and checks a bundle, `BundleWriter` makes one
`engine.manifest`                 what a bundle says about itself
`engine.opening`                  `open_runtime`: from a bundle and a target to a loaded engine, in this process
`engine.process`                  `WorkerRuntime`: the same, in a process of its own
`engine.runtime`                  the protocol that every runtime speaks
`engine.slots`, `engine.allocate` tensors in shared memory, and room for a batch of them
`engine.preprocess`               from a frame to the network's input
`engine.postprocess`              from the network's outputs to detections
`engine.reference`                whether an engine still computes what it did when the bundle was built
`engine.tensorrt.plan`            the compile step
`engine.fake`                     a runtime in memory, for tests
`engine.errors`                   the one tree of exceptions
================================  ==================================================================================

    bundle = Bundle.open("camera.bundle")
    regions = RegionTable()
    runtime = open_runtime(bundle, "cpu", regions)
    with allocate(runtime.describe(), regions, batch=1) as slots:
        slots.view("images")[:] = frame
        runtime.run(slots.batch(1))
        print(slots.view("scores"))

Nothing of ours is imported here, so that an engine's process loads no more than it runs.
"""

import os

# ONNX Runtime 1.29 and newer upload usage reports, on Linux too. A vehicle's computer must not call anybody.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
