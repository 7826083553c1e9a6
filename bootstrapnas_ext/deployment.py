"""Extraction, recalibration, export and verification of one subnet, in one step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from bootstrapnas_ext.export import (
    Backend,
    ExportedSubnet,
    VerificationReport,
    export_subnet,
    verification_inputs,
    verify,
)
from bootstrapnas_ext.extraction import extract
from bootstrapnas_ext.inputs import ExampleInput
from bootstrapnas_ext.modes import evaluation_mode
from bootstrapnas_ext.supernet import Supernet

#: The same PyTorch operations on the same numbers: only the order of sums may differ.
EXTRACTED_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Deployed:
    """
    A subnet that left the super-network.

    :param module: The plain module, on the CPU, in evaluation mode.
    :param files: What was written.
    :param verification: The differences of ``extracted`` from the super-network, and of each format from the module.
    """

    module: nn.Module
    files: tuple[Path, ...]
    verification: VerificationReport


def deploy(
    supernet: Supernet,
    subnet: Mapping[str, int],
    directory: Path | str,
    formats: Sequence[str] = ("onnx", "ir"),
    *,
    recalibrate: Callable[[nn.Module], object] | None = None,
    ir_batch: int | None = 1,
    seed: int = 0,
) -> Deployed:
    """
    Writes a subnet in one or more formats, verified all the way from the super-network.

    The extracted module is compared to the super-network with the statistics that it has there; then it gets its own,
    and what is written is compared to that.

    :param supernet: The super-network.
    :param subnet: A subnet of its space.
    :param directory: Where to; made if it is not there.
    :param formats: Any of :data:`bootstrapnas_ext.export.FORMATS`.
    :param recalibrate: Gives a module norm statistics of its own.
    :param ir_batch: Batch size that is stored in the IR; ``None`` for dynamic.
    :param seed: Of the random inputs of the verification.
    :raises SubnetError: If the subnet is not in the space.
    :raises ExportError: If a difference is too large, or a file cannot be made.
    """
    example = supernet.example.to("cpu")
    first = _verify_extraction(supernet, subnet, example, seed)
    module = extract(supernet, subnet, recalibrate).cpu().eval()
    exported: ExportedSubnet = export_subnet(module, example, directory, formats, ir_batch=ir_batch, seed=seed)
    report = VerificationReport(
        exported.verification.batch_sizes, {**first.differences, **exported.verification.differences}
    )
    return Deployed(module, exported.files, report)


def _verify_extraction(
    supernet: Supernet, subnet: Mapping[str, int], example: ExampleInput, seed: int
) -> VerificationReport:
    def active(*args: Any, **kwargs: Any) -> Any:
        moved = ExampleInput(args, kwargs).to(supernet.device)
        return supernet.model(*moved.args, **moved.kwargs)

    module = extract(supernet, subnet).cpu().eval()
    with evaluation_mode(supernet.model), supernet.activate(subnet):
        return verify(active, {"extracted": Backend(module, EXTRACTED_TOLERANCE)}, verification_inputs(example, seed))
