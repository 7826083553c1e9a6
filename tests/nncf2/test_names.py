"""NNCF 2.19 names operations as this package thinks it does."""

from __future__ import annotations

import nncf.torch  # noqa: F401 - first
from nncf import NNCFConfig
from nncf.torch.model_creation import create_nncf_network

from tests.elasticity.test_nncf2_names import SPELLED, Spelled


def test_all_names_are_those_of_the_table() -> None:
    network = create_nncf_network(Spelled(), NNCFConfig.from_dict({"input_info": {"sample_size": [1, 3, 8, 8]}}))
    nodes = sorted(network.nncf.get_original_graph().get_all_nodes(), key=lambda node: node.node_id)
    assert [node.node_name for node in nodes if not node.node_name.startswith("/")] == list(SPELLED)
