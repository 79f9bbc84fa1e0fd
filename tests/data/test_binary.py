"""Binary images: probabilities are the grey values, what is measured never moves, training is drawn anew."""

import numpy as np
import pytest
import torch

from genrep import models, storage
from genrep.contracts import DataSpec
from genrep.data.batches import InMemory
from genrep.data.binary import Redrawn, bernoulli
from genrep.data.splits import Splits
from genrep.training.loop import fit
from genrep.training.settings import Settings
from genrep.training.trainer import Mode, Trainer

GREY = DataSpec((1, 4, 4), 256, 2)


@pytest.fixture(scope="module")
def grey():
    x = torch.randint(0, 256, (60, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    y = torch.arange(60) % 2
    part = InMemory(x, y, GREY)
    return Splits("grey", part, InMemory(x[:20], y[:20], GREY), InMemory(x[:30], y[:30], GREY), {"inferred": []})


def test_what_is_measured_is_drawn_once_from_the_published_seed(grey):
    one, two = bernoulli(grey), bernoulli(grey)
    for split in ("train", "validation", "test"):
        assert torch.equal(getattr(one, split).x, getattr(two, split).x)
        assert getattr(one, split).x.unique().tolist() == [0, 1]
        assert torch.equal(getattr(one, split).y, getattr(grey, split).y)
    expected = np.random.RandomState(0).randint(0, 255, (30, 1, 4, 4), np.uint8) < grey.test.x.numpy()
    assert np.array_equal(one.test.x.numpy(), expected)
    assert one.spec == GREY._replace(levels=2)
    torch.manual_seed(1)
    index = torch.tensor([3, 3, 5])
    assert torch.equal(one.train[index].x, one.train.x[index]), "outside updates nothing is drawn"


def test_a_pixel_is_one_with_the_probability_that_its_grey_value_says():
    values = torch.tensor([0, 1, 64, 128, 254, 255], dtype=torch.uint8)
    grey = values.expand(20_000, 1, 1, 6).contiguous()
    spec = DataSpec((1, 1, 6), 2)
    torch.manual_seed(0)
    share = Redrawn(torch.zeros_like(grey), None, spec, grey).draw(torch.arange(20_000)).x.double().mean((0, 1, 2))
    p = values.double() / 255
    assert ((share - p).abs() <= 4 * (p * (1 - p) / 20_000).sqrt()).all(), "exact at the ends, 4 errors between"


def settings(steps):
    return Settings(steps=steps, batch=16, device="cpu", checkpoint_seconds=1e9, seed=3)


def model():
    torch.manual_seed(0)
    return models.build("vae", GREY._replace(levels=2), network="dense", width=8, depth=1, latent=2)


def test_training_images_are_new_in_every_update_and_the_same_in_every_run(grey):
    seen = []
    for _ in range(2):
        data, drawn = bernoulli(grey).train, []
        original = data.draw

        def draw(index, original=original, drawn=drawn):
            batch = original(index)
            drawn.append((index, batch.x))
            return batch

        data.draw = draw
        torch.manual_seed(len(seen))  # whatever was drawn before does not matter
        trainer = Trainer(model(), data, settings(8).resolved(model(), 60), Mode())
        for _ in range(8):
            trainer.update()
        seen.append(drawn)
    for (i, a), (j, b) in zip(*seen, strict=True):
        assert torch.equal(i, j)
        assert torch.equal(a, b)
    first, again = seen[0][0], seen[0][4]  # 60 examples in batches of 16: most come back within 8 updates
    shared = sorted(set(first[0].tolist()) & set(again[0].tolist()))
    assert shared
    rows = [[batch[0].tolist().index(i) for i in shared] for batch in (first, again)]
    assert not torch.equal(first[1][rows[0]], again[1][rows[1]])


def test_resume_is_exact(grey, tmp_path):
    whole = model()
    fit(whole, bernoulli(grey).train, settings(9), folder=tmp_path / "a", mode=Mode())
    fit(model(), bernoulli(grey).train, settings(4), folder=tmp_path / "b", mode=Mode())
    second = model()
    fit(second, bernoulli(grey).train, settings(9), folder=tmp_path / "b", mode=Mode(), resume=True)
    for (name, a), b in zip(storage.state(whole).items(), storage.state(second).values(), strict=True):
        assert torch.equal(a, b), name
