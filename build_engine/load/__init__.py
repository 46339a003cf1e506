"""The door: a trained model in any of its forms becomes one ONNX graph.

`load_model` decides by how the model is named; every later step is ONNX in, ONNX out.
"""

from build_engine.load.source import Loaded, Source, load_model, parse_source

__all__ = ["Loaded", "Source", "load_model", "parse_source"]
