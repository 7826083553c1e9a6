"""
A super-network of a transformer in the `Trainer` of Hugging Face, by a callback.

    python samples/loops/huggingface_callback.py
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import ExportableState

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import bootstrapnas_ext as bnas

WORDS, LENGTH, CLASSES = 24, 12, 3


class SupernetCallback(TrainerCallback, ExportableState):
    """
    Trains the subnets that the strategy names: each makes a forward and a backward pass of the `Trainer`, which then
    lets the optimizer step once.

    The learning rate stays the `Trainer`'s. Let it train for ``controller.scheduler.total_epochs``. What it evaluates
    and saves is the maximum, and its checkpoints know how far the training has come.

    :param controller: Of the super-network that the `Trainer` trains.
    """

    def __init__(self, controller: bnas.BootstrapNASController) -> None:
        self._controller = controller
        self._passes: Any = None

    def join(self, trainer: Trainer) -> None:
        """
        Adds itself to a `Trainer`.

        :param trainer: Given a ``compute_loss_func`` or not.
        """
        trainer.add_callback(self)
        own_step, own_loss = trainer.training_step, trainer.compute_loss

        def training_step(model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
            if self._passes is None:  # the first batch of a step
                self._passes = self._controller.scheduler.step(estimate=partial(estimate, model, inputs))
            return torch.stack([own_step(model, inputs, *args, **kwargs) for _ in self._passes]).sum()

        def estimate(model: nn.Module, inputs: Any, subnet: bnas.Subnet) -> float:  # for the strategy "attentive"
            with torch.no_grad(), self._controller.supernet.activate(subnet):
                return float(own_loss(model, trainer._prepare_inputs(inputs)))

        def compute_loss(model: nn.Module, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
            result = own_loss(model, inputs, return_outputs, **kwargs)
            return result if return_outputs or not model.training else self._controller.loss(result)

        trainer.training_step, trainer.compute_loss = training_step, compute_loss

    def state(self) -> dict[str, Any]:
        """Returns what a checkpoint of the `Trainer` says of it."""
        return {"args": {}, "attributes": {"scheduler": self._controller.scheduler.get_state()}}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        if state.global_step:  # resumed
            saved = state.stateful_callbacks[type(self).__name__]
            self._controller.scheduler.load_state(saved["attributes"]["scheduler"])

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        epoch = int(state.epoch or 0)
        if self._controller.scheduler.current_epoch != epoch:  # not in the midst of one
            self._controller.scheduler.epoch_step(epoch)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._passes = None

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if control.should_evaluate or control.should_save:
            self.on_epoch_end()

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        self._controller.multi_elasticity_handler.activate_maximum_subnet()
        self._controller.scheduler.adapt_batchnorm()


class Sentences(Dataset[dict[str, Tensor]]):
    """Random words, many of which are the one that tells the class."""

    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._labels = torch.randint(CLASSES, (count,), generator=generator)
        self._words = torch.randint(CLASSES + 1, WORDS, (count, LENGTH), generator=generator)  # 0 is padding
        named = torch.rand(count, LENGTH, generator=generator) < 0.5
        self._words = torch.where(named, 1 + self._labels[:, None], self._words)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": self._words[index], "labels": self._labels[index]}


def cross_entropy(outputs: Any, labels: Tensor, num_items_in_batch: int | None = None) -> Tensor:
    """The loss of the task; the model itself is not given the labels, so its path is the one that was traced."""
    return F.cross_entropy(outputs["logits"], labels)


def supernet_of(model: nn.Module, strategy: str) -> bnas.BootstrapNASController:
    """Makes a super-network of a transformer, with fewer heads and narrower layers, and returns its controller."""
    training = {
        "strategy": strategy,
        "schedule": {"list_stage_descriptions": [{"epochs": 2}]},
        "elasticity": {"available_elasticity_dims": ["width"], "width": {"width_multipliers": [1, 0.5]}},
    }
    config = bnas.NNCFConfig.from_dict({"bootstrapNAS": {"training": training}})
    words = torch.randint(WORDS, (2, LENGTH), generator=torch.Generator().manual_seed(0))
    controller: bnas.BootstrapNASController
    controller, _ = bnas.create_compressed_model(model, config, dummy_forward_fn=lambda net: net(input_ids=words))
    return controller


def prepared(
    strategy: str, folder: str | Path, count: int = 1024, **options: Any
) -> tuple[bnas.BootstrapNASController, Trainer]:
    """Returns the controller of a small BERT's super-network, and a `Trainer` for it with more options of its own."""
    torch.manual_seed(0)
    settings = BertConfig(
        vocab_size=WORDS,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=LENGTH,
        num_labels=CLASSES,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = BertForSequenceClassification(settings).eval()
    controller = supernet_of(model, strategy)
    given = {"save_strategy": "no", **options}
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=controller.scheduler.total_epochs,
        per_device_train_batch_size=32,
        learning_rate=2e-3,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **given,
    )
    data = {"train_dataset": Sentences(count, seed=0), "eval_dataset": Sentences(32, seed=2)}
    trainer = Trainer(model, arguments, **data, compute_loss_func=cross_entropy)
    SupernetCallback(controller).join(trainer)
    return controller, trainer


def main(strategy: str = "sandwich") -> dict[str, float]:
    """Trains a small BERT, and returns and prints the accuracy of two subnets."""
    with tempfile.TemporaryDirectory() as folder:
        controller, trainer = prepared(strategy, folder)
        trainer.train()
    result = _accuracies(controller, Sentences(500, seed=1))
    print(result)
    return result


@torch.no_grad()
def _accuracies(controller: bnas.BootstrapNASController, data: Sentences) -> dict[str, float]:
    batch = torch.utils.data.default_collate([data[index] for index in range(len(data))])
    space, model = controller.supernet.space, controller.model.eval()
    result = {}
    for name, subnet in (("maximum", space.maximum), ("minimum", space.minimum)):
        with controller.supernet.activate(subnet):
            right = model(input_ids=batch["input_ids"])["logits"].argmax(dim=1) == batch["labels"]
        result[name] = 100.0 * float(right.float().mean())
    return result


if __name__ == "__main__":
    main()
