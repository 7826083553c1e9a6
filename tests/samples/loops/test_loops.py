"""The loops of one's own: each example runs and trains, the smallest subnet too."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

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


def test_examples_can_be_started_as_programs() -> None:
    for path in (ROOT / "samples" / "loops").glob("*_*.py"):
        if path.name != "__init__.py":
            source = path.read_text(encoding="utf-8")
            assert f"python {path.relative_to(ROOT).as_posix()}" in source
            assert source.endswith('if __name__ == "__main__":\n    main()\n')
