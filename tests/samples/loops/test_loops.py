"""The loops of one's own: each example runs and trains, the smallest subnet too."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

import bootstrapnas_ext as bnas
from samples.loops import digits, plain_pytorch

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = {"list_stage_descriptions": [{"epochs": 3, "init_lr": 0.1}]}
    monkeypatch.setattr(digits, "TRAINING", {**digits.TRAINING, "schedule": schedule})


def test_plain_pytorch() -> None:
    assert min(plain_pytorch.main().values()) > 80


def test_plain_pytorch_is_under_15_lines() -> None:
    source = inspect.getsource(plain_pytorch.train)
    assert len(re.sub(r'""".*?"""\n', "", source, flags=re.DOTALL).splitlines()) < 15


@pytest.mark.parametrize("strategy", ["progressive_shrinking", "random", "fair"])
def test_plain_pytorch_by_other_strategies(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(digits.TRAINING, "strategy", strategy)
    training, validation = digits.digits()
    loader = DataLoader(training, batch_size=32, shuffle=True)
    controller = digits.supernet_of(digits.network(), loader)
    plain_pytorch.train(controller, loader, torch.optim.SGD(controller.supernet.parameters(), lr=0.1))
    assert min(digits.accuracies(controller, validation).values()) > 50


@pytest.mark.filterwarnings("ignore")  # of Lightning and what it imports
@pytest.mark.parametrize("strategy", ["sandwich", "attentive"])
def test_lightning_callback(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lightning", reason="lightning is not installed")
    from samples.loops import lightning_callback

    monkeypatch.setitem(digits.TRAINING, "strategy", strategy)

    assert min(lightning_callback.main().values()) > 80


@pytest.mark.filterwarnings("ignore")  # of transformers and what it imports
@pytest.mark.parametrize("strategy", ["sandwich", "attentive"])
def test_huggingface_callback(strategy: str) -> None:
    for name in ("transformers", "accelerate"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    from samples.loops import huggingface_callback

    assert min(huggingface_callback.main(strategy).values()) > 60


@pytest.mark.filterwarnings("ignore")  # of Lightning and what it imports
def test_lightning_validates_the_maximum_and_resumes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning", reason="lightning is not installed")
    from samples.loops import lightning_callback

    stages = [{"epochs": 1, "train_dims": ["width"], "width_indicator": 2}, {"epochs": 2, "init_lr": 0.05}]
    monkeypatch.setitem(digits.TRAINING, "schedule", {"list_stage_descriptions": stages})
    images, labels = digits.digits()[0][:200]
    loader = DataLoader(torch.utils.data.TensorDataset(images, labels), batch_size=20)  # in order
    validated: list[bool] = []

    class Classifier(lightning_callback.Classifier):
        def validation_step(self, batch: object) -> None:
            validated.append(controller.supernet.active == controller.supernet.space.maximum)

    def fit(ckpt_path: Path | None = None) -> bnas.BootstrapNASController:
        nonlocal controller
        torch.manual_seed(0)
        model = digits.network()
        controller = digits.supernet_of(model, loader)
        keep = lightning.pytorch.callbacks.ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
        trainer = lightning.Trainer(
            max_epochs=3,
            callbacks=[lightning_callback.SupernetCallback(controller), keep],
            accelerator="cpu",
            accumulate_grad_batches=2,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(Classifier(model), loader, loader, ckpt_path=ckpt_path)
        return controller

    controller: bnas.BootstrapNASController = None  # type: ignore[assignment]
    whole = fit().model.state_dict()
    assert controller.scheduler.current_step == 14  # of three epochs of five steps
    assert validated
    assert all(validated)
    resumed = fit(tmp_path / "epoch=0.ckpt").model.state_dict()
    assert controller.scheduler.current_step == 14
    # Lightning writes its checkpoint between two recalibrations, and only their number is another then.
    names = [name for name in whole if not name.endswith("num_batches_tracked")]
    assert all(torch.equal(whole[name], resumed[name]) for name in names)


@pytest.mark.filterwarnings("ignore")  # of transformers and what it imports
@pytest.mark.parametrize("checkpoint", ["checkpoint-8", "checkpoint-12"])  # after an epoch, and in the midst of one
def test_huggingface_evaluates_the_maximum_and_resumes(checkpoint: str, tmp_path: Path) -> None:
    for name in ("transformers", "accelerate"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    from samples.loops import huggingface_callback as sample

    def train(resume: Path | None = None) -> bnas.BootstrapNASController:
        options = {"save_strategy": "steps", "save_steps": 4, "eval_strategy": "steps", "eval_steps": 3}
        controller, trainer = sample.prepared("sandwich", tmp_path, 256, **options)
        evaluated: list[bool] = []
        own_loss = trainer.compute_loss

        def compute_loss(model: torch.nn.Module, *args: object, **kwargs: object) -> object:
            if not model.training:
                evaluated.append(controller.supernet.active == controller.supernet.space.maximum)
            return own_loss(model, *args, **kwargs)

        trainer.compute_loss = compute_loss
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
        assert evaluated
        assert all(evaluated)
        return controller

    whole = train().model.state_dict()
    resumed = train(tmp_path / checkpoint)
    assert resumed.scheduler.current_epoch == 1
    assert resumed.scheduler.current_step == 15
    assert all(torch.equal(value, resumed.model.state_dict()[name]) for name, value in whole.items())


def test_examples_can_be_started_as_programs() -> None:
    for path in (ROOT / "samples" / "loops").glob("*_*.py"):
        if path.name != "__init__.py":
            source = path.read_text(encoding="utf-8")
            assert f"python {path.relative_to(ROOT).as_posix()}" in source
            assert source.endswith('if __name__ == "__main__":\n    main()\n')
