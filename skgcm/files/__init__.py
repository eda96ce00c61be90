"""What is kept on disk: models, checkpoints, ONNX."""
