"""ONNX networks as graphs: an importer of its own, checked against onnxruntime."""

from certus.graph.onnx.load import load as load
