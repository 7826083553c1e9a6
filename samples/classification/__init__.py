"""Image classification: from a trained model to smaller and faster ones."""
