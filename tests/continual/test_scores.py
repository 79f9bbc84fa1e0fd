"""Scores on all tasks seen, and what the matrices say."""

import numpy as np
import pytest
import torch
from scipy import stats

from genrep.continual import pictures
from genrep.continual.scores import (
    Protocol,
    applicable,
    backward_transfer,
    final,
    forgetting,
    forward_transfer,
    gain_over_alone,
    over_seeds,
    score,
    summary,
)
from genrep.continual.strategies import build
from genrep.continual.strategy import Setting
from genrep.contracts import Unsupported
from genrep.data.streams import by_task
from genrep.evaluation.extractors import extractor
from tests.continual.known import image_stream, splits, vae

ACCURACY = [[0.9], [0.6, 0.8], [0.7, 0.5, 0.9]]
DISTANCE = [[10.0], [30.0, 12.0], [20.0, 11.0, 9.0]]


def test_matrices_by_hand():
    assert final(ACCURACY) == pytest.approx(0.7)
    assert forgetting(ACCURACY, lower_is_better=False) == pytest.approx((0.2 + 0.3) / 2)
    assert backward_transfer(ACCURACY, lower_is_better=False) == pytest.approx((-0.2 - 0.3) / 2)
    assert forgetting(DISTANCE, lower_is_better=True) == pytest.approx((10 - 1) / 2)
    assert backward_transfer(DISTANCE, lower_is_better=True) == pytest.approx((-10 + 1) / 2)
    assert gain_over_alone(DISTANCE, [10, 15, 10], lower_is_better=True) == pytest.approx((3 + 1) / 2)
    assert gain_over_alone(ACCURACY, [0.9, 0.9, 0.9], lower_is_better=False) == pytest.approx(-0.05)
    assert summary([[3.0]], "frechet") == {"final": 3.0, "forgetting": 0.0, "backward_transfer": 0.0}
    with pytest.raises(ValueError, match="a score alone"):
        gain_over_alone(DISTANCE, [1.0], lower_is_better=True)


def test_forward_transfer_by_hand():
    before, fresh = [40.0, 25.0], [50.0, 45.0]
    assert forward_transfer(before, fresh, lower_is_better=True) == 15.0
    assert forward_transfer(before, fresh, lower_is_better=False) == -15.0
    assert summary(DISTANCE, "frechet", before, fresh)["forward_transfer"] == 15.0
    assert "forward_transfer" not in summary(DISTANCE, "frechet")


def test_intervals_over_seeds_are_students():
    found = over_seeds([{"final": v} for v in (1.0, 2.0, 4.0)])["final"]
    low, high = stats.t.interval(0.95, 2, *(f([1.0, 2.0, 4.0]) for f in (np.mean, stats.sem)))
    assert found.value == pytest.approx(7 / 3)
    assert found.interval[:2] == pytest.approx((low, high))
    assert over_seeds([{"final": 3.0}])["final"].asdict()["interval"]["low"] is None


def test_scores_of_a_model_that_is_told_the_task(tmp_path, monkeypatch):
    """The perfect model of one task scores near zero there and badly on the other."""
    monkeypatch.setenv("GENREP_CACHE", str(tmp_path))
    stream = by_task(image_stream())
    torch.manual_seed(0)
    from genrep.models import build as build_model

    model = build_model("vae", stream.spec, latent=3, width=8, network="dense", conditional=True)
    strategy = build("finetune", Setting(lambda: model, stream.spec, (120, 120)))
    model.sample = lambda n, *, condition, **how: stream.tasks[0].train.x[torch.arange(n) % 120]
    each, seen = score(strategy, stream.tasks, Protocol(extractor("pca:4", splits()), samples=120))
    assert each[0].keys() == {"frechet", "precision", "recall", "bits"}
    assert abs(each[0]["frechet"].value) < 0.1 * each[1]["frechet"].value
    assert each[0]["precision"].value > 0.7 > 0.1 > each[1]["precision"].value
    assert seen["precision"].value > 0.7, "all samples are from the data"
    assert seen["recall"].value == pytest.approx(each[0]["recall"].value / 2, abs=0.15), "half of the data is missing"
    assert seen["bits"] == pytest.approx((each[0]["bits"].value + each[1]["bits"].value) / 2)


def test_metrics_need_capabilities():
    assert applicable(vae()) == ("frechet", "precision", "recall", "bits")
    with pytest.raises(Unsupported, match="cannot classify"):
        applicable(vae(), ["accuracy"])
    with pytest.raises(ValueError, match="Did you mean 'frechet'"):
        applicable(vae(), ["freche"])


def test_pictures_are_drawn(tmp_path):
    stream = image_stream()
    pictures.masses(stream, tmp_path / "masses.png")
    pictures.heat_map(DISTANCE, "frechet", tmp_path / "matrix.png")
    strategy = build("finetune", Setting(vae, stream.spec, (120, 120)))
    pictures.samples(strategy, stream.tasks, tmp_path / "samples.png")
    assert all((tmp_path / f"{name}.png").read_bytes()[:4] == b"\x89PNG" for name in ("masses", "matrix", "samples"))
