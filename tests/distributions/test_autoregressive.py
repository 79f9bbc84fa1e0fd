"""Every network that obeys the chain rule: masses sum to one, causality is complete, caches change nothing."""

import math

import pytest
import torch
from scipy.stats import chisquare

from genrep.contracts import DataSpec
from genrep.distributions.autoregressive import Autoregressive, outputs_of
from genrep.distributions.domains import Levels
from genrep.nets.causal_attention import PixelTransformer
from genrep.nets.chain import Pixelwise, as_example, in_order
from genrep.nets.made import MADE
from genrep.nets.masked import GatedNetwork, PlainNetwork
from genrep.nets.multiscale import MultiscaleNetwork
from genrep.nets.pixel_lstm import RecurrentNetwork


def loud(module, scale=1.0):
    """Weights far from their start, so that every connection matters."""
    torch.manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            p.normal_(std=scale / math.sqrt(max(1, p[0].numel()) if p.ndim > 1 else 1))
    return module


def pixelwise(net):
    def make(shape, levels, outputs, condition, depth):
        image = shape if len(shape) == 3 else (1, 1, *shape)
        return Pixelwise(shape, net(image, levels, condition, depth), 8, outputs)

    return make


def attention(name):
    return pixelwise(
        lambda image, levels, condition, depth: PixelTransformer(image, levels, 8, depth, 2, name, condition)
    )


def made(*, categories):
    return lambda shape, levels, outputs, condition, depth: MADE(
        shape, levels, 3 * math.prod(shape), depth, outputs, condition, categories=categories
    )


CHAINS = {
    "gated": pixelwise(lambda image, levels, condition, depth: GatedNetwork(image[0], 8, depth, 3, condition)),
    "plain": pixelwise(lambda image, levels, condition, depth: PlainNetwork(image[0], 8, depth, 3, condition)),
    "multiscale": pixelwise(
        lambda image, levels, condition, depth: MultiscaleNetwork(image[0], 8, 1, 3, condition, halvings=2)
    ),
    "made, categories": made(categories=True),
    "made, numbers": made(categories=False),
    "full attention": attention("full"),
    "local attention": attention("local"),
    "strided attention": attention("strided"),
}
for kind in ("row", "diagonal"):
    CHAINS[f"{kind} LSTM"] = pixelwise(
        lambda image, levels, condition, depth, kind=kind: RecurrentNetwork(image[0], 8, depth, kind, condition, stem=3)
    )
chains = pytest.mark.parametrize("name", CHAINS)


def part(name, shape, levels, output="categorical", condition=0, depth=3, scale=2.0):
    data = DataSpec(shape, levels=levels, classes=condition)
    chain = CHAINS[name](shape, levels, outputs_of(data, output, 3), condition, depth)
    return loud(Autoregressive(data, chain, output, condition).double(), scale)


def all_examples(shape, levels):
    grid = torch.cartesian_prod(*[torch.arange(levels)] * math.prod(shape)).reshape(-1, *shape)
    return Levels(levels).inward(grid).double()


@chains
@pytest.mark.parametrize("output", ["categorical", "mixture"])
@pytest.mark.parametrize("shape", [(1, 2, 3), (2, 1, 3), (3, 2, 1)])
@pytest.mark.parametrize("condition", [0, 4])
def test_masses_sum_to_one(name, output, shape, condition):
    p, x = part(name, shape, 3, output, condition), all_examples(shape, 3)
    with torch.no_grad():
        log_prob = p(y=torch.full((len(x),), 2) if condition else None).log_prob(x)
    assert log_prob.std() > 0.5  # not the uniform distribution
    assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-10)


def ordered(p, x, condition=None):
    """Parameters of all values in the order of the chain, (B, D, outputs)."""
    return p.chain(x, condition).movedim(1, -2).flatten(1, -2)


def connections(p, shape, levels):
    """Whether the parameters of value i (rows) move when value j (columns) changes, in the order of the chain."""
    torch.manual_seed(2)
    size = math.prod(shape)
    values = Levels(levels).inward(torch.randint(levels, (1, size))).double()
    with torch.no_grad():
        base, sees = ordered(p, as_example(values, shape)), torch.zeros(size, size, dtype=torch.bool)
        for j in range(size):
            for level in Levels(levels).inward(torch.arange(levels)):
                changed = values.clone()
                changed[0, j] = level
                sees[:, j] |= ((ordered(p, as_example(changed, shape)) - base).abs() > 1e-12).any(-1)[0]
    return sees


BLIND = {("plain", (1, 5, 6)), ("row LSTM", (1, 5, 6)), ("row LSTM", (3, 3, 4))}  # small images hide blind spots


@chains
@pytest.mark.parametrize("shape", [(1, 5, 6), (3, 3, 4), (7,)])
def test_each_value_sees_all_earlier_ones_and_no_other(name, shape):
    p, size = part(name, shape, 4, depth=6, scale=1.0), math.prod(shape)
    sees, allowed = connections(p, shape, 4), torch.ones(size, size, dtype=torch.bool).tril(-1)
    assert not (sees & ~allowed).any()
    if (name, shape) in BLIND:
        assert (allowed & ~sees).any()
    else:
        assert torch.equal(sees, allowed)


@pytest.mark.parametrize("name", ["gated", "plain", "multiscale", "made, numbers", "row LSTM", "diagonal LSTM"])
@pytest.mark.parametrize("shape", [(1, 5, 6), (3, 3, 4)])
def test_causality_by_gradient(name, shape):
    """Where levels enter as numbers: d parameters_i / d x_j = 0 for j >= i."""
    p, size = part(name, shape, 4, depth=6, scale=1.0), math.prod(shape)
    values = (torch.rand(1, size, dtype=torch.float64) * 2 - 1).requires_grad_()
    out = ordered(p, as_example(values, shape))[0].square().sum(-1)
    sees = torch.stack([torch.autograd.grad(o, values, retain_graph=True)[0][0] != 0 for o in out])
    allowed = torch.ones(size, size, dtype=torch.bool).tril(-1)
    assert not (sees & ~allowed).any()
    assert (allowed & ~sees).any() == ((name, shape) in BLIND)


@chains
@pytest.mark.parametrize("output", ["categorical", "mixture"])
@pytest.mark.parametrize(("shape", "condition"), [((2, 4, 5), 0), ((1, 5, 4), 3), ((6,), 3)])
def test_cached_samples_equal_the_network_run_once_per_value(name, output, shape, condition):
    p, y = part(name, shape, 5, output, condition, scale=0.5), torch.tensor([0, 1, 2, 2, -1]) if condition else None
    drawn = []
    for cache in (True, False, True):
        torch.manual_seed(len(drawn) // 2)
        drawn.append(p(y=y, cache=cache).sample(() if condition else (5,)))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert len(drawn[0].unique()) > 1


@chains
@pytest.mark.parametrize("shape", [(3, 9, 7), (40,)])
def test_cached_parameters_agree_in_float32(name, shape):
    p, c = part(name, shape, 7, condition=4, scale=0.5).float(), torch.randn(2, 4)
    x = Levels(7).inward(torch.randint(7, (2, *shape)))
    with torch.no_grad():
        whole, step, values = ordered(p, x, c), p.chain.walk(2, c), in_order(x)
        found = torch.stack([step(values[:, max(0, k - 1)]) for k in range(values.shape[1])], 1)
    torch.testing.assert_close(found, whole, atol=1e-4, rtol=0)


@chains
@pytest.mark.parametrize(("output", "condition"), [("categorical", 3), ("mixture", 0)])
def test_samples_follow_the_density(name, output, condition):
    """Chi-square over all 3^4 images, for each condition."""
    shape, n = (2, 1, 2), 10_000
    p, x = part(name, shape, 3, output, condition), all_examples(shape, 3)
    torch.manual_seed(1)
    for label in range(max(1, condition)):
        y = torch.full((n,), label) if condition else None
        with torch.no_grad():
            draws = p(y=y).sample() if condition else p().sample((n,))
            expected = p(y=None if y is None else y[: len(x)]).log_prob(x).exp() * n
        found = ((draws.flatten(1) + 1).long() @ torch.tensor([27, 9, 3, 1])).bincount(minlength=81).double()
        rare = expected < 5
        pooled = [torch.cat([v[~rare], v[rare].sum()[None]]).numpy() for v in (found, expected)]
        pooled[1] += 1e-9  # no rare one at all
        assert chisquare(pooled[0], pooled[1] * n / pooled[1].sum()).pvalue > 1e-3


@chains
def test_completions_follow_the_conditional_density(name):
    """With the first values known, samples keep them and follow p(x) / p(known), for one prefix or one per sample."""
    p, n, x = part(name, (2, 1, 2), 3, scale=1.0), 10_000, all_examples((2, 1, 2), 3)
    prefix = torch.tensor([[[2, 0]], [[1, 0]]])  # in the order of the chain: 2, 1, 0, 0
    keeps = (x[:, 0, 0, 0] == 1) & (x[:, 1, 0, 0] == 0)
    torch.manual_seed(0)
    with torch.no_grad():
        draws = p(prefix=prefix, known=2).sample((n,))
        expected = p().log_prob(x[keeps]).softmax(0) * n
    assert (draws[:, :, 0, 0] == torch.tensor([1.0, 0.0])).all()
    found = ((draws[:, :, 0, 1] + 1).long() @ torch.tensor([3, 1])).bincount(minlength=9)
    assert chisquare(found.numpy(), expected.numpy() * n / expected.sum().item()).pvalue > 1e-3
    each = torch.randint(3, (5, 2, 1, 2))
    assert torch.equal(levels(p(prefix=each, known=4).sample((5,))), each)


def levels(x):
    return (x + 1).long()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"known": 1}, "Expected prefix="),
        ({"prefix": torch.zeros(1, 2, 2).long()}, "Expected prefix="),
        ({"prefix": torch.zeros(1, 2, 2).long(), "known": 5}, "known <= 4"),
        ({"prefix": torch.zeros(1, 2, 2), "known": 1}, "of integers"),
        ({"prefix": torch.zeros(1, 3, 2).long(), "known": 1}, "of integers"),
        ({"prefix": torch.full((1, 2, 2), 3), "known": 1}, r"levels in \[0, 3\)"),
        ({"prefix": torch.zeros(4, 1, 2, 2).long(), "known": 1}, "5 samples"),
    ],
)
def test_prefixes_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        part("gated", (1, 2, 2), 3)(**options).sample((5,))


def test_condition_matters_and_is_per_example():
    p = part("gated", (1, 3, 3), 4, condition=3)
    x = all_examples((1, 1, 1), 4)[:2].expand(2, 1, 3, 3)
    both = p(y=torch.tensor([0, 2])).log_prob(x)
    alone = [p(y=torch.tensor([k])).log_prob(x[i : i + 1]) for i, k in enumerate((0, 2))]
    torch.testing.assert_close(both, torch.cat(alone))
    assert not torch.allclose(both[0], p(y=torch.tensor([1])).log_prob(x[:1]))
    assert p(y=torch.tensor([0, 2])).sample((3,)).shape == (3, 2, 1, 3, 3)
    several = p(y=torch.tensor([0, 2])).log_prob(torch.stack([x, x.flip(0)]))
    torch.testing.assert_close(several[0], both)
