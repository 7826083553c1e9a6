"""The chosen subnets as files, and the figures of the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import nn

from bootstrapnas_ext import BootstrapNASController, Cost, Subnet
from bootstrapnas_ext.algorithms import SearchResult
from bootstrapnas_ext.deployment import Deployed
from bootstrapnas_ext.evaluation import measure_latencies, top1_accuracy
from bootstrapnas_ext.report.plots import plot_search_progression
from bootstrapnas_ext.search import Trial
from samples.classification.pipeline import Pipeline
from samples.classification.report import (
    INPUT_MODEL,
    Figures,
    benchmark_command,
    results_table,
    verdict,
    versions,
)
from samples.classification.run_folder import EXPORT, SUBNET, write_json


def export_chosen(pipeline: Pipeline, controller: BootstrapNASController) -> None:
    """
    Writes the chosen subnets and the summary, and shows them. Only here the test part is looked at.

    :param pipeline: The run, with a search that has found something.
    :param controller: Of the trained super-network.
    """
    folder, console = pipeline.folder, pipeline.console
    result = pipeline.search_result()
    chosen = result.selection.chosen
    names = result.selection.labels
    # The search has drawn it too, but the config may choose others now.
    plot_search_progression(result.record, result.selection.labelled, folder.plot)
    with folder.timed(EXPORT):
        deployed = {}
        for name, trial in chosen.items():
            console.print(f"export: {names[name]} is trial {trial.number}", highlight=False, markup=False)
            deployed[name] = pipeline.deploy(controller, trial.subnet, folder.subnets / name)
        console.print("export: accuracy on the test part, and latency in turns", highlight=False)
        figures = _measure(pipeline, controller, chosen, {name: found.module for name, found in deployed.items()})
        for name, trial in chosen.items():
            record = subnet_record(trial.subnet, trial, figures[name].cost, deployed[name])
            latency = figures[name].latency.as_dict()
            write_json(folder.subnets / name / SUBNET, {**figures[name].as_dict(), **record, "latency": latency})
    write_json(folder.summary, _summary(pipeline, result, figures))
    _show(pipeline, result, figures)


def subnet_record(subnet: Subnet, trial: Trial | None, cost: Cost, deployed: Deployed) -> dict[str, Any]:
    """
    Returns what is known of an exported subnet, but for figures on the test part, as JSON can hold it.

    :param subnet: The subnet.
    :param trial: Of the search, if it has measured the subnet.
    :param cost: Of one image.
    :param deployed: What was exported.
    """
    return {
        **({} if trial is None else {"trial": trial.number, "measurements": dict(trial.values)}),
        "choices": dict(subnet),
        "cost": asdict(cost),
        "verification": deployed.verification.as_dict(),
    }


def _measure(
    pipeline: Pipeline,
    controller: BootstrapNASController,
    chosen: Mapping[str, Trial],
    modules: Mapping[str, nn.Module],
) -> dict[str, Figures]:
    supernet = controller.supernet
    modules = {INPUT_MODEL: controller.input_model.cpu().eval(), **modules}
    latencies = measure_latencies(modules, supernet.example.to("cpu"), pipeline.nas.search.latency)
    figures = {}
    for name, module in modules.items():
        subnet = chosen[name].subnet if name in chosen else supernet.space.maximum
        top1 = top1_accuracy(module.to(pipeline.device), pipeline.loaders.test, pipeline.device)
        figures[name] = Figures(name, top1, supernet.cost(subnet), latencies[name])
    return figures


def _summary(pipeline: Pipeline, result: SearchResult, figures: Mapping[str, Figures]) -> dict[str, Any]:
    selection = result.selection
    return {
        INPUT_MODEL: figures[INPUT_MODEL].as_dict(),
        "subnets": [
            # Either all of them keep to the bounds, or there is but the nearest one.
            {**figures[name].as_dict(), "trial": trial.number, "satisfied": selection.satisfied}
            for name, trial in selection.chosen.items()
        ],
        "pareto": [{"trial": trial.number, **trial.values, "choices": dict(trial.subnet)} for trial in result.front],
        "selection": selection.reason,
        "timing_s": pipeline.folder.timing(),
        "seed": pipeline.settings.seed,
        "versions": versions(),
    }


def _show(pipeline: Pipeline, result: SearchResult, figures: Mapping[str, Figures]) -> None:
    folder, console, selection = pipeline.folder, pipeline.console, result.selection
    names = selection.labels
    console.print(results_table(list(figures.values()), names))
    best = folder.subnets / "best" / "model.xml"
    for line in (
        verdict(selection),
        f"All trials in a picture: {folder.plot}",
        f"All figures: {folder.summary}",
        f"The {names['best']} subnet for OpenVINO: {best}",
        f"To measure it: {benchmark_command(best, pipeline.nas.search.latency)}",
    ):
        console.print(line, highlight=False, markup=False, emoji=False, soft_wrap=True)
