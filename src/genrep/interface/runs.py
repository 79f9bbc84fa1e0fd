"""Train, continue and load: what the command line does, as functions."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from genrep import data as data_sets
from genrep import models, storage
from genrep.contracts import DataSpec, Model, Recipe, seeded
from genrep.data.arrays import Layout
from genrep.data.splits import Splits
from genrep.interface import config, folders
from genrep.interface.labels import check_labels
from genrep.interface.samples import save_samples
from genrep.interface.sizes import check_sizes
from genrep.naming import choose
from genrep.training import checkpoint, loop, ranks
from genrep.training.measure import fastest, mode_for
from genrep.training.settings import Settings
from genrep.training.trainer import Mode

DataLike = str | os.PathLike[str] | Splits | Tensor | np.ndarray
_ROWS = 1000  # of a table that a histogram needs at least
_MEASURING = 4.0  # seconds, at most, to find the fastest arithmetic


class Trained(NamedTuple):
    """A model, and what training it was like."""

    model: Model
    outcome: loop.Outcome  # of the last stage
    seconds: float
    picture: Path | None


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with a message on how to go on."""


def fit(
    model: str | Model,
    data: DataLike,
    *,
    steps: int | None = None,
    seconds: float | None = None,
    out: str | os.PathLike[str] | None = None,
    options: Mapping[str, Any] | None = None,
    label: str | None = None,
    condition: Sequence[str] = (),
    layout: Layout | None = None,
    samples: int = 64,
    progress: bool = True,
    **settings: Any,
) -> Model:
    """Train a model and return it, with averaged weights and in eval mode.

    Args:
        model: A name (`genrep.models.names()`), or a model of your own, which is trained in place.
        data: A named set, a path, splits, or an array or tensor of examples.
        steps: Updates (1000).
        seconds: Of training instead, turned once into steps by a short measurement.
        out: A new folder for the run: config.yaml, log.jsonl, checkpoints/, samples/; None: nothing is written.
        options: Of the named model (`genrep.models.options(name)`).
        label: Column that holds the labels, where the data leave a choice.
        condition: Columns that hold the condition.
        layout: NCHW or NHWC, where the data leave a choice.
        samples: In the picture at the end, if there is a folder; 0: no picture.
        progress: Show a bar on a terminal.
        **settings: See `genrep.Settings`.

    Raises:
        ValueError: Anything unknown or unfit, or a folder that holds something; nothing is left behind.
        FloatingPointError: A loss that is not finite; the last checkpoint is kept.
        KeyboardInterrupt: After Ctrl-C; a checkpoint is written first.

    >>> fit("vae", "digits", steps=2, options={"latent": 4}, progress=False).encode(torch.zeros(1, 1, 8, 8).int()).shape
    torch.Size([1, 4])
    """
    return train(
        model,
        read(data, label=label, condition=condition, layout=layout),
        steps=steps,
        seconds=seconds,
        out=out,
        options=options,
        samples=samples,
        progress=progress,
        **settings,
    ).model


def train(
    model: str | Model,
    splits: Splits,
    *,
    steps: int | None = None,
    seconds: float | None = None,
    out: str | os.PathLike[str] | None = None,
    options: Mapping[str, Any] | None = None,
    samples: int = 64,
    progress: bool = True,
    **settings: Any,
) -> Trained:
    """As `fit`, on splits; returns also how training went."""
    if steps is not None and seconds is not None:
        raise ValueError("Give steps or seconds, not both.")
    if seconds is not None and not seconds > 0:
        raise ValueError(f"Expected seconds > 0, got {seconds}.")
    ranks.join()
    wanted = _settings(model, steps, settings)
    folder = None if out is None else folders.free(Path(out))
    ranks.wait()  # all have looked before one writes
    model = _built(model, splits.spec, options, wanted.seed)
    check_sizes(model, len(splits.train))
    check_labels(model, splits)
    wanted = wanted.resolved(model, len(splits.train))
    with folders.cleared_on_failure(folder):
        resolved, mode = _measured(model, splits, wanted, seconds, given_horizon=settings.get("horizon", 0))
        if folder is not None and ranks.first():
            notes = {} if seconds is None else {"steps": f"what a measurement said that {seconds:g} s allow"}
            if model.recipe is None:
                notes["model"] = "a model of your own: it has no name to build it by"
            if splits.about.get("origin") is None:
                notes["data"] = "given in Python: pass it again as data="
            config.write(folder, model.recipe, splits.about.get("origin"), resolved, notes)
        return _stages(model, splits, resolved, mode, folder, samples=samples, progress=progress)


def resume(
    run: str | os.PathLike[str],
    *,
    steps: int,
    data: DataLike | None = None,
    model: Model | None = None,
    device: str | None = None,
    samples: int = 64,
    progress: bool = True,
) -> Model:
    """Continue a run to `steps` updates in all, bit for bit as if it had never stopped, and return its model.

    Of a model with several stages, those at hand and to come get `steps` updates; a finished one stays as it is,
    because later ones were built on it.

    Args:
        run: The folder.
        steps: In all, those already done included.
        data: Where they are now; None: where config.yaml says.
        model: Needed for a model that no recipe built.
        device: None: the same as before.
        samples: In the picture at the end; 0: no picture.
        progress: Show a bar on a terminal.
    """
    return go_on(run, steps=steps, data=data, model=model, device=device, samples=samples, progress=progress).model


def go_on(
    run: str | os.PathLike[str],
    *,
    steps: int,
    data: DataLike | None = None,
    model: Model | None = None,
    device: str | None = None,
    samples: int = 64,
    progress: bool = True,
) -> Trained:
    """As `resume`; returns also how training went."""
    ranks.join()
    folder = Path(run)
    stage, about = folders.position(folder)
    if steps < about["step"]:
        raise ValueError(f"{folder} has {about['step']} steps already; give --steps of at least that, the total.")
    settings = dataclasses.replace(revived_settings(about["settings"]), steps=steps)
    if device is not None:
        settings = dataclasses.replace(settings, device=device)
    splits = data_of(folder, data)
    model = model or _rebuilt(about, folder)
    bare = splits.spec._replace(classes=model.data.classes) == model.data and not splits.spec.classes
    if bare and model.data.classes:
        splits = data_sets.unlabelled(splits, model.data.classes)
    if splits.spec != model.data:
        raise ValueError(
            f"The run was made for {model.data}, {splits.name} is {splits.spec}. Give the data of the run."
        )
    settings = settings.resolved(model, len(splits.train))
    origin = splits.about.get("origin")
    if ranks.first():
        config.write(folder, model.recipe, origin, settings, {})
    mode = Mode(**about["mode"])
    return _stages(model, splits, settings, mode, folder, samples=samples, progress=progress, done=stage)


def load(path: str | os.PathLike[str], *, average: float | None = None) -> Model:
    """The model of a run folder, with its averaged weights, or of a file that `Model.save` wrote; in eval mode.

    `average`: for a run trained with snapshot_every, the length of the average instead, relative to training: 0.1
    weighs roughly its last tenth.
    """
    return load_with(path, average=average)[0]


def load_with(path: str | os.PathLike[str], *, average: float | None = None) -> tuple[Model, dict[str, Any]]:
    """As `load`, and what its data said of themselves: names of classes and columns, where there are such."""
    path = Path(path)
    if path.is_dir():
        stage, about = folders.position(path)
        _rebuilt(about, path)  # for its message
        model, about = loop.restored(folders.stage_folder(path, stage, about["stages"]), _build, average)
        return model, about["set"]
    if average is not None:
        raise ValueError(f"average= needs the folder of a run, and {path} is a file, which holds one set of weights.")
    tensors, about = storage.load(path)
    if "version" not in about:
        raise ValueError(f"{path} is not a saved model: give the folder of a run, or a file that model.save wrote.")
    recipe, _ = checkpoint.described(about, str(path))
    model = _build(recipe, about["data"])
    storage.restore(model, tensors, path.name)
    return model.eval(), {}


# ---- the parts ---------------------------------------------------------------------------------------------------


def read(
    data: DataLike, *, label: str | None = None, condition: Sequence[str] = (), layout: Layout | None = None
) -> Splits:
    """Data of any kind as splits."""
    if isinstance(data, (str, os.PathLike)):
        return data_sets.load(data, label=label, condition=condition, layout=layout)
    if label or condition:
        raise ValueError("label and condition name columns of a file; for arrays use genrep.data.from_arrays(x, y).")
    return data if isinstance(data, Splits) else data_sets.from_arrays(data, layout=layout)


def data_of(run: Path, data: DataLike | None = None, *, shape: Sequence[int] = ()) -> Splits:
    """The data of a run, from where its config.yaml says, or from `data` if they are somewhere else now.

    `shape`: bring images there; by default what config.yaml says.
    """
    said = config.read(run / "config.yaml")
    source = said.get("data") if data is None else data
    if source is None:
        raise ValueError(f"{run} was trained on data given in Python: give them again (--data, or data=).")
    if not isinstance(source, (str, os.PathLike)):
        return read(source)
    return data_sets.load(
        source,
        label=said.get("label"),
        condition=said.get("condition") or (),
        layout=said.get("layout"),
        shape=shape or said.get("shape") or (),
        labelled=said.get("labelled") or 1.0,
    )


def _settings(model: str | Model, steps: int | None, given: Mapping[str, Any]) -> Settings:
    """Settings from keywords; a ValueError for an unknown one says which there are, or that it is the model's."""
    known = [field.name for field in dataclasses.fields(Settings)]
    own = models.options(model) if isinstance(model, str) else {}
    for name in given:
        if name in own:
            raise ValueError(f"{name} is an option of {model}: pass options={{{name!r}: ...}}.")
        choose(name, known, "setting")
    return Settings(**given) if steps is None else Settings(**given, steps=steps)


def _built(model: str | Model, spec: DataSpec, options: Mapping[str, Any] | None, seed: int) -> Model:
    if isinstance(model, str):
        with seeded(seed):
            return models.build(model, spec, **(options or {}))
    if options:
        raise ValueError("options are for models given by name; this one is built already.")
    if model.data != spec:
        raise ValueError(f"The model was made for {model.data}, the data are {spec}.")
    return model


def _measured(
    model: Model, splits: Splits, settings: Settings, seconds: float | None, *, given_horizon: int
) -> tuple[Settings, Mode]:
    """Settings that leave nothing open: the fastest arithmetic, and the steps that fit into `seconds`."""
    if not settings.sharded:  # else it need not fit
        model.to(settings.device)
    data = loop.on_device(splits.train, settings.device)
    # short trainings are measured briefly, so that measuring never takes longer than they do
    if seconds is None:
        mode = mode_for(model, data, settings, budget=min(_MEASURING, settings.steps * 0.01))
    else:
        budget = min(_MEASURING, seconds / 10)
        speeds = [fastest(model, data, settings, stage=i, budget=budget) for i in range(len(model.objectives))]
        mode, steps = speeds[0].mode, max(1, round(seconds / sum(speed.seconds for speed in speeds)))
        settings = dataclasses.replace(settings, steps=steps, horizon=given_horizon or steps)
    fixed = {
        "precision": "bfloat16" if mode.bfloat16 else "float32",
        "channels_last": "yes" if mode.channels_last else "no",
    }
    return dataclasses.replace(settings, **fixed), mode


def _stages(
    model: Model,
    splits: Splits,
    settings: Settings,
    mode: Mode,
    folder: Path | None,
    *,
    samples: int,
    progress: bool,
    done: int | None = None,
) -> Trained:
    """Train the stages in order, from the newest checkpoint of stage `done` if that is given; then draw a picture."""
    start, count = time.perf_counter(), len(model.objectives)
    about = {"stages": count, "set": {k: splits.about[k] for k in _SET if k in splits.about}}
    outcome = None
    for stage in range(done or 0, count):
        place = None if folder is None else folders.stage_folder(folder, stage, count)
        try:
            outcome = loop.fit(
                model,
                splits.train,
                settings,
                validation=splits.validation,
                folder=place,
                stage=stage,
                mode=mode,
                resume=stage == done,
                progress=progress,
                about=about,
            )
        except KeyboardInterrupt as error:
            if folder is None or not folders.has_checkpoint(folder):
                raise
            raise Interrupted(f"Stopped. To go on: genrep resume {folder} --steps {settings.steps}") from error
    assert outcome is not None
    seconds, picture = time.perf_counter() - start, None
    if folder is not None and ranks.first() and samples and model.generative.can_sample:
        picture = _picture(model, splits, folder, samples, settings.seed)
    return Trained(model, outcome, seconds, picture)


_SET = ("class_names", "characters", "columns", "condition", "condition_mean", "condition_std")


def _picture(model: Model, splits: Splits, folder: Path, n: int, seed: int) -> Path:
    """Samples at the end of a run, on the conditions of held-out examples if it needs some."""
    characters = splits.about.get("characters")
    path = folder / "samples" / ("samples.txt" if characters else "samples.png")
    n = n if len(splits.spec.shape) == 3 or characters else max(n, _ROWS)
    condition = None
    if model.generative.reads_y:
        held_out = splits.validation[torch.arange(n) % len(splits.validation)]
        condition = held_out.y if splits.spec.condition else torch.arange(n) % splits.spec.classes
    x = model.sample(n, condition=condition, seed=seed)
    save_samples(x, model.data, path, columns=splits.about.get("columns", ()), characters=characters)
    return path


def _rebuilt(about: Mapping[str, Any], folder: Path) -> Model:
    if about["recipe"] is None:
        raise ValueError(
            f"{folder} holds a model that no recipe built, so it cannot be built again by name: pass model= to "
            "genrep.resume, or make the function that builds it a @recipe in genrep/models."
        )
    return _build(Recipe(**about["recipe"]), about["data"])


def _build(recipe: Recipe, spec: Mapping[str, Any]) -> Model:
    """A model from what a file says; JSON has no tuples, options have no lists."""
    with seeded(0):  # the weights come from the file
        options = {k: _tuples(v) for k, v in recipe.options.items()}
        return models.build(recipe.name, DataSpec(**{k: _tuples(v) for k, v in spec.items()}), **options)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def revived_settings(found: Mapping[str, Any]) -> Settings:
    """Settings from JSON or YAML."""
    return Settings(**{k: _tuples(v) for k, v in found.items()})
