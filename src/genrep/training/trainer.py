"""One stage of training: parameters, optimisers and average, one update at a time.

Update k of player turns[k % len(turns)] is a function of the state before it and of (seed, stage, rank, k): its batch
comes from the order of the data, its noise from a generator set at its start. So any saved state continues exactly.
Batch m of A accumulated on one of R processes counts as that of rank r A + m among R A.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from genrep import storage
from genrep.contracts import Batch, Data, Model, Objective, Terms
from genrep.data.batches import Order
from genrep.data.binary import Redrawn
from genrep.training import ranks, sharding
from genrep.training.average import Average
from genrep.training.noise import reseed
from genrep.training.posthoc import PowerAverages
from genrep.training.settings import Settings


class Mode(NamedTuple):
    """How the arithmetic is done; it changes speed and rounding, never the method."""

    bfloat16: bool = False
    channels_last: bool = False
    compile: bool = False


Hook = Callable[[int], None]  # called with the number of the update


class Hooks(NamedTuple):
    """What else happens in an update; state that hooks change belongs into buffers of the model, which is saved."""

    still: tuple[str, ...] = ()  # module paths of learnt parts that are held in eval mode
    before_update: Hook | None = None  # gradients are there, not yet clipped; it may read and change them
    after_update: Hook | None = None  # weights are changed, gradients still there


class Trainer:
    """Everything that changes during a stage. `settings` are resolved: nothing in them is None."""

    def __init__(
        self, model: Model, data: Data, settings: Settings, mode: Mode, stage: int = 0, hooks: Hooks | None = None
    ) -> None:
        self.hooks = hooks or Hooks()
        if settings.sharded:
            sharding.check(model, settings)
            if self.hooks != Hooks():
                raise ValueError("sharded trains a copy, which hooks do not see: leave sharded or the hooks out.")
            model = sharding.shard(model, settings.device)  # what comes in is filled again by `into`
        self.model, self.data, self.settings, self.stage = model, data, settings, stage
        self.objective: Objective = model.objectives[stage]  # pyright: ignore[reportAttributeAccessIssue]
        self.turns = self.objective.turns
        self.device = torch.device(settings.device)
        self.learnable = {player: model.learnable(stage, player) for player in set(self.turns)}
        for player, parameters in self.learnable.items():
            if not parameters:
                raise ValueError(
                    f"Player {player!r} of stage {stage} has no parameters under {model.paths(stage, player)}."
                )
        self.optimisers = {
            player: torch.optim.AdamW(parameters.values(), fused=True, **settings.player(model, player))
            for player, parameters in self.learnable.items()
        }
        self.bases = {player: o.param_groups[0]["lr"] for player, o in self.optimisers.items()}
        own, world = settings.accumulate, ranks.world() * settings.accumulate
        self.orders = [
            Order(len(data), batch=settings.batch or 1, rank=ranks.rank() * own + m, world=world, seed=settings.seed)
            for m in range(own)
        ]
        self.unreached = {id(p) for parameters in self.learnable.values() for p in parameters.values()}
        self.step = 0
        self.player = ""
        self.use(mode)
        self.average = Average(model, settings.ema) if settings.ema else None
        self.powers = PowerAverages(model) if settings.snapshot_every else None
        self._train_mode()

    def use(self, mode: Mode) -> None:
        """Take this arithmetic from here on."""
        self.mode = mode
        self._freeze_all_but(self.unreached)
        if not self.settings.sharded:
            self.model.to(memory_format=torch.channels_last if mode.channels_last else torch.contiguous_format)  # pyright: ignore[reportCallIssue]
        self.parallel = self.model if self.settings.sharded else ranks.parallel(self.model)
        loss: Callable[..., tuple[Tensor, Terms]] = self._loss
        self.loss = torch.compile(self._loss) if mode.compile else loss

    def _train_mode(self) -> None:
        """Only what some player of this stage learns is in train mode: frozen parts keep their statistics."""
        self.model.eval()
        self.objective.training = True
        for player in self.learnable:
            for path in self.model.paths(self.stage, player):
                self.model.get_submodule(path).train()
        modules = dict(self.model.named_modules())
        for path in self.hooks.still:
            if path not in modules:
                raise ValueError(f"Expected still= to name modules of the model, it has no {path!r}.")
            modules[path].eval()

    def _loss(self, batch: Batch, player: str) -> tuple[Tensor, Terms]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mode.bfloat16):
            terms = self.parallel(batch, self.stage, player)
        return self.objective.total(terms), terms

    def _freeze_others(self, player: str) -> None:
        if player != self.player:
            self._freeze_all_but({id(p) for p in self.learnable[player].values()})
            self.player = player

    def _freeze_all_but(self, mine: set[int]) -> None:
        for p in self.model.parameters():
            p.requires_grad_(id(p) in mine)

    def _averaging(self, order: Order) -> AbstractContextManager[None]:
        """Ranks average their gradients once an update, in the backward pass of its last batch."""
        if self.settings.sharded:
            sharding.average_now(self.parallel, now=order is self.orders[-1])
        if isinstance(self.parallel, DistributedDataParallel) and order is not self.orders[-1]:
            return self.parallel.no_sync()
        return nullcontext()

    def update(self) -> dict[str, Tensor]:
        """One update of the player whose turn it is; returns its terms' means and the norm of its gradient."""
        player = self.turns[self.step % len(self.turns)]
        self._freeze_others(player)
        optimiser, parameters = self.optimisers[player], list(self.learnable[player].values())
        optimiser.zero_grad()
        found: list[Terms] = []
        for order in self.orders:
            reseed(self.device, self.settings.seed, self.stage, order.rank, self.step)
            with self._averaging(order):
                loss, terms = self.loss(self.placed(self.drawn(order(self.step))), player)
                (loss / len(self.orders)).backward()
            found.append({name: _mean(t.detach()) for name, t in terms.items()})
        if self.unreached:
            self.unreached -= {
                id(p) for p in parameters if p.grad is not None and bool(sharding.gathered(p.grad).any())
            }
        if self.hooks.before_update is not None:
            self.hooks.before_update(self.step)
        norm = sharding.gathered(nn.utils.clip_grad_norm_(parameters, self.settings.clip or torch.inf))
        for group in optimiser.param_groups:
            group["lr"] = self.bases[player] * self.settings.rate(self.step)
        optimiser.step()
        if self.hooks.after_update is not None:
            self.hooks.after_update(self.step)
        for average in (self.average, self.powers):
            if average is not None and player == "model":
                average.update()
        self.step += 1
        means = ranks.mean_terms(found, list(self.objective.weights))
        return means | {"gradient_norm" if player == "model" else f"gradient_norm/{player}": norm.detach()}

    def drawn(self, index: Tensor) -> Batch:
        """Those training examples; noise in them comes from the generator of the update."""
        return self.data.draw(index) if isinstance(self.data, Redrawn) else self.data[index]

    def placed(self, batch: Batch) -> Batch:
        """A batch on the device of training, in its memory layout."""
        x = batch.x.to(self.device, non_blocking=True)
        if self.mode.channels_last and x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        return Batch(x, None if batch.y is None else batch.y.to(self.device, non_blocking=True))

    def untrained(self) -> list[str]:
        """Names of the parameters that an objective claims to learn and no gradient has reached so far."""
        return [n for p in self.learnable.values() for n, w in p.items() if id(w) in self.unreached]

    def tensors(self) -> dict[str, Tensor]:
        """All that an exact continuation needs, by name."""
        state = {f"model/{name}": t for name, t in storage.state(self.model).items()}
        if self.average is not None:
            state |= {f"ema/{name}": w for name, w in self.average.tensors().items()}
        if self.powers is not None:
            state |= {f"power/{name}": w for name, w in self.powers.tensors().items()}
        for player, parameters in self.learnable.items():
            for name, p in parameters.items():
                slots = self.optimisers[player].state.get(p, {})
                state |= {f"optimiser/{player}/{name}/{slot}": t for slot, t in slots.items()}
        return sharding.whole(state)

    @torch.no_grad()
    def into(self, model: Model) -> None:
        """Give another model of the same kind, which is whole, the weights and buffers of this one."""
        mine, theirs = sharding.whole(storage.state(self.model)), storage.state(model)
        for name, t in theirs.items():
            t.copy_(mine[name])

    def buffers(self) -> dict[str, Tensor]:
        """What may differ from rank to rank, named as in `tensors`."""
        return {f"model/{k}": t for k, t in storage.state(self.model).items() if not isinstance(t, nn.Parameter)}

    def restore(self, tensors: dict[str, Tensor], step: int, *, source: str) -> None:
        """Continue from `tensors` at update `step`; a ValueError where they do not fit, before anything is changed."""
        storage.check(part(tensors, "model/"), storage.state(self.model), source)
        averages = {} if self.average is None else self.average.tensors()
        storage.check(part(tensors, "ema/"), averages, f"{source} (ema)")
        powers = {} if self.powers is None else self.powers.tensors()
        storage.check(part(tensors, "power/"), powers, f"{source} (power-function averages)")
        slots = {player: self._slots(tensors, player, source) for player in self.learnable}
        storage.restore(self.model, sharding.spread(part(tensors, "model/"), storage.state(self.model)), source)
        rounds, rest = divmod(step, len(self.turns))
        done = rounds * self.turns.count("model") + self.turns[:rest].count("model")
        if self.average is not None:
            self.average.load(sharding.spread(part(tensors, "ema/"), averages), done)
        if self.powers is not None:
            self.powers.load(part(tensors, "power/"), done)
        for player, parameters in self.learnable.items():
            state: Any = self.optimisers[player].state
            state.clear()
            for name, found in slots[player].items():
                p = parameters[name]
                state[p] = {k: _laid_out_like(p, t) for k, t in found.items()}
        self.step = step

    def _slots(self, tensors: dict[str, Tensor], player: str, source: str) -> dict[str, dict[str, Tensor]]:
        """AdamW's state by parameter; a parameter that no gradient has reached has none."""
        slots: dict[str, dict[str, Tensor]] = {}
        for key, t in part(tensors, f"optimiser/{player}/").items():
            name, _, slot = key.rpartition("/")
            slots.setdefault(name, {})[slot] = t
        if not slots.keys() <= self.learnable[player].keys():
            raise ValueError(f"{source} does not fit this model: its optimiser knows other parameters.")
        for name, found in slots.items():
            p = self.learnable[player][name]
            like = {"step": torch.zeros((), dtype=torch.float32), "exp_avg": p, "exp_avg_sq": p}
            storage.check(found, like, f"{source} (optimiser of {name})")
        return slots

    @contextmanager
    def rehearsal(self) -> Iterator[None]:
        """Updates inside leave no trace: state, step and what gradients reached are as before."""
        kept, step, unreached = (
            {k: t.detach().clone() for k, t in self.tensors().items()},
            self.step,
            set(self.unreached),
        )
        try:
            yield
        finally:
            self.restore(kept, step, source="the state before")
            self.unreached = unreached


def _mean(term: Tensor) -> Tensor:
    return term.mean(dtype=torch.promote_types(term.dtype, torch.float32))


def _laid_out_like(parameter: Tensor, slot: Tensor) -> Tensor:
    """A copy on the parameter's device; moments in its memory layout, because the fused kernel walks them together."""
    if slot.shape == parameter.shape:
        slot = sharding.placed_like(parameter, slot)
        return torch.empty_like(parameter, dtype=slot.dtype, requires_grad=False).copy_(slot)
    return slot.to(parameter.device, copy=True)


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose names start with `prefix`, without it."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
