"""The skorch net that trains, and the parts of a training step."""
