"""One test of the contracts over every model in the folder: a new file is tested by what is here already."""

import dataclasses
import inspect

import pytest
import torch

from genrep import storage
from genrep.contracts import Batch, Conditional, DataSpec, Objective, Unsupported
from genrep.data.batches import InMemory
from genrep.models import build, get, names, options
from genrep.naming import choose
from genrep.training import checkpoint
from genrep.training.loop import fit
from genrep.training.settings import SUGGESTED, Settings
from genrep.training.trainer import Mode, Trainer

GREY = DataSpec((1, 8, 8), levels=4, classes=3)
COLOUR = DataSpec((3, 9, 10), levels=256, condition=2)
TABLE = DataSpec((5,), classes=2, mean=(0.0, 10.0, -3.0, 1.0, 0.5), std=(1.0, 5.0, 0.1, 2.0, 1.0))
SPECS = {"grey": GREY, "colour": COLOUR, "table": TABLE}
N = 12


def data_for(spec):
    generator = torch.Generator().manual_seed(0)
    if spec.levels is None:
        x = torch.randn(N, *spec.shape, generator=generator) * torch.tensor(spec.std) + torch.tensor(spec.mean)
    else:
        x = torch.randint(0, spec.levels, (N, *spec.shape), generator=generator).to(torch.uint8)
    if spec.classes:
        return InMemory(x, torch.randint(0, spec.classes, (N,), generator=generator), spec)
    return InMemory(x, torch.randn(N, spec.condition, generator=generator), spec)


def made(name, spec, **given):
    """The model, narrow, or a skip that says why it refuses these data; the refusal must be a clear ValueError."""
    torch.manual_seed(0)
    given |= {"width": 16} if "width" in options(name) else {}
    try:
        return build(name, spec, **given)
    except ValueError as error:
        refusal = str(error)
    assert any(word in refusal for word in ("image", "integer", "levels", "vector")), refusal
    return pytest.skip(f"{name} refuses {spec.shape}: {refusal}")


@pytest.fixture(params=names())
def name(request):
    return request.param


@pytest.fixture(params=[pytest.param(k, marks=[pytest.mark.slow] if k == "colour" else []) for k in SPECS])
def spec(request):
    return SPECS[request.param]


def few_steps(model):
    """Sampling options that keep a chain short, where there are such."""
    return {"evaluations": 3} if "evaluations" in inspect.signature(model.generative.forward).parameters else {}


def can_be_conditional(name):
    return "conditional" in options(name)


def test_recipe_is_documented(name):
    """File, function and module share a name; every option has a default, a type and a line in the docstring."""
    found = get(name)
    assert found.__name__ == name
    assert found.family
    assert any(ch.isdigit() for ch in found.reference), "a reference has a year"
    text = inspect.getdoc(found)
    assert text
    for option, parameter in options(name).items():
        assert parameter.default is not inspect.Parameter.empty, option
        assert parameter.annotation is not inspect.Parameter.empty, option
        assert f"{option}:" in text, f"{option} is not documented"
    settings = {f.name for f in dataclasses.fields(Settings)}
    assert not settings & options(name).keys(), "an option and a setting share a name"


@pytest.mark.parametrize("conditional", [False, True])
def test_terms_are_finite_and_gradients_reach_what_is_claimed(name, spec, conditional):
    given = {"conditional": True} if conditional else {}
    if conditional and not can_be_conditional(name):
        pytest.skip(f"{name} has no conditional version")
    model, data = made(name, spec, **given), data_for(spec)
    assert isinstance(model.generative, Conditional)
    for stage, objective in enumerate(model.objectives):
        assert isinstance(objective, Objective)
        settings = Settings(steps=10, batch=N, lr=1e-3, device="cpu").resolved(model, N)
        trainer = Trainer(model, data, settings, Mode(), stage)
        for _ in range(6 * len(trainer.turns)):
            terms = trainer.update()
            assert all(value.isfinite() for value in terms.values()), terms
        assert not trainer.untrained(), trainer.untrained()


def test_capabilities_are_what_works(name, spec):
    """What is declared works; what is not raises Unsupported with the missing part and the models that can."""
    model, data = made(name, spec), data_for(spec)
    x = data.x[:2]
    can = {c.split(":")[0] for c in model.capabilities}
    codes = []
    calls = {
        "sample": lambda: model.sample(2, seed=0, **few_steps(model)),
        "encode": lambda: codes.append(model.encode(x)),
        "decode": lambda: model.decode(codes[0] if codes else model.generative.prior().sample((2,))),
        "reconstruct": lambda: model.reconstruct(x),
        "features": lambda: model.features(x),
        "log_likelihood": lambda: model.log_likelihood(x),
    }
    model.eval()
    with torch.no_grad():
        for what, call in calls.items():
            if what == "decode" and "encode" not in can:
                continue  # there is no code of x to try it on
            if what in can:
                call()
            else:
                with pytest.raises(Unsupported, match=rf"cannot (give )?{what}: it has no"):
                    call()


def test_samples_look_like_data_and_repeat_by_seed(name, spec):
    model = made(name, spec)
    if "sample" not in model.capabilities:
        pytest.skip(f"{name} cannot sample")
    model.train()
    random = torch.random.get_rng_state()
    how = few_steps(model)
    one, again, other = (model.sample(3, seed=s, **how) for s in (1, 1, 2))
    assert torch.equal(random, torch.random.get_rng_state())
    assert model.training, "sampling changed the mode of the model"
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert one.shape == (3, *spec.shape)
    if spec.levels is not None:
        assert not one.is_floating_point()
        assert one.min() >= 0
        assert int(one.max()) < spec.levels
    assert model.sample(5, seed=1, batch=2, **how).shape == (5, *spec.shape)
    with pytest.raises(ValueError, match="n >= 1"):
        model.sample(0)
    with pytest.raises(ValueError, match="made without a condition"):
        model.sample(2, condition=0)


def test_likelihood_is_finite_and_declared(name, spec):
    model, data = made(name, spec), data_for(spec)
    methods = [c.split(":")[1] for c in model.capabilities if c.startswith("log_likelihood")]
    if not methods:
        pytest.skip(f"{name} has no likelihood")
    model.eval()
    x = data.x[:3]
    for method in methods:
        found = model.log_likelihood(x, method=method)
        assert found.value.shape == (3,)
        assert found.value.isfinite().all()
        assert found.kind in ("exact", "lower bound", "estimate")
        assert found.measure == ("density" if spec.levels is None else "mass"), "bits compare masses only"
        if found.measure == "mass":
            assert (found.value < 0).all(), "a mass is below one"
    with pytest.raises(ValueError, match="one of the methods"):
        model.log_likelihood(x, method="guess")
    with pytest.raises(ValueError, match="Expected x of shape"):
        model.log_likelihood(x[:, :-1])


def test_examples_do_not_see_each_other(name, spec):
    """In eval mode the likelihood or code of an example does not depend on the rest of its batch."""
    model, data = made(name, spec), data_for(spec)
    model.eval()
    with torch.no_grad():
        if "encode" in model.capabilities:
            torch.testing.assert_close(model.encode(data.x)[:3], model.encode(data.x[:3]), rtol=1e-3, atol=1e-4)
        for layer, f in (model.features(data.x) if "features" in model.capabilities else {}).items():
            assert len(f) == N
            assert f.ndim == 2
            torch.testing.assert_close(f[:3], model.features(data.x[:3])[layer], rtol=1e-3, atol=1e-4)


def test_condition_is_asked_for_and_matters(name, spec):
    if not can_be_conditional(name):
        pytest.skip(f"{name} has no conditional version")
    model, data = made(name, spec, conditional=True), data_for(spec)
    assert "condition" in model.capabilities
    for stage, objective in enumerate(model.objectives):
        settings = Settings(steps=20 * len(objective.turns), batch=N, lr=1e-2, device="cpu")
        fit(model, data, settings, mode=Mode(), stage=stage)
    if "sample" in model.capabilities:
        with pytest.raises(ValueError, match="This model is conditional"):
            model.sample(2)
        y, other = (0, 1) if spec.classes else (torch.zeros(2), torch.full((2,), 3.0))
        one, two = (model.sample(8, condition=k, seed=0, **few_steps(model)) for k in (y, other))
        assert not torch.equal(one, two)
        assert model.sample(N, condition=data.y, seed=0, **few_steps(model)).shape == (N, *spec.shape)
        with pytest.raises(ValueError, match=r"Expected (2 labels|a condition)"):
            model.sample(2, condition=torch.full((2, 7), 9))
    if spec.classes and any(c.startswith("log_likelihood") for c in model.capabilities):
        with torch.no_grad():
            first, second = (model.log_likelihood(data.x[:2], condition=k) for k in (0, 1))
        assert not torch.equal(first.value, second.value)


def test_training_resumes_exactly(name, tmp_path):
    model, data = made(name, GREY), data_for(GREY)
    settings = Settings(steps=3, batch=5, log_every=2, device="cpu")
    longer = dataclasses.replace(settings, steps=6, horizon=6)
    fit(model, data, settings, folder=tmp_path / "parts", mode=Mode())
    fit(made(name, GREY), data, longer, folder=tmp_path / "parts", mode=Mode(), resume=True)
    fit(made(name, GREY), data, longer, folder=tmp_path / "whole", mode=Mode())
    one, two = (checkpoint.newest(tmp_path / run / "checkpoints")[1].tensors for run in ("parts", "whole"))
    assert one.keys() == two.keys()
    for key in one:
        assert torch.equal(one[key], two[key]), key


def test_saved_and_built_again_is_the_same_model(name, tmp_path):
    model = made(name, GREY)
    model.save(tmp_path / "model.safetensors")
    other, stored = made(name, GREY), storage.load(tmp_path / "model.safetensors")
    with torch.no_grad():
        for p in other.parameters():
            p.add_(1)
    storage.restore(other, stored.tensors)
    for key, t in storage.state(model).items():
        assert torch.equal(t, storage.state(other)[key]), key
    if "sample" in model.capabilities:
        assert torch.equal(*(m.sample(2, seed=0, **few_steps(m)) for m in (model, other)))


def test_bfloat16_stays_finite(name, spec):
    model, data = made(name, spec), data_for(spec)
    settings = Settings(steps=4, batch=N, device="cpu").resolved(model, N)
    trainer = Trainer(model, data, settings, Mode(bfloat16=True))
    for _ in range(4):
        assert all(value.isfinite() for value in trainer.update().values())


def test_peers_are_named():
    with pytest.raises(Unsupported, match=r"Models that can encode: .*vae"):
        build("dcgan", GREY).encode(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))


def test_model_suggestions_are_settings(name):
    model = made(name, GREY)
    for key in model.training_options:
        choose(key, [*SUGGESTED, "players"], "training option")
    for player in model.training_options.get("players", {}):
        choose(player, {p for o in model.objectives for p in o.turns}, "player")


def test_checks_of_input():
    model = build("vae", GREY, latent=2, width=8)
    with pytest.raises(ValueError, match="Expected integers"):
        model.encode(torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match=r"\[0, 4\), got 0..9"):
        model.encode(torch.full((1, 1, 8, 8), 9, dtype=torch.uint8).tril())
    assert model(Batch(torch.zeros(2, 1, 8, 8, dtype=torch.uint8)))["rate"].shape == (2,)
