"""BinPlay: every example has a binary code of its own, found again from its number, and a decoder that knows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genrep import storage
from genrep.continual.assignment import Matching, by_tree, match_all
from genrep.continual.binary import Assigning, LossName, Recalling, SoftTargets
from genrep.continual.codes import Codes, TaskCode
from genrep.continual.computed import BLOCK, Computed
from genrep.continual.strategy import Phase, Setting, Strategy, frozen, needs
from genrep.contracts import Batch, Data, Inference, Model, seeded
from genrep.data.batches import InMemory
from genrep.distributions.autoencoder import coder_pair
from genrep.distributions.domains import domain_for
from genrep.distributions.latent import Decoded
from genrep.naming import choose
from genrep.nets.autoencoder import NetworkName
from genrep.nets.condition import encode_condition
from genrep.objectives.autoencoding import Autoencoding

Assignment = Literal["greedy", "exact", "semantic", "order"]
Start = Literal["adjust", "anew", "local"]
Images = Literal["decoded", "original"]
Targets = Literal["soft", "hard"]
_WARM_UP = 0.15  # of the encoder's updates without assignment: 3 of 20 epochs, as published


class How(NamedTuple):
    """The options, as `binplay` explains them."""

    assignment: Assignment
    weight: float
    decoder: Start
    lr: float
    first_lr: float
    new: Images
    targets: Targets
    loss: LossName
    share: tuple[float, float, float]  # of encoder, decoder and classifier


class Numbers(nn.Module):
    """How many examples each task had, (T,) int64: all that is needed to find their codes."""

    counts: Tensor

    def __init__(self, tasks: int) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(tasks, dtype=torch.int64))

    def start(self, task: int) -> int:
        """The number of the first example of a task."""
        return int(self.counts[:task].sum())


class BinPlay(Strategy):
    """Only the decoder, the classifier and a counter for each task outlive a task."""

    kept = ("model", "coder.generative", "numbers")
    place: Tensor  # of each example of the task among its codes

    def __init__(self, setting: Setting, codes: Codes, network: Mapping[str, Any], how: How) -> None:
        super().__init__()
        self.model, self.codes, self.how, self.setting = setting.make(), codes, how, setting
        needs(self.model, "classify", "binplay")
        if not setting.spec.classes:
            raise ValueError("Strategy binplay trains a classifier, and these data have no labels: name them.")
        self.room, self.network = max(setting.sizes), network
        self.coder, self.numbers = self._autoencoder(), Numbers(setting.tasks)
        self.encodes = how.assignment in get_args(Matching)
        self.local = self._autoencoder() if self.encodes else None  # decodes embeddings, while codes are looked for
        self.register_buffer("place", torch.zeros(self.room, dtype=torch.int64))

    def _autoencoder(self) -> Model:
        posterior, likelihood = coder_pair(
            self.setting.spec, latent=self.codes.bits, likelihood="squared_error", point=True, **self.network
        )
        how = self.how
        stages = [Autoencoding(), Recalling()]
        if how.assignment in get_args(Matching):
            stages.insert(1, Assigning(how.weight, how.assignment, self.room))  # pyright: ignore[reportArgumentType]
        domain = domain_for(self.setting.spec)
        return Model(self.setting.spec, Decoded(likelihood), Inference(latent=posterior), *stages, domain=domain)

    def codes_of(self, number: Tensor) -> Tensor:
        """Codes of the examples of these numbers, (B,) -> (B, n)."""
        ends = self.numbers.counts.cumsum(0)
        number = number.to(ends.device)
        return self.codes(number, torch.searchsorted(ends, number, right=True).clamp_max(len(ends) - 1))

    @torch.no_grad()
    def recalled(self, task: int, n: int) -> Tensor:
        first, count = self.numbers.start(task), int(self.numbers.counts[task])
        return self.coder.decode(self.codes_of(torch.arange(first, first + min(n, count))))

    def learn(self, task: int, data: Data) -> list[Phase]:
        assert isinstance(data, InMemory)
        return _Task(self, task, data).phases()


class _Task:
    """The phases of one task."""

    def __init__(self, strategy: BinPlay, task: int, data: InMemory) -> None:
        self.all, self.task, self.data, self.how = strategy, task, data, strategy.how
        self.first = strategy.numbers.start(task)
        self.last = self.first + len(data)

    def phases(self) -> list[Phase]:
        encoder, decoder, classifier = self.how.share
        found = [self._decoder(decoder), self._classifier(classifier)]
        return self._encoder(encoder) + found if self.all.encodes else found

    # ---- which example gets which code ----

    def _encoder(self, share: float) -> list[Phase]:
        local = self.all.local
        assert local is not None
        objective = local.objectives[1]
        assert isinstance(objective, Assigning)

        def begin() -> None:
            storage.restore(local.generative, storage.state(self.all.coder.generative), "the decoder so far")

        def start() -> None:
            self._count()
            objective.codes = (self._codes(),)

        @torch.no_grad()
        def finish() -> None:
            z = torch.cat([local.encode(x) for x in self.data.x.split(BLOCK)])
            self._place(match_all(z, self._codes(), objective.how))

        return [
            Phase(local, lambda: self.data, 0, start=begin, share=share * _WARM_UP),
            Phase(local, lambda: self.data, 1, start=start, finish=finish, share=share * (1 - _WARM_UP)),
        ]

    def _count(self) -> None:
        self.all.numbers.counts[self.task] = len(self.data)

    def _codes(self) -> Tensor:
        return self.all.codes_of(torch.arange(self.first, self.last))

    def _place(self, place: Tensor) -> None:
        self.all.place[: len(self.data)] = place.to(self.all.place.device)

    def _place_without_encoder(self) -> None:
        if self.how.assignment == "semantic":
            number = torch.arange(self.first, self.last)
            self._place(by_tree(self._meaning(), number, self.all.codes.word))
        else:
            self._place(torch.arange(len(self.data)))

    def _meaning(self) -> Tensor:
        """Images (N, D) and, as long as they are far from their mean, labels: classes are told apart first."""
        inside = self.all.coder.domain.inward(self.data.x.to(self.all.coder.device)).flatten(1)
        radius = (inside - inside.mean(0)).square().sum(1).mean().sqrt()
        assert self.data.y is not None
        y = self.data.y.to(inside.device)
        return torch.cat([inside, radius * encode_condition(y, self.all.model.data.classes, inside)], 1)

    def _in_order(self, values: Tensor) -> Tensor:
        """What belongs to the examples of the task, in the order of their codes."""
        place = self.all.place[: len(self.data)].to(values.device)
        return values[place.argsort()]

    # ---- what the decoder learns ----

    def _decoder(self, share: float) -> Phase:
        coder, how = self.all.coder, self.how
        pairs: list[Computed] = []

        def start() -> None:
            if not self.all.encodes:
                self._count()
                self._place_without_encoder()
            pairs[:] = [Computed(self.last, self._pairs(frozen(coder)), coder.data)]
            self._start_decoder()

        training = {"lr": how.lr if self.task else how.first_lr}
        stage = coder.objectives[-1]
        assert isinstance(stage, Recalling)
        view = Model(coder.data, coder.generative, Inference(), stage, domain=coder.domain, training=training)
        return Phase(view, lambda: pairs[0], start=start, fit={"schedule": "cosine"}, share=share)

    def _pairs(self, memory: Model) -> Callable[[Tensor], Batch]:
        """Images with their codes: of earlier tasks what the decoder said before this one."""
        images = self._in_order(self.data.x).to(memory.device)

        def make(index: Tensor) -> Batch:
            index = index.to(images.device)
            codes, old = self.all.codes_of(index), index < self.first
            x = images[(index - self.first).clamp_min(0)]
            if old.any():
                x[old] = memory.decode(codes[old]).to(x)
            return Batch(x, codes.to(torch.int8))

        return make

    def _start_decoder(self) -> None:
        kept = self.all.coder.generative
        if self.how.decoder == "local":
            assert self.all.local is not None
            storage.restore(kept, storage.state(self.all.local.generative), "the local decoder")
        if self.how.decoder == "anew":
            with seeded(self.all.setting.seed):
                storage.restore(kept, storage.state(self.all._autoencoder().generative), "a new decoder")

    # ---- what the classifier learns ----

    def _classifier(self, share: float) -> Phase:
        model = self.all.model

        def examples() -> Computed:
            return Computed(self.last, self._examples(frozen(model)), model.data)

        view = Model(
            model.data,
            model.generative,
            model.inference,
            SoftTargets(self.how.loss),
            domain=model.domain,
            training=model.training_options,
        )
        return Phase(view, examples, share=share)

    def _examples(self, judge: Model) -> Callable[[Tensor], Batch]:
        """Decoded images with what they are: of earlier tasks what the classifier said before this one."""
        coder, classes, labels = self.all.coder, judge.data.classes, self._labels()
        images = self._in_order(self.data.x).to(coder.device) if self.how.new == "original" else None

        def make(index: Tensor) -> Batch:
            index = index.to(coder.device)
            old, place = index < self.first, (index - self.first).clamp_min(0)
            x, y = coder.decode(self.all.codes_of(index)), labels.to(index.device)[place]
            if images is not None:
                x[~old] = images[place[~old]].to(x)
            if old.any():
                said = judge.inference.label(judge.domain.inward(x[old])).logits.softmax(1)
                y[old] = F.one_hot(said.argmax(1), classes).to(y) if self.how.targets == "hard" else said.to(y)
            return Batch(x, y)

        return make

    def _labels(self) -> Tensor:
        """Of the examples of the task, one-hot, in the order of their codes; zeros where unknown."""
        assert self.data.y is not None
        y = self._in_order(self.data.y)
        return encode_condition(y, self.all.model.data.classes, y)


def binplay(
    setting: Setting,
    *,
    bits: int = 200,
    task_code: TaskCode = "prefix",
    task_bits: int = 10,
    assignment: Assignment = "semantic",
    weight: float = 10.0,
    decoder: Start = "adjust",
    new: Images = "decoded",
    targets: Targets = "soft",
    loss: LossName = "cross_entropy",
    network: NetworkName = "auto",
    width: int = 0,
    depth: int = 0,
    lr: float = 3e-3,
    first_lr: float = 5e-3,
    encoder_share: float = 0.2,
    decoder_share: float = 0.5,
) -> Strategy:
    """BinPlay (Deja et al., 2021): a decoder keeps every example under a binary code that its number gives.

    Args:
        bits: Length of a code.
        task_code: Bits of the task: prefix (thesis), appended (released code) or none.
        task_bits: How many they are.
        assignment: Of codes to examples: greedy, the nearest code that is left to what an encoder says (as published);
            exact, the least sum of distances in each batch; semantic, without an encoder, near codes for near examples
            of one class; order, as the examples come.
        weight: Of the distance to the code, beside the squared error of the encoder's own reconstruction.
        decoder: In a new task adjust goes on (thesis), anew starts over (released code), local starts from the decoder
            that was trained with the encoder.
        new: Images of the task that the classifier sees: decoded ones, as of earlier tasks, or the original ones.
        targets: For earlier tasks: soft, all that the classifier said before the task, or hard, its most likely class.
        loss: Of the classifier: cross_entropy, or squared_error (released code).
        network: Of encoder and decoder: conv for images, dense for anything; auto fits the data.
        width: Channels of the last convolution, or units of a dense layer; 0: 32 or 512.
        depth: Doublings of the image, or hidden layers; 0: fits the data.
        lr: Learning rate of the decoder, unless the run says one.
        first_lr: The same in the first task.
        encoder_share: Of the updates of a task that the encoder takes, where there is one.
        decoder_share: Of the updates that the decoder takes; the rest are the classifier's.
    """
    for name, value, valid in (("assignment", assignment, Assignment), ("decoder", decoder, Start),
                               ("new", new, Images), ("targets", targets, Targets), ("loss", loss, LossName),
                               ("task_code", task_code, TaskCode)):  # fmt: skip
        choose(value, get_args(valid), f"{name} of binplay")
    rest = 1 - encoder_share - decoder_share
    if min(encoder_share, decoder_share, rest) <= 0:
        raise ValueError(
            f"Expected encoder_share > 0, decoder_share > 0 and a rest for the classifier, got {encoder_share} and "
            f"{decoder_share}."
        )
    if decoder == "local" and assignment not in get_args(Matching):
        raise ValueError(f"decoder=local needs an encoder, which assignment={assignment} has not: choose adjust.")
    codes = Codes(bits, sum(setting.sizes), tasks=setting.tasks, task_code=task_code, task_bits=task_bits)
    how = How(assignment, weight, decoder, lr, first_lr, new, targets, loss, (encoder_share, decoder_share, rest))
    return BinPlay(setting, codes, {"network": network, "width": width, "depth": depth}, how)
