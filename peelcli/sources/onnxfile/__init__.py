"""An ONNX file as a module of real layers: read, checked, rebuilt, and compared with onnxruntime."""
