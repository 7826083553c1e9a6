"""The package's block, at the top level or among the compression algorithms, says the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bootstrapnas_ext.config import BootstrapNASConfig, NNCFConfig, input_infos
from bootstrapnas_ext.errors import ConfigError

BLOCK = {"search": {"population": 20}}
OWN = {"algorithm": "bootstrapNAS", **BLOCK}
OTHER = {"algorithm": "quantization"}


@pytest.mark.parametrize(
    ("compression", "rest"), [(OWN, {}), ([OWN], {}), ([OTHER, OWN], {"compression": [OTHER]}), ((OWN,), {})]
)
def test_a_block_among_algorithms_is_one_at_the_top(compression: Any, rest: dict[str, Any], tmp_path: Path) -> None:
    given = {"my": 1, "input_info": {"sample_size": [1, 3]}, "compression": compression}
    expected = {"my": 1, "input_info": {"sample_size": [1, 3]}, "bootstrapNAS": BLOCK, **rest}
    assert NNCFConfig.from_dict(given) == expected
    assert BootstrapNASConfig.from_nncf(given) == BootstrapNASConfig.from_nncf(expected)
    assert input_infos(given)[0].sample_size == (1, 3)
    (tmp_path / "config.json").write_text(json.dumps(given), encoding="utf-8")
    assert NNCFConfig.from_json(tmp_path / "config.json") == expected


@pytest.mark.parametrize("compression", [OTHER, [OTHER], [], {}, [3], "bootstrapNAS", None])
def test_other_algorithms_stay(compression: Any) -> None:
    given = {"bootstrapNAS": BLOCK, "compression": compression}
    assert NNCFConfig.from_dict(given) == given


@pytest.mark.parametrize(
    ("given", "places"),
    [
        ({"bootstrapNAS": {}, "compression": OWN}, r"\$\.bootstrapNAS and \$\.compression"),
        ({"compression": [OWN, OTHER, OWN]}, r"\$\.compression\[0\] and \$\.compression\[2\]"),
    ],
)
def test_two_blocks_are_an_error(given: dict[str, Any], places: str) -> None:
    with pytest.raises(ConfigError, match=rf"one block for the algorithm 'bootstrapNAS', but got {places}; keep one"):
        NNCFConfig.from_dict(given)


@pytest.mark.parametrize(("wrap", "place"), [(lambda own: own, ""), (lambda own: [OTHER, own], r"\[1\]")])
def test_what_is_wrong_or_old_is_told_where_it_stands(wrap: Any, place: str) -> None:
    with pytest.raises(ConfigError, match=rf"^\$\.compression{place}\.trainig: unknown key, .* mean 'training'"):
        NNCFConfig.from_dict({"compression": wrap({**OWN, "trainig": {}})})
    with pytest.raises(ConfigError, match=rf"^\$\.compression{place}\.search\.population: must be an integer >= 2"):
        NNCFConfig.from_dict({"compression": wrap({**OWN, "search": {"population": 0}})})
    with pytest.warns(UserWarning, match=rf"^\$\.compression{place}\.search\.ref_acc: was -1") as caught:
        config = NNCFConfig.from_dict({"compression": wrap({**OWN, "search": {"ref_acc": -1}})})
    assert len(caught) == 1
    assert config["bootstrapNAS"] == {"search": {}}
