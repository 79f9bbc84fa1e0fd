"""`genrep analyse`: what the steps of a trained diffusion model do, each analysis a table and a figure."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from genrep import storage
from genrep.contracts import Model, Unsupported
from genrep.distributions.samplers import SAMPLERS
from genrep.evaluation import chain_figures as draw
from genrep.evaluation import chains
from genrep.evaluation.estimate import Estimate
from genrep.evaluation.extractors import extractor
from genrep.evaluation.features import Extractor, examples
from genrep.evaluation.frechet import frechet_distance
from genrep.evaluation.noise_probes import attribute_map, probe_map
from genrep.interface import folders, runs
from genrep.naming import choose
from genrep.training import posthoc
from genrep.training.settings import pick_device

NOISES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.7)
EVALUATIONS = (5, 10, 20, 50)
FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6)  # of the chain, where reconstruction is measured


class Analysis(NamedTuple):
    """A table, its figure, and what must be said of them."""

    columns: list[str]
    rows: list[list[Any]]
    figure: Figure
    notes: list[str]


class Study:
    """A run, with what its analyses share; everything is made when first needed."""

    def __init__(
        self,
        run: Path,
        *,
        foreign: Sequence[str] = (),
        data: runs.DataLike | None = None,
        examples: int = 500,
        samples: int = 1000,
        evaluations: Sequence[int] = EVALUATIONS,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        self.run, self.model = run, runs.load(run).to(pick_device(device))
        self.splits, self.foreign_names = runs.data_of(run, data), tuple(foreign)
        self.count, self.samples, self.seed, self.evaluations = examples, samples, seed, tuple(evaluations)

    @cached_property
    def held_out(self) -> tuple[Tensor, Tensor | None]:
        """Test examples and their labels, chosen by the seed."""
        generator = torch.Generator().manual_seed(self.seed)
        x, y = self.splits.test[torch.randperm(len(self.splits.test), generator=generator)[: self.count]]
        return x.cpu(), None if y is None else y.cpu()

    @cached_property
    def foreign(self) -> dict[str, Tensor]:
        """Test examples of each foreign set, of the model's shape."""
        found = {}
        for name in self.foreign_names:
            x = examples(runs.read(name).test, self.count)[0]
            found[name] = chains.same_shape(self.model, x, name)
        return found

    @cached_property
    def extractor(self) -> Extractor:
        return extractor("auto", self.splits)

    def conditions(self, n: int) -> Tensor | None:
        """Labels or conditions of test examples in turn, for a model that reads them."""
        y = self.held_out[1]
        if not self.model.generative.reads_y:
            return None
        assert y is not None
        return y[torch.arange(n) % len(y)]


def snr(study: Study) -> Analysis:
    """log SNR of every step over the test examples, and what each step takes away."""
    found, chain = chains.signal_to_noise(study.model, study.held_out[0]), chains.chain_of(study.model).chain
    t = chain.t[1:].cpu()
    rows = [
        [f"{float(t[k]):.3f}", f"{found.mean[k]:.2f}", f"{found.std[k]:.2f}", f"{found.change[max(k - 1, 0)]:.3f}"]
        for k in _tenths(chain.steps)
    ]
    zero = (found.mean < 0).nonzero()
    notes = [f"The noise overshadows the signal from t = {float(t[int(zero[0])]):.3f} on."] if len(zero) else []
    return Analysis(
        ["t", "log SNR", "std over the data", "change in the step"], rows, draw.signal_figure(found, t), notes
    )


def _tenths(steps: int) -> list[int]:
    return sorted({round(q * (steps - 1)) for q in (0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)})


def reconstruction(study: Study) -> Analysis:
    """Error of undoing x_t against t, on own test data and on each foreign set, and where they part."""
    steps = chains.chain_of(study.model).chain.steps
    ks = sorted({max(1, round(q * steps)) for q in FRACTIONS})
    sets = {study.splits.name: study.held_out[0], **study.foreign}
    curves = {name: chains.reconstruction(study.model, x, ks, seed=study.seed) for name, x in sets.items()}
    own, t = curves[study.splits.name], torch.tensor(ks) / steps
    switches = {
        name: chains.switching_point(t, own.absolute, curves[name].absolute, seed=study.seed) for name in study.foreign
    }
    rows = [
        [f"{k / steps:.3f}", *[f"{e.absolute[i].mean():.4f}, {e.similarity[i].mean():.3f}" for e in curves.values()]]
        for i, k in enumerate(ks)
    ]
    notes = [
        f"On {name} the error exceeds that on {study.splits.name} by more than 0.01 from t = {s.t:.3f} "
        f"[{s.low:.3f}, {s.high:.3f}] on (95 % over {study.count} examples each)."
        for name, s in switches.items()
    ]
    titles = ["t", *[f"{name}: MAE, MS-SSIM" for name in curves]]
    return Analysis(titles, rows, draw.reconstruction_figure(curves, steps, switches), notes)


def switching(study: Study) -> Analysis:
    """Where the error on foreign data parts from that on own data; needs --foreign."""
    if not study.foreign_names:
        raise Unsupported("The switching point compares with foreign data: name some, e.g. --foreign mnist.")
    return reconstruction(study)


def vlb(study: Study) -> Analysis:
    """Share of the bound per step, and over training where the run kept averages (snapshot_every)."""
    x = study.held_out[0][:200]
    condition = study.conditions(len(x))
    terms = {}
    for label, model in _moments(study):
        terms[label] = chains.bound_terms(model, x, condition=condition, seed=study.seed)
    last = list(terms.values())[-1]
    steps, rows = len(last) - 1, []
    for label, value in terms.items():
        share = value.cumsum(0) / value.sum()
        at = [f"{100 * share[max(1, round(q * steps)) - 1]:.1f} %" for q in (0.01, 0.1, 0.2, 0.5)]
        rows.append([label, f"{value.sum():.1f}", f"{100 * share[0]:.1f} %", *at, f"{value[-1]:.2g}"])
    titles = ["weights", "-bound, nats", "first step", "to t = 0.01", "0.1", "0.2", "0.5", "prior, nats"]
    return Analysis(titles, rows, draw.bound_figure(terms), [])


def _moments(study: Study) -> list[tuple[str, Model]]:
    """The model at up to four moments of training, from its averages of length 0.05, and as it is at the end."""
    position, about = folders.position(study.run)
    kept = folders.stage_folder(study.run, position, about["stages"]) / "averages"
    steps = posthoc.kept(kept) if kept.is_dir() else []
    found = []
    for step in [steps[round(i * (len(steps) - 1) / 3)] for i in range(4)] if len(steps) > 3 else steps:
        model = runs.load(study.run).to(study.model.device)
        storage.restore(model, storage.state(model) | posthoc.recombined(kept, 0.05, step), f"averages at {step}")
        found.append((f"after {step} updates", model))
    return [*found, ("at the end", study.model)]


def samplers(study: Study) -> Analysis:
    """Fréchet distance from test data against network evaluations, for every sampler, beside all ancestral steps."""
    diffusion, x = chains.chain_of(study.model), study.splits.test[torch.arange(min(len(study.splits.test), 10_000))].x
    real, condition = study.extractor(x.cpu()), study.conditions(study.samples)

    def distance(**how: Any) -> Estimate:
        drawn = study.model.sample(study.samples, condition=condition, seed=study.seed, **how).cpu()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the table says how many samples there are
            return frechet_distance(real=real, generated=study.extractor(drawn), seed=study.seed)

    found = []
    for name in SAMPLERS:
        for n in study.evaluations:
            if n <= SAMPLERS[name].evaluations(diffusion.chain.steps):
                used = diffusion.evaluations(sampler=name, evaluations=n)  # pyright: ignore[reportArgumentType]
                found.append((name, used, distance(sampler=name, evaluations=n)))
    whole = distance(sampler="ancestral")
    plotted = [(name, n, e.value, *e.interval[:2]) for name, n, e in found]
    every = [*found, ("ancestral", diffusion.chain.steps, whole)]
    rows = [[name, n, f"{e.value:.2f} [{e.interval[0]:.2f}, {e.interval[1]:.2f}]"] for name, n, e in every]
    notes = [f"{study.samples} samples, features {study.extractor.name} {study.extractor.hash}."]
    figure = draw.quality_figure(plotted, (whole.value, *whole.interval[:2]))
    return Analysis(["sampler", "evaluations", "Fréchet distance"], rows, figure, notes)


def probes(study: Study) -> Analysis:
    """Accuracy (or AUC of each attribute) of linear probes of every layer at every noise level."""
    train = examples(study.splits.train, 4 * study.count)
    x, y = study.held_out
    if train[1] is None or y is None:
        raise Unsupported("Probes need labels or attributes, and this data set has none.")
    if study.splits.spec.classes:
        found, what = probe_map(study.model, (train[0], train[1]), (x, y), NOISES, seed=study.seed), "probe accuracy"
    else:
        names = study.splits.about.get("condition") or [f"attribute {i}" for i in range(study.splits.spec.condition)]
        found = attribute_map(study.model, (train[0], train[1]), (x, y), names, NOISES, seed=study.seed)
        what = "AUC of probes"
    rows = [
        [layer, *[f"{v:.3f} ± {e:.3f}" for v, e in zip(found.values[i], found.errors[i], strict=True)]]
        for i, layer in enumerate(found.layers)
    ]
    notes = [f"Fitted on {len(train[0])} training examples, measured on {len(x)} test examples."]
    return Analysis(["layer", *[f"t = {n:g}" for n in found.noises]], rows, draw.heat_map(found, what), notes)


def decisions(study: Study) -> Analysis:
    """When on the way from noise to a sample a classifier has made up its mind."""
    classify = study.extractor.probabilities
    n = min(study.samples, 500)
    found = chains.decisions(study.model, classify, n, condition=study.conditions(n), seed=study.seed)
    rows = [
        [f"{found.t[i]:.3f}", f"{found.agreement[i]:.3f}", f"{found.confidence[i]:.3f}"]
        for i in range(0, len(found.t), max(1, len(found.t) // 10))
    ]
    notes = [f"{n} samples by ddim, classified by {study.extractor.name} from the estimates of x_0."]
    return Analysis(["t", "agrees with the end", "confidence"], rows, draw.decision_figure(found), notes)


ANALYSES: Mapping[str, Callable[[Study], Analysis]] = {
    "snr": snr,
    "reconstruction": reconstruction,
    "switching": switching,
    "vlb": vlb,
    "samplers": samplers,
    "probes": probes,
    "decisions": decisions,
}


def analyse(
    run: str | os.PathLike[str],
    what: Sequence[str] = (),
    *,
    out: str | os.PathLike[str] | None = None,
    foreign: Sequence[str] = (),
    data: runs.DataLike | None = None,
    examples: int = 500,
    samples: int = 1000,
    evaluations: Sequence[int] = EVALUATIONS,
    seed: int = 0,
    device: str = "auto",
) -> dict[str, dict[str, Any]]:
    """Analyse the diffusion model of a run; writes NAME.json and NAME.png of each analysis, and returns the tables.

    Args:
        run: The folder.
        what: Names of analyses; all that apply by default.
        out: A folder; by default `analyses` in the run.
        foreign: Data sets of the same shape that the model never saw.
        data: Where the data are now; None: where config.yaml says.
        examples: Of the test split, and of each foreign set, at most.
        samples: Drawn for each distance.
        evaluations: Of the network, at which samplers are compared.
        seed: Of everything random.
        device: auto takes an accelerator when there is one.
    """
    for name in what:
        choose(name, ANALYSES, "analysis")
    how: dict[str, Any] = {"examples": examples, "samples": samples, "evaluations": evaluations}
    study = Study(Path(run), foreign=foreign, data=data, seed=seed, device=device, **how)
    folder = Path(out or Path(run) / "analyses")
    return {name: written(study, name, folder, asked=bool(what)) for name in what or ANALYSES}


def written(study: Study, name: str, folder: Path, *, asked: bool = True) -> dict[str, Any]:
    """One analysis, kept in the folder; where it does not apply: its reason, or the error if it was asked for."""
    try:
        found = ANALYSES[name](study)
    except Unsupported as reason:
        if asked:
            raise ValueError(str(reason)) from reason
        return {"reason": str(reason)}
    folder.mkdir(parents=True, exist_ok=True)
    with storage.atomic(folder / f"{name}.png") as temporary:
        found.figure.savefig(temporary, format="png", dpi=110)
    table = {"columns": found.columns, "rows": found.rows, "notes": found.notes, "picture": f"{name}.png"}
    storage.write_json(folder / f"{name}.json", table)
    return table
