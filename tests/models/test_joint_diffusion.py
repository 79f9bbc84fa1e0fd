"""The joint diffusion model: features, objective, gathered labels, and samples steered towards a class."""

import inspect

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from genrep import data
from genrep.contracts import Batch, DataSpec
from genrep.distributions.diffusion import Denoiser, Diffusion
from genrep.distributions.joint import ClassifierGuided, FeatureGuided, JointDiffusion, JointLabel
from genrep.distributions.processes import VariancePreserving
from genrep.distributions.schedules import Chain, cosine
from genrep.models import build
from genrep.nets.unet import Encoded, UNet
from genrep.objectives.joint import Labelled

DIGITS = DataSpec((1, 8, 8), levels=17, classes=3)
SMALL = {"width": 8, "timesteps": 10}


def batch(n=6, y=None):
    torch.manual_seed(0)
    x = torch.randint(0, 17, (n, 1, 8, 8), dtype=torch.uint8)
    return Batch(x, torch.arange(n) % 3 if y is None else torch.tensor(y))


@pytest.mark.parametrize(
    ("shape", "multipliers", "width", "features"),
    [
        ((1, 28, 28), (1, 2, 2), 64, 1344),
        ((3, 32, 32), (1, 2, 2, 2), 128, 3712),
        ((3, 64, 64), (1, 2, 3, 4), 128, 5248),
    ],
)
def test_as_many_features_as_published_sizes_give(shape, multipliers, width, features):
    with torch.device("meta"):
        net = UNet(shape, shape[0], width=width, multipliers=multipliers, blocks=3)
        found = net.features(torch.zeros(1, *shape), torch.zeros(1))
    assert sum(layer.shape[1] for layer in found.values()) == features


def test_the_classifier_reads_the_mean_of_every_map_of_the_encoder():
    model, x = build("joint_diffusion", DIGITS, **SMALL), torch.randn(4, 1, 8, 8)
    net, head = model.inference.label.net, model.inference.label.head
    encoded = net.encode(x, torch.zeros(4))
    maps = [h for level in encoded.skips for h in level] + [encoded.middle]
    expected = head(torch.cat([h.mean((2, 3)) for h in maps], 1)).log_softmax(1)
    torch.testing.assert_close(model.inference.label(x).logits, expected)
    assert model.inference.label.net is model.generative.diffusion.denoiser.net


def test_the_loss_is_the_diffusions_plus_the_weighted_cross_entropy():
    """w (L_class at x_0 + L_class at the x_t of the diffusion) + L_diffusion, all to be minimised."""
    model, xy = build("joint_diffusion", DIGITS, weight=0.3, **SMALL), batch()
    model.eval()
    torch.manual_seed(4)
    terms = model(xy)
    torch.manual_seed(4)
    objective, plain, x = model.objectives[0], model.generative.diffusion, model.domain.inward(xy.x)
    drawn = objective.denoising.draw(plain, x)
    expected = objective.denoising.losses(plain, x, drawn, plain.denoiser(drawn.x, drawn.t))["simple"].mean()
    for logits in (model.inference.label(x).logits, model.inference.label(drawn.x, drawn.t).logits):
        expected = expected - 0.3 * logits.gather(1, xy.y[:, None]).mean()
    torch.testing.assert_close(objective.total(terms), expected)


def test_noisy_classifiers_come_in_addition():
    assert build("joint_diffusion", DIGITS, noisy=True).objectives[0].weights == {
        "simple": 1.0, "cross_entropy": 0.001, "error_rate": 0.0, "noisy_cross_entropy": 0.001,
    }  # fmt: skip
    assert "noisy_cross_entropy" not in build("joint_diffusion", DIGITS, noisy=False).objectives[0].weights


# ---- labels for some -----------------------------------------------------------------------------------------------


def test_labelled_examples_are_used_once_each_and_in_order():
    gather, used, given = Labelled(4, (1,)), [], []
    torch.manual_seed(0)
    for k in range(40):
        y = torch.where(torch.rand(6) < 0.3, torch.arange(6) + 6 * k, -1)
        found = gather(y[:, None].float(), y)
        given += y[y >= 0].tolist()
        if found is not None:
            assert len(found[1]) % 4 == 0
            assert torch.equal(found[0][:, 0].long(), found[1])
            used += found[1].tolist()
    waiting = int(gather.count)
    assert used == given[: len(used)]
    assert used + gather.y[:waiting].tolist() == given
    assert waiting < 4


def test_the_classifier_learns_when_enough_labels_have_come_together():
    model = build("joint_diffusion", DIGITS, gather=4, **SMALL)
    two = batch(4, [1, -1, -1, 0])
    steps = ["cross_entropy" in model(two) for _ in range(6)]
    assert steps == [False, True] * 3
    model.eval()
    assert len(model(two)["cross_entropy"]) == 2
    assert int(model.objectives[0].gather.count) == 0, "evaluation wrote into the buffer"


def test_an_unlabelled_batch_leaves_the_classifier_as_it_is():
    """Its weights get no gradient, and batch normalisation counts nothing."""
    model = build("joint_diffusion", DIGITS, head_norm=True, **SMALL)
    head = model.inference.label.head
    before = {k: v.clone() for k, v in head.state_dict().items()}
    model.objectives[0].total(model(batch(4, [-1] * 4))).backward()
    assert all(torch.equal(v, before[k]) for k, v in head.state_dict().items())
    assert all(p.grad is None for p in head.parameters())
    assert any(p.grad is not None and p.grad.any() for p in model.inference.label.net.parameters())
    model(batch(4))
    assert not torch.equal(head[1].running_mean, before["1.running_mean"])


def test_without_weight_the_classifier_is_not_trained():
    model = build("joint_diffusion", DIGITS, weight=0.0, **SMALL)
    assert list(model(batch())) == ["simple"]
    assert not any("head" in name and "label" in name for name in model.learnable(0, "model"))


def test_without_the_diffusion_it_is_a_plain_classifier():
    model = build("joint_diffusion", DIGITS, diffusion=0.0, noisy=False, **SMALL)
    terms = model(batch())
    assert list(terms) == ["cross_entropy", "error_rate"]
    model.objectives[0].total(terms).backward()
    learnt = {id(p) for p in model.learnable(0, "model").values()}
    net = model.inference.label.net
    assert learnt.isdisjoint(id(p) for p in net.decoder.parameters())
    assert {id(p) for p in net.encoder.parameters()} <= learnt


# ---- steered samples -----------------------------------------------------------------------------------------------


class Plain(nn.Module):
    """An encoder that keeps x as its only map, and a decoder that takes it for x_0."""

    def encode(self, x, t, c=None):
        return Encoded([[x]], torch.zeros_like(x), torch.zeros(len(x), 1))

    def decode(self, encoded):
        return encoded.skips[0][0]

    def forward(self, x, t, c=None):
        return self.decode(self.encode(x, t, c))


def known(weight=2.0):
    """Two values, two classes: class 1 where the first is large, logit `weight` times its mean."""
    chain, head = Chain(cosine(20)), nn.Linear(4, 2, bias=False)
    head.weight.data = torch.tensor([[0.0, 0.0, 0.0, 0.0], [weight, 0.0, 0.0, 0.0]])
    denoiser = Denoiser(Plain(), VariancePreserving(chain), "x0", "posterior")
    return JointDiffusion(Diffusion(denoiser, chain, (2, 1, 1)), JointLabel(Plain(), head))


def test_moved_features_follow_the_gradient_of_the_log_probability():
    """d/dh log p(1 | h) = weight (1 - p(1 | h)) on the map that the head reads: known in closed form."""
    generative = known()
    x, y = torch.randn(5, 2, 1, 1), torch.tensor([1, 1, 0, -1, 1])
    guided = FeatureGuided(generative.diffusion.denoiser, generative.label, 0.7)
    moved = guided(x, torch.full((5,), 0.5), y=y).mean
    p = (2 * x[:, 0, 0, 0]).sigmoid()
    slope = torch.where(y == 1, 2 * (1 - p), torch.where(y == 0, -2 * p, 0.0))
    torch.testing.assert_close(moved[:, 0, 0, 0], x[:, 0, 0, 0] + 0.7 * slope)
    assert torch.equal(moved[:, 1], x[:, 1])


def test_classifier_guidance_adds_the_gradient_to_the_score():
    """score(x_t) = (a x_0 - x_t) / s^2 grows by scale grad log p(y | x_t)."""
    generative, t = known(), torch.full((5,), 0.4)
    denoiser, x, y = generative.diffusion.denoiser, torch.randn(5, 2, 1, 1), torch.tensor([1, 0, 1, -1, 0])
    guided = ClassifierGuided(denoiser, generative.label, 1.5)(x, t, y=y).mean
    alpha, sigma = denoiser.process.scales(t, x)
    score = lambda start: (alpha * start - x) / sigma.square()  # noqa: E731
    p = (2 * x[:, 0, 0, 0]).sigmoid()
    slope = torch.where(y == 1, 2 * (1 - p), torch.where(y == 0, -2 * p, 0.0))
    gained = score(guided) - score(denoiser(x, t).mean)
    torch.testing.assert_close(gained[:, 0, 0, 0], 1.5 * slope)
    torch.testing.assert_close(gained[:, 1], torch.zeros(5, 1, 1))


@pytest.mark.parametrize("guidance", ["features", "classifier"])
def test_the_targets_probability_rises_with_the_step_size(guidance):
    """Samples of the whole chain, the same noise for every step size; at 0 they are the plain ones."""
    generative, found = known(0.5), []
    y = torch.ones(200, dtype=torch.int64)
    for scale in (0.0, 0.05, 0.2, 1.0):
        torch.manual_seed(0)
        x = generative(y=y, guidance=guidance, scale=scale, sampler="ddim", evaluations=20).sample()
        found.append(generative.label(x).probs[:, 1].mean())
        if scale == 0:
            torch.manual_seed(0)
            torch.testing.assert_close(x, generative(sampler="ddim", evaluations=20).sample((200,)))
    assert found == sorted(found)
    assert found[-1] > found[0] + 0.05


@pytest.mark.slow
def test_a_trained_model_draws_the_class_it_is_led_to():
    """Digits: the probability that a classifier trained apart gives to the target rises with the step size."""
    import genrep

    how = {"progress": False, "device": "cpu", "precision": "float32", "channels_last": "no", "batch": 64}
    model = genrep.fit("joint_diffusion", "digits", steps=600, options={"width": 16, "weight": 1.0}, **how)
    digits = data.load("digits")
    judge = LogisticRegression(max_iter=300).fit(digits.train.x.flatten(1).numpy() / 16, digits.train.y.numpy())
    assert judge.score(digits.test.x.flatten(1).numpy() / 16, digits.test.y.numpy()) > 0.9
    y = torch.arange(60) % 10
    expected = {"features": ((0.0, 150.0, 800.0), 0.06), "classifier": ((0.0, 1.0, 4.0), 0.4)}
    for guidance, (scales, gain) in expected.items():
        found = []
        for scale in scales:
            x = model.sample(60, condition=y, guidance=guidance, scale=scale, sampler="ddim", evaluations=10, seed=0)
            p = judge.predict_proba(x.flatten(1).numpy() / 16)
            found.append(p[torch.arange(60), y].mean())
        assert found == sorted(found), (guidance, found)
        assert found[-1] > found[0] + gain, (guidance, found)


def test_guidance_by_features_costs_one_evaluation_a_step():
    model = build("joint_diffusion", DIGITS, **SMALL).eval()
    net, calls = model.inference.label.net, []
    net.stem.register_forward_hook(lambda *_: calls.append("encode"))
    net.head.register_forward_hook(lambda *_: calls.append("decode"))
    model.sample(4, condition=1, guidance="features", sampler="ddim", evaluations=5)
    assert calls == ["encode", "decode"] * 5
    assert model.generative.evaluations(sampler="ddim", evaluations=5, guidance="features") == 5


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"guidance": "features"}, "guidance=features needs a condition"),
        ({"condition": 1}, "its classifier can steer samples"),
        ({"condition": 3, "guidance": "features"}, r"labels in 0\.\.2"),
        ({"condition": 1, "guidance": "feature"}, "Did you mean 'features'"),
        ({"condition": 1, "guidance": "features", "scale": -1.0}, "scale >= 0"),
    ],
)
def test_guidance_that_makes_no_sense_is_refused(how, message):
    with pytest.raises(ValueError, match=message):
        build("joint_diffusion", DIGITS, **SMALL).sample(2, **how)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": -1.0}, "weights >= 0"),
        ({"weight": 0.0, "diffusion": 0.0}, "one of them above 0"),
        ({"gather": 0}, "gather >= 1"),
        ({"head_dropout": 1.0}, "head_dropout < 1"),
        ({"multipliers": (1, 1, 1, 1)}, "can be halved 2 times at most"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build("joint_diffusion", DIGITS, **options)


def test_sampling_options_are_those_of_the_command_line():
    options = inspect.signature(JointDiffusion.forward).parameters
    assert {"sampler", "evaluations", "guidance", "scale"} <= options.keys()
