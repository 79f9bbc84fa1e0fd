"""Classification, counterfactuals, decisions, adaptation and transfer with joint models."""

import numpy as np
import pytest
import torch

import genrep
from genrep import data, storage
from genrep.applications.counterfactuals import counterfactuals, others
from genrep.applications.decisions import decisions
from genrep.applications.splitting import quality_of_splits
from genrep.applications.transfer import denoise_foreign
from genrep.contracts import DataSpec, Inference, Model, Unsupported
from genrep.distributions.subchains import steps_to
from genrep.evaluation.classification import classify, probabilities
from genrep.evaluation.extractors import extractor
from genrep.interface import runs
from genrep.interface.adapt import adapt
from genrep.models import build
from tests.models.test_joint_diffusion import known

QUICK = {"progress": False, "device": "cpu", "precision": "float32", "channels_last": "no", "batch": 32, "samples": 0}
SMALL = {"width": 4, "timesteps": 10, "multipliers": (1, 1), "weight": 1.0}


def plain():
    """Two values, class 1 where the first is large, by a classifier in closed form; nothing is trained."""
    generative = known(1.0)
    return Model(DataSpec((2, 1, 1), classes=2), generative, Inference(label=generative.label))


def images(n, seed, levels=17):
    random = np.random.default_rng(seed)
    return data.from_arrays(random.integers(0, levels, (n, 1, 8, 8)).astype(np.uint8), np.arange(n) % 10,
                            levels=levels, layout="NCHW", name=f"noise {seed}")  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("joint") / "source"
    genrep.fit("joint_diffusion", "digits", steps=4, out=out, options=SMALL, **QUICK)
    return out


def test_accuracy_is_the_share_of_right_answers():
    model, digits = build("joint_diffusion", DataSpec((1, 8, 8), 17, 10), **SMALL), data.load("digits")
    told = classify(model, digits)
    right = (told.probabilities.argmax(1) == digits.test.y).float().mean().item()
    assert told.accuracy.value == pytest.approx(right)
    assert told.accuracy.standard_error == pytest.approx((right * (1 - right) / 360) ** 0.5)
    torch.testing.assert_close(told.probabilities.sum(1), torch.ones(360))
    torch.testing.assert_close(told.probabilities[:5], probabilities(model, digits.test.x[:5]))


def test_counterfactuals_are_led_to_the_other_class():
    """The same noise for every step size: 0 leaves the class to chance, larger ones flip more and more."""
    model, torch_seed = plain(), torch.manual_seed(0)
    assert torch_seed is not None
    x = torch.randn(300, 2, 1, 1)
    y = (x[:, 0, 0, 0] > 0).long()
    found = {s: counterfactuals(model, x, others(y, 2), noise=0.5, scale=s) for s in (0.0, 0.1, 0.5, 2.0)}
    flipped = [f.flipped.float().mean().item() for f in found.values()]
    assert flipped == sorted(flipped)
    assert flipped[-1] > flipped[0] + 0.3
    after = [f.after.gather(1, f.target[:, None]).mean() for f in found.values()]
    assert after == sorted(after)
    torch.testing.assert_close(found[0.0].before, probabilities(model, x))


def test_examples_are_noised_by_the_share_of_the_chain():
    model, x = plain(), torch.full((4000, 2, 1, 1), 0.4)
    found = counterfactuals(model, x, torch.zeros(4000, dtype=torch.int64), noise=0.25, scale=0.0)
    chain = model.generative.diffusion.chain
    expected = chain.alpha[5] * x + chain.sigma[5] * torch.randn_like(x)
    assert found.noised.mean().item() == pytest.approx(expected.clamp(-1, 1).mean().item(), abs=0.02)
    with pytest.raises(ValueError, match=r"noise in \(0, 1\]"):
        counterfactuals(model, x, torch.zeros(4000, dtype=torch.int64), noise=0.0)


def test_decisions_are_those_of_the_classifier_on_the_way():
    """The map that the classifier reads is x_t itself, so its answer at every step is known from the samples."""
    model, y = plain(), torch.tensor([1, 0, 1, 0])
    found = decisions(model, 4, y, scale=1.0, evaluations=10)
    assert found.t.tolist() == pytest.approx([k / 10 for k in range(10, 0, -1)])
    assert found.probabilities.shape == (10, 4, 2)
    torch.testing.assert_close(found.probabilities.sum(2), torch.ones(10, 4))
    assert torch.equal(found.samples, model.sample(4, condition=y, guidance="features", scale=1.0, sampler="ddim",
                                                   evaluations=10, seed=0))  # fmt: skip
    p = {s: decisions(model, 200, 1, scale=s, evaluations=10).target(torch.ones(200).long())[-1].mean() for s in (0, 2)}
    assert p[2] > p[0] + 0.1


def test_adaptation_moves_the_encoder_and_not_the_head_and_reads_no_label(run, tmp_path):
    target, wrong = images(60, 1), images(60, 1)
    wrong.train.y.copy_(wrong.train.y.flip(0))
    one = adapt(run, target, out=tmp_path / "one", steps=4, **QUICK)
    two = adapt(run, wrong, out=tmp_path / "two", steps=4, **QUICK)
    before, a, b = runs.load(run), one.trained.model, two.trained.model
    for name, tensor in storage.state(a).items():
        assert torch.equal(tensor, storage.state(b)[name]), name
        if ".label.head" in name:
            assert torch.equal(tensor, storage.state(before)[name]), name
    assert not torch.equal(a.inference.label.net.stem.weight, before.inference.label.net.stem.weight)
    assert one.before.value == classify(before, target).accuracy.value
    assert one.after.value == classify(a, target).accuracy.value


def test_adaptation_resumes_exactly_and_takes_data_without_labels(run, tmp_path):
    bare = data.from_arrays(images(60, 2).train.x.numpy(), levels=17, layout="NCHW")
    done = adapt(run, bare, out=tmp_path / "parts", steps=3, **QUICK)
    assert done.before is None
    parts = runs.resume(tmp_path / "parts", steps=6, data=bare, samples=0, progress=False)
    whole = adapt(run, bare, out=tmp_path / "whole", steps=6, **QUICK).trained.model
    for name, tensor in storage.state(whole).items():
        assert torch.equal(tensor, storage.state(parts)[name]), name


def test_data_that_do_not_fit_are_refused(run, tmp_path):
    colour = data.from_arrays(np.zeros((40, 3, 8, 8), np.uint8) + np.arange(40, dtype=np.uint8)[:, None, None, None],
                              np.arange(40) % 10, levels=40, layout="NCHW")  # fmt: skip
    for other, message in (
        (colour, r"shape \(1, 8, 8\), arrays has \(3, 8, 8\). Bring them there with shape 1,8,8"),
        (images(40, 0, levels=9), "17 levels"),
        (data.from_arrays(images(40, 3).train.x.numpy(), np.arange(32) % 3, levels=17, layout="NCHW"), "10 classes"),
    ):
        with pytest.raises(ValueError, match=message):
            adapt(run, other, out=tmp_path / "never", steps=1, **QUICK)
        assert not (tmp_path / "never").exists()
    genrep.fit("ddpm", "digits", steps=1, out=tmp_path / "ddpm", options={"width": 4, "multipliers": (1, 1)}, **QUICK)
    with pytest.raises(Unsupported, match="train joint_diffusion"):
        adapt(tmp_path / "ddpm", images(40, 0), out=tmp_path / "never", steps=1, **QUICK)
    with pytest.raises(Unsupported, match="train joint_diffusion"):
        counterfactuals(runs.load(tmp_path / "ddpm"), images(40, 0).test.x, torch.zeros(4).long())


def test_no_labelled_examples():
    with pytest.raises(ValueError, match="No example of the training split of noise 4 has a label"):
        genrep.fit("joint_diffusion", data.unlabelled(images(60, 4)), steps=1, options=SMALL, **QUICK)


def test_denoising_of_foreign_data_takes_one_pass_or_the_steps_of_the_chain():
    spec = DataSpec((1, 8, 8), 17, 10)
    torch.manual_seed(0)
    ddpm, two = build("ddpm", spec, width=4, multipliers=(1, 1)), build("daed", spec, width=4, multipliers=(1, 1))
    one = denoise_foreign(two, data.load("digits"), examples_=20)
    many = denoise_foreign(ddpm, data.load("digits"), 0.02, examples_=20)
    assert one.steps == 1
    assert many.steps == steps_to(ddpm.generative.chain.schedule, 0.02)
    x, back = data.load("digits").test.x[:16].double(), one.denoised.double()
    few = denoise_foreign(two, data.load("digits"), examples_=16)
    assert few.error.value == pytest.approx((2 * (x - back).abs() / 16).mean().item())
    assert torch.equal(one.noised, denoise_foreign(two, data.load("digits"), examples_=20).noised)


def test_quality_of_the_smallest_split_is_that_of_the_whole():
    """The first step alone replaced changes nothing, so neither do its distance, precision and recall."""
    digits = data.load("digits")
    torch.manual_seed(0)
    model = build("ddpm", digits.spec, width=4, multipliers=(1, 1), timesteps=8)
    smallest = -torch.expm1(model.generative.chain.schedule[1]).item()
    features = extractor("pca", digits)
    whole, same, split = quality_of_splits(model, digits, features, [smallest, 0.5], samples=150, examples_=150)
    assert (whole.replaced, same.replaced) == (0, 1)
    assert same.frechet.value == whole.frechet.value
    assert split.frechet.value != whole.frechet.value
    assert split.log_snr < same.log_snr
