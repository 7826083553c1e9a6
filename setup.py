"""Installs the package; every dependency with the range that it was tried with and the reason why it is there."""

from pathlib import Path

from setuptools import find_packages, setup

REQUIREMENTS = [
    "torch>=2.6",  # the models, and the training of the super-network
    "nncf>=2.19,<4",  # the traced graph and the function hooks; both moved between major versions
    "packaging>=21.0",  # compares versions of NNCF, pre-releases among them
    "openvino>=2025.0",  # latency on the target, the IR, and the benchmark_app command
    "onnx>=1.16",  # the exported model format
    "onnxscript>=0.2",  # torch.onnx.export translates through it, but does not install it
    "onnxruntime>=1.18",  # runs an exported model to verify it against the super-network
    "numpy>=1.24",  # the search space and everything in the search
    "jsonschema>=4.18",  # checks configs against schemas/bootstrapnas.schema.json
    "optuna>=5.0",  # search algorithms and the database of trials; polynomial mutation came with 5.0
    "sqlalchemy>=2.0",  # Optuna's way to SQLite; its errors are caught and told
    "matplotlib>=3.7",  # the search-progression plot
    "rich>=13.0",  # tables and progress bars on the terminal
    "tensorboard>=2.14",  # training curves
]

TESTS = [
    "pytest>=8.0",
    "hypothesis>=6.100",  # properties of the axis algebra and the search space
]

EXTRAS = {
    "samples": [
        "torchvision>=0.21",  # CIFAR, folders of images, the model zoo
        "scikit-learn>=1.3",  # the digits dataset, which comes with it: no download
    ],
    "tests": TESTS,
    "dev": [
        *TESTS,
        "ruff>=0.9",
        "mypy>=1.14",
        "pre-commit>=3.7",
        "types-jsonschema>=4.18",  # jsonschema ships no types of its own
        "timm>=1.0",  # models for benchmarks/zoo_coverage
        "transformers>=4.50",  # models for benchmarks/zoo_coverage, and outputs that are objects
        "accelerate>=1.1",  # the Trainer of transformers, for samples/loops
        "lightning>=2.4",  # for samples/loops
    ],
}

setup(
    name="bootstrapnas_ext",
    version="0.1.0",
    description="Neural architecture search for PyTorch and OpenVINO: smaller, faster models from a pre-trained one",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=["neural architecture search", "super-network", "model compression", "NNCF", "OpenVINO", "PyTorch"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.10",
    # The schema lies at the top level, where editors and people look for it, and is installed inside the package.
    packages=[*find_packages(include=["bootstrapnas_ext", "bootstrapnas_ext.*"]), "bootstrapnas_ext.schemas"],
    package_dir={"bootstrapnas_ext.schemas": "schemas"},
    package_data={"bootstrapnas_ext": ["py.typed"], "bootstrapnas_ext.schemas": ["*.json"]},
    install_requires=REQUIREMENTS,
    extras_require=EXTRAS,
)
