"""What a model costs: operations that can be counted by hand, speeds that leave no trace."""

from __future__ import annotations

import pytest
import torch

from genrep import data
from genrep.evaluation import cost
from genrep.models import build


def test_operations_of_a_product_and_a_convolution():
    a, b = torch.ones(3, 5), torch.ones(5, 7)
    assert cost.operations(lambda: a @ b) == 2 * 3 * 5 * 7
    layer = torch.nn.Conv2d(2, 4, 3, bias=False)
    assert cost.operations(lambda: layer(torch.ones(1, 2, 8, 8))) == 2 * 4 * 2 * 9 * 36
    assert cost.operations(lambda: a + 1) == 0


def test_operations_of_an_example_do_not_depend_on_the_batch():
    digits = data.load("digits")
    model = build("vae", digits.spec, latent=3, width=8)
    one, four = (cost.floating_point_operations(model, digits.train[torch.arange(n)]) for n in (2, 8))
    assert one["sampling"] == four["sampling"] > 0
    assert one["training"] == pytest.approx(four["training"], rel=0.01)
    assert one["training"] > 2 * one["sampling"]  # a forward pass through both nets, and twice that backwards


def test_training_speed_leaves_the_model_as_it_was():
    digits = data.load("digits")
    model = build("vae", digits.spec, latent=3, width=8)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.random.get_rng_state()
    found = cost.training_speed(model, digits.train, repeats=2, seconds=0.05)
    assert found.value > 0
    assert found.protocol["batch"] >= 1
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(p.grad is None for p in model.parameters())


def test_hardware_names_vector_instructions_and_threads(monkeypatch):
    """Two processors of one name differ by them, and with them every time that is measured."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert cost.hardware().endswith(" (AVX2), 1 thread")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert cost.hardware().endswith(" (AVX2), 2 threads")
