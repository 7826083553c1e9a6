"""Neural architecture search for PyTorch and OpenVINO users."""
