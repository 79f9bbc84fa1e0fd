"""The kind `aligned`: encoders learnt from draws, probes on them, and the number that says whether z stays."""

import dataclasses

import pytest
import torch

from genrep.continual import loop
from genrep.continual.readout import readout
from genrep.continual.strategies import build
from genrep.interface.experiments import aligned
from tests.continual.known import image_stream
from tests.continual.test_multiband import SMALL, STEPS, STREAM, setting

SAID = {
    "data": "digits",
    "stream": {"stream": "class", "tasks": 2},
    "model": {"model": "vae", "latent": 3, "width": 16, "network": "dense"},
    "labels": [20, 5],
    "strategies": ["finetune", {"strategy": "multiband", "model": {"model": "multiband_vae", **SMALL}, "draws": 64}],
}
HOW = {"steps": 12, "readout_steps": 20, "examples": 60, "settings": {"batch": 16}}


def test_rows_and_resume(tmp_path):
    found = aligned.run(SAID, HOW, seed=0, folder=tmp_path, progress=False)
    assert found["columns"] == [
        "strategy",
        "accuracy, 20 labels a class",
        "accuracy, 5 labels a class",
        "stays",
        "kept, MiB",
    ]
    assert [row[0] for row in found["rows"]] == ["finetune", "multiband"]
    for row in found["rows"]:
        assert 0.1 < float(row[1].split()[0]) <= 1
        assert 0 < float(row[3]) < 2
    assert aligned.run(SAID, HOW, seed=0, folder=tmp_path, progress=False) == found


def test_an_encoder_that_does_not_change_stays(tmp_path):
    reader = aligned._Reader(image_stream(2).tasks, [10], {"examples": 50}, 0)
    same = lambda x: x.flatten(1).float()  # noqa: E731
    reader._encoder = lambda strategy, tasks: same
    for task in range(2):
        reader.add(build("finetune", setting()), task)
    assert reader.summary()["stays"] == pytest.approx(1)
    reader.last = lambda x: torch.randn(len(x), 64, generator=torch.Generator().manual_seed(0))
    assert reader.summary()["stays"] < 0.8


def test_the_readout_inverts_the_decoder_where_bands_draw():
    strategy = build("multiband", setting(), draws=64)
    for t in range(2):
        loop.learn(strategy, t, STREAM.tasks[t].train, dataclasses.replace(STEPS, steps=100, lr=5e-3))
    model = readout(strategy, 2, draws=256, steps=300, width=64)
    with torch.no_grad():
        z = torch.cat([strategy.latents(t, 100) for t in range(2)])
        x = model.generative.likelihood(z).mean
        again = model.inference.latent(x).mean
    error = (again - z).square().mean() / z.var(0).mean()
    assert error < 0.5, "better than the mean of z by far"
    assert torch.equal(
        model.generative.likelihood.decoder.layers[0].weight,
        strategy.bands.generative.likelihood.net.decoder.layers[0].weight,
    )
    assert model.reconstruct(STREAM.tasks[0].train.x[:3]).shape == (3, 1, 8, 8)
