"""Files on disk: models, checkpoints, ONNX."""
