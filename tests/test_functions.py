"""Stand-ins compute exactly what the functions of PyTorch compute."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bootstrapnas_ext._nncf import original_forward
from bootstrapnas_ext.errors import ModelError
from bootstrapnas_ext.extraction import extract
from bootstrapnas_ext.functions import multi_head_attention_forward
from bootstrapnas_ext.inputs import ExampleInput
from bootstrapnas_ext.supernet import Supernet

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "batch first": ({"batch_first": True}, {}),
    "without bias": ({"bias": False}, {"need_weights": False}),
    "fused": ({}, {"need_weights": False}),
    "weights of each head": ({}, {"average_attn_weights": False}),
    "other keys": ({"kdim": 6, "vdim": 10}, {}),
    "added keys": ({"add_bias_kv": True, "add_zero_attn": True}, {}),
    "added keys and masks": ({"add_bias_kv": True, "add_zero_attn": True}, {"attn_mask": 2, "key_padding_mask": True}),
    "mask": ({}, {"attn_mask": 2}),
    "mask for each head": ({}, {"attn_mask": 3, "need_weights": False}),
    "numbers as mask": ({}, {"attn_mask": 0}),
    "padding": ({}, {"key_padding_mask": True}),
    "padding, fused": ({}, {"key_padding_mask": True, "attn_mask": 2, "need_weights": False}),
    "causal": ({}, {"attn_mask": 2, "is_causal": True, "need_weights": False}),
}


def masks(options: dict[str, Any], length: int, batch: int, heads: int) -> dict[str, Any]:
    options = dict(options)
    if "attn_mask" in options:
        causal = torch.ones(length, length, dtype=torch.bool).triu(1)
        kinds = {0: torch.rand(length, length), 2: causal, 3: causal.expand(batch * heads, length, length)}
        options["attn_mask"] = kinds[options["attn_mask"]]
    if options.get("key_padding_mask"):
        options["key_padding_mask"] = torch.arange(length).expand(batch, length) >= length - 1
    return options


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("same", [True, False])
def test_attention(name: str, same: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, options = CASES[name]
    torch.manual_seed(0)
    module = nn.MultiheadAttention(8, 2, **settings).train()  # the mode that has no other fast path
    first = settings.get("batch_first", False)
    widths = (8, settings.get("kdim", 8), settings.get("vdim", 8))
    q, k, v = (torch.randn((3, 5, width) if first else (5, 3, width)) for width in widths)
    inputs = (q, q, q) if same and widths == (8, 8, 8) else (q, k, v)
    options = masks(options, 5, 3, 2)
    expected = module(*inputs, **options)
    monkeypatch.setattr(F, "multi_head_attention_forward", multi_head_attention_forward)
    found = module(*inputs, **options)
    for one, two in zip(expected, found, strict=True):
        assert (one is None) == (two is None)
        assert one is None or torch.allclose(one, two, rtol=1e-5, atol=1e-6)


def test_attention_without_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = nn.MultiheadAttention(8, 2), torch.randn(5, 8)
    padding = torch.arange(5) > 3
    expected = module(x, x, x, key_padding_mask=padding)
    monkeypatch.setattr(F, "multi_head_attention_forward", multi_head_attention_forward)
    for one, two in zip(expected, module(x, x, x, key_padding_mask=padding), strict=True):
        assert torch.allclose(one, two, rtol=1e-5, atol=1e-6)


def test_fewer_heads_than_the_embedding_is_wide() -> None:
    q, weight, out = torch.randn(5, 3, 6), torch.randn(12, 6), torch.randn(7, 4)
    found, _ = multi_head_attention_forward(q, q, q, 8, 2, weight, None, None, None, False, 0.0, out, None)
    assert found.shape == (5, 3, 7)  # one head of four channels, of an embedding of six


def test_given_keys_are_refused() -> None:
    x: Tensor = torch.randn(5, 3, 8)
    with pytest.raises(ModelError, match="`static_k` or `static_v`"):
        multi_head_attention_forward(
            x, x, x, 8, 2, None, None, None, None, False, 0.0, x, None, static_k=torch.randn(6, 5, 4)
        )


def encoder_layer() -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)


class CallsTheFunction(nn.Module):
    """Calls the function of attention itself."""

    def __init__(self) -> None:
        super().__init__()
        self.project, self.out, self.head = nn.Linear(16, 48), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(0, 1)
        weights = (self.project.weight, self.project.bias, None, None, False, 0.0, self.out.weight, self.out.bias)
        y, _ = F.multi_head_attention_forward(x, x, x, 16, 4, *weights, training=self.training)
        return self.head(y.mean(0))


@pytest.mark.parametrize(
    ("model", "adapted"),
    [
        (nn.TransformerEncoder(encoder_layer(), 2), {""}),
        (nn.Sequential(nn.Linear(16, 16), nn.TransformerEncoder(encoder_layer(), 2), nn.Linear(16, 3)), {"1"}),
        (nn.Sequential(nn.Linear(16, 16), nn.Sequential(encoder_layer(), encoder_layer())), {"1.0", "1.1"}),
        (CallsTheFunction(), {""}),
    ],
)
def test_modules_of_pytorch_run_with_stand_ins_and_without_short_cuts(model: nn.Module, adapted: set[str]) -> None:
    torch.manual_seed(0)
    model.eval()
    supernet = Supernet(model, torch.randn(2, 5, 16))
    assert supernet.executor.code_hooks == {}
    assert supernet.executor._adapted == adapted
    x = torch.randn(3, 7, 16)
    with torch.no_grad(), supernet.activate({**supernet.space.maximum, **heads_only(supernet)}):
        assert any(value < supernet.space.maximum[name] for name, value in supernet.active.items())
        active = model(x)
        observed = supernet.executor.run(original_forward(model), supernet.active, ExampleInput((x,)), lambda *_: None)
        torch.testing.assert_close(active, observed)  # under NNCF's mode everywhere, as while it is traced
    with torch.no_grad(), supernet.activate(supernet.space.minimum):
        fitting = torch.randn(3, 5, 16)
        torch.testing.assert_close(extract(supernet, supernet.active)(fitting), model(fitting))


def heads_only(supernet: Supernet) -> dict[str, int]:
    return {
        choice.name: 1 for choice in supernet.space.choices if choice.dimension == "width" and choice.values[0] == 4
    }
