"""Multiband VAE: codes, latents of two kinds, controlled forgetting, frozen copies, the split of updates."""

import copy
import dataclasses
import math
from functools import partial

import pytest
import torch

from genrep import storage
from genrep.continual import loop
from genrep.continual.bands import Draws, Encodings, Pairs, nearest_above
from genrep.continual.strategies import build
from genrep.continual.strategy import Setting, ledger, memory
from genrep.contracts import Batch, DataSpec, Unsupported
from genrep.data.streams import by_task
from genrep.distributions.bands import Band, BandMixtures, BandPrior, bernoulli_kl, relaxed_bits
from genrep.distributions.basic import Bernoulli, Gaussian, kl
from genrep.models import build as build_model
from genrep.nets.translator import band_codes
from tests.continual.known import QUICK, image_stream, vae

STREAM = image_stream(4)
SIZES = tuple(len(t.train) for t in STREAM.tasks)
SMALL = {"latent": 3, "binary": 2, "aligned": 16, "width": 16, "network": "dense"}
STEPS = dataclasses.replace(QUICK, steps=12)


def own(**options):
    torch.manual_seed(0)
    return build_model("multiband_vae", STREAM.spec, **{**SMALL, **options})


def setting(make=own):
    return Setting(make, STREAM.spec, SIZES, 3)


def strategy(**options):
    torch.manual_seed(0)
    return build("multiband", setting(), draws=64, **options)


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5, 16, 17, 100, 1000])
def test_codes_are_unique_and_as_short_as_can_be(bands):
    codes = band_codes(bands)
    assert len({tuple(c) for c in codes.tolist()}) == bands
    assert codes.shape[1] == max(1, math.ceil(math.log2(bands)))
    assert set(codes.unique().tolist()) <= {-1.0, 1.0}


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_a_relaxed_bit_is_rounded_as_it_is_drawn(temperature):
    """P(relaxed > 1/2) = sigmoid(logit) at every temperature: one logit for training and for drawing."""
    torch.manual_seed(0)
    logits = torch.tensor([-2.0, 0.0, 0.7, 3.0])
    n = 40_000
    soft = relaxed_bits(logits.expand(n, -1), temperature)
    p = logits.sigmoid()
    assert torch.all(((soft > 0.5).float().mean(0) - p).abs() < 4 * (p * (1 - p) / n).sqrt())
    q = Band(Gaussian(torch.zeros(n, 0), torch.zeros(n, 0)), Bernoulli(logits.expand(n, -1)), torch.zeros(n, 0))
    assert torch.all((q.sample().mean(0) - p).abs() < 4 * (p * (1 - p) / n).sqrt())


def test_the_relaxed_bit_has_the_concrete_density():
    """Mean of the binary concrete law at T = 1 and logit l: integral of its density (Maddison et al., 2017, eq. 22)."""
    torch.manual_seed(0)
    x = torch.linspace(1e-5, 1 - 1e-5, 200_001, dtype=torch.float64)
    for logit, t in ((0.8, 1.0), (-1.5, 0.7)):
        alpha = math.exp(logit)
        density = t * alpha * x ** (-t - 1) * (1 - x) ** (-t - 1) / (alpha * x**-t + (1 - x) ** -t) ** 2
        assert torch.trapezoid(density, x) == pytest.approx(1, abs=2e-2)
        drawn = relaxed_bits(torch.full((200_000,), logit, dtype=torch.float64), t).mean()
        assert drawn == pytest.approx(float(torch.trapezoid(x * density, x)), abs=5e-3)


def test_straight_through_gives_bits_with_the_gradient_of_the_relaxed_ones():
    logits = torch.tensor([[0.3, -1.2]], requires_grad=True)
    empty = torch.zeros(1, 0)
    torch.manual_seed(1)
    value = Band(Gaussian(empty, empty), Bernoulli(logits), empty, torch.tensor(0.6)).rsample()
    torch.testing.assert_close(value.detach(), value.detach().round())
    (found,) = torch.autograd.grad(value.sum(), logits)
    torch.manual_seed(1)
    (soft,) = torch.autograd.grad(relaxed_bits(logits, 0.6).sum(), logits)
    torch.testing.assert_close(found, soft)


def test_kl_is_that_of_normals_and_bits():
    generator = torch.Generator().manual_seed(0)
    mean, log_std, logits = (torch.randn(5, d, generator=generator, dtype=torch.float64) for d in (3, 3, 2))
    other = torch.randn(2, generator=generator, dtype=torch.float64)
    q = Band(Gaussian(mean, log_std), Bernoulli(logits), torch.zeros(5, 1))
    zero = torch.zeros(3, dtype=torch.float64)
    p = Band(Gaussian(zero, zero, batched=False), Bernoulli(other, batched=False), torch.zeros(1), batched=False)
    a, b = logits.sigmoid(), other.sigmoid()
    bits = (a * (a / b).log() + (1 - a) * ((1 - a) / (1 - b)).log()).sum(1)
    torch.testing.assert_close(bernoulli_kl(q.bits, p.bits), bits)
    normals = 0.5 * (mean.square() + (2 * log_std).exp() - 1 - 2 * log_std).sum(1)
    torch.testing.assert_close(kl(q, p), normals + bits)
    z = q.sample((200_000,))
    torch.testing.assert_close((q.log_prob(z) - p.log_prob(z)).mean(0), normals + bits, rtol=0.02, atol=0.02)


def test_the_prior_of_bits_learns_their_mean_probability():
    """Its term is least there: the gradient vanishes at the mean of sigmoid(l), and the encoder feels nothing."""
    logits = torch.randn(50, 2, dtype=torch.float64, requires_grad=True)
    mean = logits.detach().sigmoid().mean(0).logit().requires_grad_()
    model, x = own(), STREAM.tasks[0].train.x[:50]
    terms = model(Batch(x))
    for p in model.inference.parameters():
        assert torch.autograd.grad(terms["prior"].sum(), p, allow_unused=True, retain_graph=True)[0] is None
    (learns,) = torch.autograd.grad(terms["prior"].sum(), model.generative.prior.logits)
    assert learns.abs().min() > 0
    loss = bernoulli_kl(Bernoulli(logits.detach()), Bernoulli(mean, batched=False)).sum()
    (slope,) = torch.autograd.grad(loss, mean)
    torch.testing.assert_close(slope, torch.zeros_like(slope), atol=1e-9, rtol=0)


def test_forgetting_finds_exactly_the_pairs_above_the_threshold():
    generator = torch.Generator().manual_seed(0)
    old, new = torch.randn(1500, 4, generator=generator), torch.randn(300, 4, generator=generator)
    similarity = torch.nn.functional.cosine_similarity(old[:, None], new[None], dim=2)
    for threshold in (0.5, 0.95, 0.999):
        found = nearest_above(old, torch.nn.functional.normalize(new), threshold)
        best = similarity.max(1)
        clear = (best.values - threshold).abs() > 1e-6
        assert torch.equal(found[clear] >= 0, (best.values >= threshold)[clear])
        kept = clear & (found >= 0)
        assert 0 < int(kept.sum()) < len(old) or threshold == 0.5
        torch.testing.assert_close(similarity[kept, found[kept]], best.values[kept])


def learnt(tasks=2):
    """A strategy after some tasks, and the data of the next one."""
    found = strategy()
    for t in range(tasks):
        loop.learn(found, t, STREAM.tasks[t].train, STEPS)
    return found, STREAM.tasks[tasks].train


def test_draws_that_are_forgotten_get_the_nearest_new_image():
    found, data = learnt()
    new, draws = found._encodings(2, data), Draws(found.before, found.drawing, 2, 64, data.spec)
    every, translator = torch.arange(64), found._translator()
    with torch.no_grad():
        before, z, q = draws[every].x, translator(draws.latents), translator(new.likeliest())
    similarity = torch.nn.functional.cosine_similarity(z[:, None], q[None], dim=2)
    threshold = float(similarity.max(1).values.median())
    draws.forget(new, translator, threshold)
    with torch.no_grad():
        for p in translator.parameters():
            p.add_(1)  # z is that of when they were compared
    due = draws[every.flip(0)].x.flip(0)
    draws.expect(64)
    now = draws[every].x
    torch.testing.assert_close(now, due)
    assert 16 <= int((now != before).flatten(1).any(1).sum()) <= 48
    for j in range(64):
        best, at = similarity[j].max(0)
        if best >= threshold + 1e-5:
            assert torch.equal(now[j], new.targets(at[None])[0])
        elif best < threshold - 1e-5:
            assert torch.equal(now[j], before[j])


def test_draws_come_from_earlier_bands_and_do_not_change_with_the_model():
    found, _ = learnt()
    torch.manual_seed(5)
    every, draws = torch.arange(200), partial(Draws, found.before, found.drawing, 2, 200, STREAM.spec)
    x = (one := draws())[every].x
    with torch.no_grad():
        for p in found.bands.parameters():
            p.add_(1)
    torch.manual_seed(5)
    assert torch.equal(draws()[every].x, x)
    assert torch.equal(one[every].x, x)
    assert {tuple(c) for c in one.latents[:, -2:].tolist()} == {tuple(c) for c in band_codes(4)[:2].tolist()}


def test_phases_train_what_they_claim_and_nothing_else():
    found, data = learnt(1)
    assert [p.share for p in found.learn(0, data)] == [None]
    local, alone, joint, forgetting = found.learn(1, data)
    assert sum(p.share for p in (local, alone, joint, forgetting)) == pytest.approx(1)
    assert len(strategy(gamma=1.0).learn(1, data)) == 3

    def run(phase):
        start = {k: t.clone() for k, t in storage.state(found).items()}
        loop._fit(phase, dataclasses.replace(STEPS, ema=0.0), None, progress=False)
        return {k for k, t in storage.state(found).items() if not torch.equal(t, start[k])}

    assert {k.split(".")[0] for k in run(local)} == {"local"}
    local.finish()
    changed = run(alone)
    assert changed
    assert all("generative.likelihood.net.translator" in k and k.startswith("bands") for k in changed)
    changed = run(joint)
    assert any("decoder" in k for k in changed)
    assert all(k.startswith("bands.generative.likelihood") for k in changed), (
        "the frozen copy and the encoder are still"
    )


def test_after_a_task_a_band_draws_what_it_learnt():
    found, data = learnt(1)
    loop.learn(found, 1, data, STEPS)
    prior = found.bands.generative.prior
    assert prior.counts.tolist() == [SIZES[0], SIZES[1], 0, 0]
    q = found._encodings(1, data)
    torch.testing.assert_close(prior.logits[1].sigmoid(), q.logits.sigmoid().mean(0), rtol=1e-3, atol=1e-3)
    assert not torch.equal(found.model_for(0).sample(4, seed=0), found.model_for(1).sample(4, seed=0))
    assert found.model.sample(4, seed=0).shape == (4, 1, 8, 8)


def test_bands_are_drawn_by_their_counts():
    torch.manual_seed(0)
    prior = BandPrior(2, 1, 4, conditional=True)
    prior.counts.copy_(torch.tensor([10, 30, 0, 0]))
    drawn = prior(y=torch.full((4000,), -1)).sample()[:, -2:]
    first = (drawn == band_codes(4)[0]).all(1).float().mean()
    assert first == pytest.approx(0.25, abs=0.03)


def mixtures(components, bits=1, bands=2):
    prior = BandPrior(2, bits, bands, conditional=True)
    prior.counts.copy_(torch.tensor([100, 300][:bands]))
    return BandMixtures(prior, components)


def drawn(bands, band, n=40_000):
    return bands(y=torch.full((n,), band)).sample()


def test_a_band_draws_the_law_of_its_codes():
    """A bit that is one in 30 %, and normals whose mean and correlation depend on it, which no product of them has."""
    torch.manual_seed(0)
    n = 8000
    bit = (torch.rand(n) < 0.3).float()
    scale = torch.where(
        bit[:, None, None] > 0, torch.tensor([[0.5, 0.0], [0.4, 0.3]]), torch.tensor([[0.8, 0.0], [-0.6, 0.2]])
    )
    normals = bit[:, None] * torch.tensor([2.0, -1.0]) + (scale @ torch.randn(n, 2, 1))[..., 0]
    bands = mixtures(2)
    bands.fit(1, torch.cat([normals, bit[:, None], torch.ones(n, 1)], 1))
    z = drawn(bands, 1)
    assert z[:, 2].mean() == pytest.approx(0.3, abs=0.02)
    for value in (0, 1):
        mine, theirs = z[z[:, 2] == value][:, :2], normals[bit == value]
        torch.testing.assert_close(mine.mean(0), theirs.mean(0), atol=0.04, rtol=0)
        torch.testing.assert_close(mine.T.cov(), theirs.T.cov(), atol=0.04, rtol=0)
    assert (z[:, 3:] == band_codes(2)[1]).all()


def test_a_band_that_is_not_fitted_draws_normals_and_fair_bits():
    torch.manual_seed(0)
    z = drawn(mixtures(3), 0)
    torch.testing.assert_close(z[:, :2].T.cov(), torch.eye(2), atol=0.04, rtol=0)
    torch.testing.assert_close(z[:, :3].mean(0), torch.tensor([0.0, 0.0, 0.5]), atol=0.03, rtol=0)
    assert not torch.equal(*(drawn(mixtures(3), -1, 400)[:, 3:].unique(dim=0)))  # both bands come, by their counts


def test_few_examples_have_few_components_and_the_same_seed_the_same_fit():
    found = []
    for _ in range(2):
        bands = mixtures(16, bits=0, bands=1)
        torch.manual_seed(4)
        bands.fit(0, torch.randn(65, 2))
        found.append(bands)
    assert (found[0].weights > 0).sum() == 3, "at least ten examples for each of two dimensions"
    assert all(torch.equal(a, b) for a, b in zip(found[0].buffers(), found[1].buffers(), strict=True))
    assert drawn(found[0], 0, 50)[:, 2:].eq(band_codes(1)[0]).all()


def test_as_published_bands_are_normals_and_bits():
    assert isinstance(strategy(components=0).drawing, BandPrior)
    with pytest.raises(ValueError, match="components >= 0"):
        strategy(components=-1)


def test_new_pairs_are_examples_with_their_own_latents():
    found, data = learnt()
    encodings, draws = found._encodings(2, data), Draws(found.before, found.drawing, 2, 64, data.spec)
    assert isinstance(encodings, Encodings)
    pairs = Pairs(data, encodings, draws, 1.5)
    torch.manual_seed(0)
    counts = [len(pairs[torch.arange(5)].x) - 5 for _ in range(400)]
    assert set(counts) == {7, 8}
    batch = pairs[torch.arange(5)]
    torch.testing.assert_close(batch.x[:5], found.bands.domain.inward(data.x[:5]))
    torch.testing.assert_close(batch.y[:5, -2:], band_codes(4)[2].expand(5, -1))


def test_only_decoder_translator_and_bands_are_kept():
    found = strategy(local="decoder", components=0)
    names = set(memory(found))
    assert all(n.startswith(("bands.generative.likelihood", "bands.generative.prior")) for n in names)
    assert ledger(found).keys() == {"bands.generative"}
    parts = found.bands.generative
    size = sum(p.numel() * 4 for p in parts.likelihood.parameters())
    assert ledger(found)["bands.generative"] == size + 4 * 2 * 4 + 4 * 8, "bits: 4 bands of 2; counts: int64"
    assert ledger(strategy(local="encoder", components=0)).keys() == {"bands.generative", "local.inference"}
    assert ledger(strategy(local="last", components=0)).keys() == {"bands.generative", "local"}
    mixtures = ledger(strategy(components=5))["mixtures"]
    assert mixtures == 4 * 4 * 5 * (1 + 3 + 3 * 3 + 2), "4 bands of 5 components, 3 normals, 2 bits, float32"


@pytest.mark.parametrize("local", ["fresh", "decoder", "encoder", "last"])
def test_the_local_model_starts_as_said(local):
    found = strategy(local=local)
    fresh = copy.deepcopy(found.local)
    loop.learn(found, 0, STREAM.tasks[0].train, STEPS)
    kept, again = loop.survived(found), strategy(local=local)
    for name, t in memory(again).items():
        t.detach().copy_(kept[name])
    again.learn(1, STREAM.tasks[1].train)[0].start()
    decoder, encoder = "generative.likelihood.net.decoder.layers.0.weight", "inference.latent.net.layers.0.weight"
    same = {
        part: torch.equal(storage.state(again.local)[part], storage.state(found.bands)[part])
        for part in (decoder, encoder)
    }
    assert same == {decoder: local != "fresh", encoder: local in ("encoder", "last")}
    assert torch.equal(storage.state(again.local)[encoder], storage.state(fresh)[encoder]) == (
        local in ("fresh", "decoder")
    )


class Cut(Exception):
    """A process that is killed."""


@pytest.mark.slow
@pytest.mark.parametrize("place", [(1, 0, 2), (1, 1, 0), (2, 2, 1), (2, 3, 1), (2, 0, "finish"), (2, 1, "finish")])
def test_resume_is_exact_in_every_phase(tmp_path, place, monkeypatch):
    """gamma is low, so that targets are replaced, too."""
    settings = dataclasses.replace(STEPS, checkpoint_seconds=0.0)
    make = partial(strategy, gamma=0.3, local="last", translator_share=0.2)
    whole = loop.run(make, STREAM, settings)
    plain = type(make()).learn

    def learn(self, task, data):
        phases = plain(self, task, data)
        if task == place[0]:
            i, at = place[1:]

            def hook(step):
                if step == at:
                    raise Cut

            def finish():
                phases[i].finish()
                raise Cut

            changed = {"finish": finish} if at == "finish" else {"fit": {**phases[i].fit, "after_update": hook}}
            return [*phases[:i], phases[i]._replace(**changed), *phases[i + 1 :]]
        return phases

    with monkeypatch.context() as patch:
        patch.setattr(type(make()), "learn", learn)
        with pytest.raises(Cut):
            loop.run(make, STREAM, settings, folder=tmp_path)
    again = loop.run(make, STREAM, settings, folder=tmp_path)
    for name, t in storage.state(whole).items():
        assert torch.equal(t, storage.state(again)[name]), name


@pytest.mark.parametrize("network", ["dense", "conv"])
def test_parts_are_taken_from_a_vae(network):
    told = by_task(STREAM)
    make = partial(build_model, "vae", told.spec, latent=3, width=8, network=network, conditional=True)
    found = build("multiband", Setting(make, told.spec, SIZES), draws=32)
    assert found.bands.inference.latent.net.__class__ is make().inference.latent.net.__class__
    assert found.bands.generative.likelihood.name == make().generative.likelihood.name
    for t in range(2):
        loop.learn(found, t, told.tasks[t].train, STEPS)
    assert found.model_for(1).sample(3, seed=0).shape == (3, 1, 8, 8)


def test_what_does_not_fit_is_refused():
    for name in ("dcgan", "iwae", "gmm_vae", "real_nvp"):
        with pytest.raises(Unsupported, match="Strategy multiband needs"):
            build("multiband", setting(lambda name=name: build_model(name, STREAM.spec)))
    two = Setting(lambda: vae(conditional=True), STREAM.spec, (10, 10))
    with pytest.raises(Unsupported, match="told=task"):
        build("multiband", two)
    for wrong in ({"local_share": 0.0}, {"local_share": 0.6, "translator_share": 0.5}, {"gamma": 2.0}, {"cap": 0.0}):
        with pytest.raises(ValueError, match="Expected"):
            strategy(**wrong)
    with pytest.raises(ValueError, match="Expected local of multiband"):
        strategy(local="lost")


def test_colour_images_of_64_by_64():
    torch.manual_seed(0)
    spec = DataSpec((3, 64, 64), levels=256, classes=2)
    model = build_model("multiband_vae", spec, latent=32, binary=8, width=8, conditional=True)
    x = torch.randint(0, 256, (4, 3, 64, 64), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    terms = model(Batch(x, torch.tensor([0, 1, 1, 0])))
    assert all(t.isfinite().all() for t in terms.values())
    assert model.sample(2, condition=-1, seed=0).shape == (2, 3, 64, 64), "-1: of any band"
