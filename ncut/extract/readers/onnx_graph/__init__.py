"""Reader of ONNX models: follows a model's graph to the record of its forward pass."""
