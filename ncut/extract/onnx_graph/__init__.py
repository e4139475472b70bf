"""An ONNX model -> the record of its forward pass, a file per concern."""
