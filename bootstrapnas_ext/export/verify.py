"""The proof that an exported model computes what the super-network computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from bootstrapnas_ext.errors import ExportError
from bootstrapnas_ext.export.messages import ANY_BATCH, first_line
from bootstrapnas_ext.export.names import output_tensors
from bootstrapnas_ext.inputs import ExampleInput

#: Batch sizes that differ from each other and from the traced one, so that a batch fixed by tracing cannot hide.
BATCH_SIZES = (1, 3)


@dataclass(frozen=True)
class Backend:
    """
    One way to run the model.

    :param run: Called like the module, with the same tensors.
    :param tolerance: Largest difference from the reference that is accepted, relative to the largest magnitude in the
        reference's output.
    """

    run: Callable[..., Any]
    tolerance: float = 1e-3


@dataclass(frozen=True)
class Difference:
    """
    How far the outputs of a backend are from the reference's, the worst over all outputs and inputs.

    :param max_absolute: Largest absolute difference of two elements.
    :param max_relative: Largest absolute difference over the largest magnitude in the reference's output.
    :param tolerance: What ``max_relative`` may be.
    """

    max_absolute: float
    max_relative: float
    tolerance: float


@dataclass(frozen=True)
class VerificationReport:
    """
    The outcome of a verification; all differences are within their tolerances.

    :param batch_sizes: Batch sizes that were run.
    :param differences: Backend to difference.
    """

    batch_sizes: tuple[int, ...]
    differences: Mapping[str, Difference]

    def as_dict(self) -> dict[str, Any]:
        """Returns it as JSON can hold it."""
        return {
            "batch_sizes": list(self.batch_sizes),
            "differences": {name: asdict(difference) for name, difference in self.differences.items()},
        }


def verification_inputs(
    example: ExampleInput, seed: int, batch_sizes: Iterable[int] = BATCH_SIZES
) -> tuple[ExampleInput, ...]:
    """
    Returns the example itself, and random inputs of the same kind in other batch sizes.

    Floating-point tensors are drawn from the standard normal distribution, others uniformly from the range of values
    that the example has. Sparse tensors stay as they are.

    :param example: What the model is called with.
    :param seed: The same seed gives the same inputs.
    :param batch_sizes: The other batch sizes.
    """
    generator = torch.Generator().manual_seed(seed)

    def random_like(tensor: Tensor) -> Tensor:
        if tensor.layout is not torch.strided or not tensor.numel():
            return tensor
        if tensor.is_complex():
            return torch.randn(tensor.shape, dtype=tensor.dtype, generator=generator).to(tensor)
        if tensor.is_floating_point():
            return torch.randn(tensor.shape, generator=generator).to(tensor)
        low, high = int(tensor.min()), int(tensor.max())
        return torch.randint(low, high + 1, tensor.shape, generator=generator).to(tensor)

    return (example, *(example.with_batch(size).map(random_like) for size in batch_sizes))


def verify(
    reference: Callable[..., Any], backends: Mapping[str, Backend], inputs: Sequence[ExampleInput]
) -> VerificationReport:
    """
    Runs the same inputs through the reference and every backend, and compares all outputs.

    .. code-block:: python

        with supernet.activate(subnet):
            verify(supernet.model, {"extracted": Backend(extract(supernet, subnet), 1e-4)}, inputs)

    :param reference: What the outputs should be; called like the module. Modules are in evaluation mode.
    :param backends: Name to backend.
    :param inputs: At least one input.
    :return: The differences.
    :raises ExportError: If the reference or a backend fails, an output of the reference is not finite, or a backend's
        outputs have other shapes or differ by more than its tolerance. The message names the backend.
    """
    batch_sizes = tuple(example.batch_size for example in inputs)
    worst = {name: Difference(0.0, 0.0, backend.tolerance) for name, backend in backends.items()}
    with torch.no_grad():
        for example, batch in zip(inputs, batch_sizes, strict=True):
            expected = _run("The model", reference, example, batch, "" if batch == batch_sizes[0] else f"; {ANY_BATCH}")
            for output, tensor in expected.items():
                if not bool(tensor.isfinite().all()):
                    msg = f"Output {output!r} of the model is not finite for a batch of {batch}; check its weights."
                    raise ExportError(msg)
            for name, backend in backends.items():
                for found in _compare(name, backend, expected, example, batch):
                    worst[name] = Difference(
                        max(worst[name].max_absolute, found.max_absolute),
                        max(worst[name].max_relative, found.max_relative),
                        backend.tolerance,
                    )
    return VerificationReport(batch_sizes, worst)


def _run(name: str, run: Callable[..., Any], example: ExampleInput, batch: int, advice: str = "") -> dict[str, Tensor]:
    try:
        return output_tensors(run(*example.args, **example.kwargs))
    except Exception as error:  # each backend has exceptions of its own
        msg = f"{name} cannot run a batch of {batch}: {first_line(error)}{advice}"
        raise ExportError(msg) from error


def _compare(
    name: str, backend: Backend, expected: Mapping[str, Tensor], example: ExampleInput, batch: int
) -> Iterator[Difference]:
    actual = list(_run(name, backend.run, example, batch).values())
    shapes = [tuple(tensor.shape) for tensor in expected.values()], [tuple(tensor.shape) for tensor in actual]
    if shapes[0] != shapes[1]:
        msg = f"Outputs of {name} must have the shapes {shapes[0]}, but got {shapes[1]} for a batch of {batch}."
        raise ExportError(msg)
    for (output, right), other in zip(expected.items(), actual, strict=True):
        difference = _difference(_as_reals(right), _as_reals(other), backend.tolerance)
        # Not `max_relative > tolerance`, which lets NaN pass.
        if not difference.max_relative <= backend.tolerance:
            msg = (
                f"`max_relative <= tolerance` must hold, but output {output!r} of {name} got (max_relative="
                f"{difference.max_relative:.3g}, tolerance={backend.tolerance:.3g}) for a batch of {batch}; tracing "
                "fixes whatever the model's code computes from the values of its inputs."
            )
            raise ExportError(msg)
        yield difference


def _as_reals(tensor: Tensor) -> Tensor:
    return (torch.view_as_real(tensor) if tensor.is_complex() else tensor).cpu().double()


def _difference(right: Tensor, other: Tensor, tolerance: float) -> Difference:
    if not right.numel():
        return Difference(0.0, 0.0, tolerance)
    absolute = float((right - other).abs().max())
    # Where the reference is zero throughout there is nothing to relate to.
    return Difference(absolute, absolute / (float(right.abs().max()) or 1.0), tolerance)
