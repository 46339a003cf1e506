from engine.tensorrt.log import BuildLog, CompiledLayer, parse_layers, without_driver_noise

LAYERS = """Layers:
Name: sizes, LayerType: shape_call, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0, Metadata:
Name: __myl_CastTran_myl0_1, LayerType: kgen, Inputs: [ { Name: images, Dimensions: [-1,64,96,3], Datatype: UInt8 }], \
Outputs: [ { Name: r1, Datatype: Float }], TacticName: __myl_CastTran_0x30, StreamId: 0, \
Metadata: [ONNX Layer: cast]\x1f[ONNX Layer: block[0]/transpose]
Name: stage1/conv + relu, LayerType: CaskConvolution, Inputs: [ { Name: r1 }], Outputs: [ { Name: r2 }], \
ParameterType: Convolution, Kernel: [3,3], TacticName: sm80_xmma, StreamId: 0, Metadata: [ONNX Layer: stage1/conv]\x1e\
[ONNX Layer: stage1/relu]\x1e[ONNX Layer: stage1/conv]
Name: Reformatting CopyNode for Output Tensor 0, LayerType: Reformat, Inputs: [], Outputs: [], TacticName: , StreamId: 0

I/O Tensors:
 Name: images, IOMode: Input, DataType: UInt8, Dimensions: [-1,64,96,3]
"""


def test_layers_with_the_nodes_they_came_from() -> None:
    assert parse_layers(LAYERS) == (
        CompiledLayer("__myl_CastTran_myl0_1", ("cast", "block[0]/transpose")),
        CompiledLayer("stage1/conv + relu", ("stage1/conv", "stage1/relu")),
        CompiledLayer("Reformatting CopyNode for Output Tensor 0", ()),
    )


def test_no_layers() -> None:
    assert parse_layers("Layers:\n") == ()


def test_memory_is_the_largest_that_is_said() -> None:
    log = BuildLog()
    for line in ("Total Activation Memory: 100 bytes", "Total Activation Memory: 300", "Total Activation Memory: 200"):
        log.add("INFO", line)
    log.add("INFO", "Total Weights Memory: 3552 bytes")
    log.add("INFO", "Total Host Persistent Memory: 80 bytes")
    assert (log.activation_bytes, log.weights_bytes) == (300, 3552)


def test_what_is_not_said_is_unknown() -> None:
    assert (BuildLog().activation_bytes, BuildLog().weights_bytes) == (None, None)


def test_a_missing_driver_is_no_error() -> None:
    log = BuildLog()
    log.add("ERROR", "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (cudaError 35: too old)")
    log.add("INTERNAL_ERROR", "out of range\n[checkMacros.cpp] (cudaError 35: too old)\nat line 3")
    log.add("WARNING", "a warning")
    assert log.errors == ["out of range\nat line 3"]
    assert without_driver_noise("cudaError 35") == ""


def test_an_error_is_traced_to_its_node() -> None:
    log = BuildLog()
    log.add("VERBOSE", "Parsing node: head/nms [NonMaxSuppression]")
    log.add("VERBOSE", "Registering layer: head/nms_0 for ONNX node: head/nms")
    log.add("VERBOSE", "Parsing node: head [Concat]")
    assert log.node_in("head/nms_0 has no runners") == "head/nms"
    assert log.operators["head/nms"] == "NonMaxSuppression"
    assert log.node_in("Network must have at least one output") is None
