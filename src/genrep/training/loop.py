"""`fit`: the one training loop, with exact resume."""

from __future__ import annotations

import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from genrep import storage
from genrep.contracts import Data, Model, Recipe, evaluating
from genrep.data.batches import InMemory
from genrep.training import checkpoint, posthoc, ranks, sharding
from genrep.training.log import Bar, Log, Record, Window
from genrep.training.measure import mode_for
from genrep.training.noise import reseed
from genrep.training.settings import Settings
from genrep.training.trainer import Hook, Hooks, Mode, Trainer, part

_FIRST = 5.0  # seconds until the first checkpoint, at most
_HELD_OUT = 2048  # examples of the validation split that the held-out loss looks at


class Outcome(NamedTuple):
    """What a fit did."""

    steps: int  # updates of this stage done in all, earlier parts of the run included
    stopped_early: bool
    settings: Settings  # as resolved
    mode: Mode
    log: list[Record]


@dataclasses.dataclass
class _Progress:
    """What a checkpoint keeps besides tensors."""

    best: float = float("inf")
    misses: int = 0
    best_weights: dict[str, Tensor] = dataclasses.field(default_factory=dict)


def fit(
    model: Model,
    data: Data,
    settings: Settings,
    *,
    validation: Data | None = None,
    folder: Path | None = None,
    stage: int = 0,
    mode: Mode | None = None,
    resume: bool = False,
    progress: bool = False,
    about: dict[str, Any] | None = None,
    still: Sequence[str] = (),
    before_update: Hook | None = None,
    after_update: Hook | None = None,
) -> Outcome:
    """Train one stage of a model in place; afterwards it holds the averaged weights and is in eval mode.

    Processes that `torchrun` started train together: each takes its part of every update, rank 0 writes.

    Args:
        model: What to train; its parameters are changed in place.
        data: The training split.
        settings: How; what is None there is filled in from the model's suggestions.
        validation: Held-out data, needed for `settings.validate_every`.
        folder: Where `log.jsonl` and `checkpoints/` go; None: nowhere.
        stage: Which of the model's objectives.
        mode: The arithmetic; None: what the settings say, measured where they leave it open.
        resume: Continue from the newest checkpoint in `folder`, bit for bit; with as many processes as before.
        progress: Show a bar on a terminal.
        about: More for the header of the checkpoints.
        still: Module paths of learnt parts that are held in eval mode: their weights learn, their statistics and
            tables stay.
        before_update: Called with the number of the update when its gradients are there, before they are clipped.
        after_update: Called with it when the weights have changed. State that the two change belongs into buffers of
            the model, so that it is saved.

    Raises:
        ValueError: Settings that do not fit, a checkpoint of another model, parameters that no gradient reaches, or a
            folder that another run is writing to.
        FloatingPointError: A term or gradient that is not finite; the last checkpoint is kept.
        ConnectionError: Another process of the run was lost; the last checkpoint is kept.
        OSError: The disk is full, or not to be written to; the last checkpoint is kept.
        KeyboardInterrupt: After Ctrl-C or SIGTERM, when the update at hand is done and a checkpoint written.
    """
    ranks.join()
    settings = settings.resolved(model, len(data))
    if settings.tensorboard and folder is None:
        raise ValueError("tensorboard writes into the folder of the run: give one.")
    if settings.validate_every and validation is None:
        raise ValueError("validate_every needs held-out data; pass validation=.")
    if not settings.sharded:  # else it need not fit
        model.to(settings.device)
    data = on_device(data, settings.device)
    held_out = None if validation is None else on_device(validation, settings.device)
    title = f"stage {stage}" if len(model.objectives) > 1 else "training"
    hooks = Hooks(tuple(still), before_update, after_update)
    with ranks.reporting_loss(), _claimed(folder):
        mode = mode or mode_for(model, data, settings, stage=stage)
        run = _Run(Trainer(model, data, settings, mode, stage, hooks), folder, about or {})
        if resume:
            run.resume()
        run.log = Log(folder, upto=run.trainer.step if resume else -1, tensorboard=settings.tensorboard)
        with torch.random.fork_rng(), Bar(title, settings.steps, run.trainer.step, shown=progress) as bar:
            stopped = run.go(bar, held_out)
            run.finish(held_out)
        if settings.sharded:
            run.trainer.into(model)
            model.to(settings.device).eval()
    return Outcome(run.trainer.step, stopped, settings, mode, run.log.records)


@contextmanager
def _claimed(folder: Path | None) -> Iterator[None]:
    """The folder is this run's alone inside, and all ranks know it."""
    with ExitStack() as claim:
        problem = None
        if folder is not None and ranks.first():
            try:
                claim.enter_context(storage.locked(folder))
                checkpoint.sweep(folder / "checkpoints")
            except (ValueError, OSError) as error:
                problem = error
        if ranks.any_of(problem is not None)[0]:
            raise problem or ValueError(f"Rank 0 could not take the folder {folder}; its own message says why.")
        yield


def on_device(data: Data, device: str) -> Data:
    """The data there, if they can move and take at most half of its free memory; else as they are: batches move."""
    if not isinstance(data, InMemory):
        return data
    if device.startswith("cuda") and data.nbytes > torch.cuda.mem_get_info(device)[0] / 2:
        return data
    return data.to(device)


class _Run:
    """A trainer with its log, its checkpoints and the watch over its health."""

    def __init__(self, trainer: Trainer, folder: Path | None, about: dict[str, Any]) -> None:
        self.trainer, self.settings = trainer, trainer.settings
        self.folder = None if folder is None else folder / "checkpoints"
        self.about, self.state, self.window = about, _Progress(), Window()
        self.log, self.marked, self.last_is_best = Log(None), (0, 0.0), False

    def go(self, bar: Bar, validation: Data | None) -> bool:
        """Updates until the steps are done (False) or patience ends (True)."""
        t, s = self.trainer, self.settings
        start = time.perf_counter()
        saved = start - max(0.0, s.checkpoint_seconds - _FIRST)  # a run that dies young can be resumed, too
        self.marked = (t.step, start)
        with _interruptible() as interrupted:
            while t.step < s.steps and not self._out_of_patience():
                step = t.step
                self.window.add(step, t.update())
                record = None
                if t.step == t.objective.probation:
                    self._check_reach()
                if t.step % s.log_every == 0:
                    record = self._line()
                if s.validate_every and validation is not None and t.step % s.validate_every == 0:
                    self._validate(validation)
                if t.powers is not None and t.step % s.snapshot_every == 0:
                    self._snapshot(t.powers)
                bar.advance(t.step, record)
                stop, due = ranks.any_of(interrupted(), time.perf_counter() - saved > s.checkpoint_seconds)
                if stop or due:
                    self.save()
                    saved = time.perf_counter()
                if stop:
                    raise KeyboardInterrupt
        return t.step < s.steps

    def _snapshot(self, powers: posthoc.PowerAverages) -> None:
        if self.folder is not None and ranks.first():
            posthoc.write(self.folder.parent / "averages", powers)

    def _out_of_patience(self) -> bool:
        return bool(self.settings.patience) and self.state.misses >= self.settings.patience

    def _check_reach(self) -> None:
        if names := self.trainer.untrained():
            shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
            raise ValueError(
                f"No gradient reached {shown} in {self.trainer.step} updates, though the objective claims to learn "
                "them. The parts do not fit together: check what the objective computes and its `learns`."
            )

    def _line(self) -> Record:
        self.window.check()
        t, s, now = self.trainer, self.settings, time.perf_counter()
        speed = (t.step - self.marked[0]) * (s.batch or 1) * s.accumulate * ranks.world() / (now - self.marked[1])
        rates = {player: o.param_groups[0]["lr"] for player, o in t.optimisers.items()}
        record: Record = {"step": t.step, "terms": self.window.means(), "lr": rates, "images_per_second": speed}
        if t.step % s.log_every:
            record["partial"] = True
        self.log.append(record)
        self.window.clear()
        self.marked = (t.step, now)
        return record

    def _weights(self) -> dict[str, Tensor]:
        average = self.trainer.average
        found = storage.state(self.trainer.model) | ({} if average is None else average.tensors())
        return {name: t.detach().clone() for name, t in sharding.whole(found).items()}

    def _validate(self, validation: Data) -> None:
        loss = ranks.of_first(held_out_loss(self.trainer, validation))
        self.log.append({"step": self.trainer.step, "validation": loss})
        if loss < self.state.best:
            self.state.best, self.state.misses = loss, 0
            if self.settings.patience or self.settings.keep_best:
                self.state.best_weights = self._weights()
        else:
            self.state.misses += 1

    def save(self) -> None:
        """A checkpoint of a state that is known to be finite."""
        self.window.check()
        if self.folder is None:
            return
        t = self.trainer
        if ranks.world() > 1:
            checkpoint.write_own(self.folder, t.step, ranks.rank(), t.buffers())
        tensors = t.tensors() | self.window.tensors()
        tensors |= {f"model/{name}": s for name, s in ranks.mean_statistics(t.model).items()}
        if (name := storage.not_finite(tensors)) is not None:
            raise FloatingPointError(
                f"Update {t.step}: {name} is not finite. The checkpoint before it is kept. Try a lower lr, or clip."
            )
        tensors |= {f"best/{name}": w for name, w in self.state.best_weights.items()}
        recipe = t.model.recipe
        about = self.about | {
            "step": t.step, "stage": t.stage, "settings": dataclasses.asdict(self.settings), "mode": t.mode._asdict(),
            "window": self.window.steps, "misses": self.state.misses,
            "best": self.state.best if self.state.best < float("inf") else None,
            "recipe": None if recipe is None else recipe._asdict(), "data": t.model.data._asdict(),
            "ranks": ranks.world(), "last_is_best": self.last_is_best,
        }  # fmt: skip
        ranks.wait()  # so that a checkpoint is there only with the files of all its ranks
        if ranks.first():
            checkpoint.write(self.folder, t.step, tensors, about)

    def resume(self) -> None:
        if self.folder is None:
            raise ValueError("resume=True needs the folder of the run.")
        path, (tensors, about) = checkpoint.newest_of_all_ranks(self.folder)
        if about["stage"] != self.trainer.stage:
            raise ValueError(f"{path.name} belongs to stage {about['stage']}, expected stage {self.trainer.stage}.")
        if best := part(tensors, "best/"):
            storage.check(best, storage.state(self.trainer.model), f"{path.name} (best)")
        self.trainer.restore(tensors, about["step"], source=path.name)
        if self.trainer.step >= self.trainer.objective.probation:
            self.trainer.unreached.clear()
        self.window.load(part(tensors, "window/"), about["window"])
        least = float("inf") if about["best"] is None else about["best"]
        self.state = _Progress(least, about["misses"], best)

    def finish(self, validation: Data | None) -> None:
        """Write the last checkpoint and what is left of the log; leave the best or averaged weights in the model.

        The last weights may be better than any that were measured on the way. That is noted apart from `best`, which a
        longer run continues from as if this one had not ended here.
        """
        t = self.trainer
        if self.state.best_weights and validation is not None:
            self.last_is_best = ranks.of_first(held_out_loss(t, validation)) < self.state.best
        self.save()
        if self.window.values:
            self._line()
        if self.state.best_weights and not self.last_is_best:
            best = sharding.spread(self.state.best_weights, storage.state(t.model))
            storage.restore(t.model, best, "the best weights")
        elif t.average is not None:
            t.average.into_live()
        for name, s in ranks.mean_statistics(t.model).items():
            t.model.get_buffer(name).copy_(s)
        t.model.requires_grad_(True)  # noqa: FBT003
        t.model.eval()


def held_out_loss(trainer: Trainer, validation: Data) -> float:
    """Mean total of the model's player on held-out data, with the averaged weights, always with the same noise."""
    model, total, count = trainer.model, 0.0, 0
    applied = trainer.average.applied() if trainer.average is not None else nullcontext()
    with torch.no_grad(), evaluating(model), applied:
        n = min(len(validation), _HELD_OUT)
        for i, index in enumerate(torch.arange(n).split(trainer.settings.batch or 1)):
            reseed(trainer.device, trainer.settings.seed, trainer.stage, i)
            loss, _ = trainer.loss(trainer.placed(validation[index]), "model")
            total, count = total + loss.item() * len(index), count + len(index)
    return total / count


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C or SIGTERM inside only raises a flag, so that no update is cut in half; a second one acts at once.

    Of several processes, one that fails does not react to SIGTERM any more: torchrun sends it to all as soon as one has
    ended, and each must live until it has told why it ends.
    """
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag.is_set
        return

    def handle(number: int, _: object) -> None:
        flag.set()
        if ranks.world() == 1:  # torchrun passes on what the terminal has sent already, and ends who takes too long
            signal.signal(number, before[number])

    before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, handle)
    try:
        yield flag.is_set
    except BaseException:
        if ranks.world() > 1:
            del before[signal.SIGTERM]
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def restored(
    folder: Path, build: Callable[[Recipe, Any], Model], average: float | None = None
) -> tuple[Model, dict[str, Any]]:
    """The model of a run folder with its averaged (or best) weights, made by `build(recipe, data)`.

    `average`: the relative length of a power-function average to take instead (see `posthoc`).
    """
    path, (tensors, about) = checkpoint.newest(folder / "checkpoints")
    recipe, _ = checkpoint.described(about, str(path))
    model = build(recipe, about["data"])
    if averaged := part(tensors, "ema/"):
        parameters = {k: p for k, p in storage.state(model).items() if isinstance(p, nn.Parameter)}
        storage.check(averaged, parameters, f"{path.name} (ema)")
    storage.check(live := part(tensors, "model/"), storage.state(model), path.name)
    last = live | averaged
    chosen = last if about.get("last_is_best") is True else part(tensors, "best/") or last
    if average is not None:
        chosen = chosen | posthoc.recombined(folder / "averages", average)
    storage.restore(model, chosen, path.name)
    return model.eval(), about
