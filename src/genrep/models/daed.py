"""The denoising autoencoder with a diffusion model for its noisy examples."""

from __future__ import annotations

from typing import Literal

import torch

from genrep.contracts import DataSpec, Inference, Model
from genrep.distributions.diffusion import Denoiser, NetworkFeatures, Prediction
from genrep.distributions.domains import domain_for
from genrep.distributions.processes import VariancePreserving
from genrep.distributions.schedules import Chain, ScheduleName
from genrep.distributions.split import DenoisedDiffusion, Noised, TwoFeatures, schedule
from genrep.models import recipe
from genrep.nets.condition import condition_width
from genrep.nets.denoiser import denoising_network
from genrep.objectives.denoising import Denoising, LossName
from genrep.objectives.timesteps import Between, LossAware, Uniform, Weighted


@recipe(family="diffusion", reference="Deja, Kuzina, Trzcinski & Tomczak (2022), NeurIPS, arXiv:2206.00070")
def daed(
    data: DataSpec,
    *,
    beta_1: float = 0.1,
    timesteps: int = 250,
    noise_schedule: ScheduleName = "auto",
    loss: LossName = "hybrid",
    prediction: Prediction = "v",
    choice: Literal["quarter", "beta", "first", "uniform", "loss_aware"] = "quarter",
    stages: bool = False,
    width: int = 0,
    multipliers: tuple[int, ...] = (),
    blocks: int = 0,
    attention: int = 8,
    dropout: float = 0.0,
    conditional: bool = False,
) -> Model:
    """A diffusion model that generates noisy examples x_1, and a denoising autoencoder that cleans them in one pass.

    Two networks of the same size, each for its part: with the noise beta_1 of x_1 one chooses where generating ends and
    denoising begins. The denoiser learns the squared error of x_0, or with loss=vlb its term of the bound.

    Args:
        beta_1: Variance of the noise in x_1, in (0, 1); larger values leave more to the denoiser and fewer steps to the
            generator: 499, 489, 467, 445, 426 of 500 for 0.001, 0.025, 0.1, 0.2, 0.3 of the linear schedule.
        timesteps: T of the whole chain, of which one step replaces those up to beta_1.
        noise_schedule: How fast the signal falls: linear in beta, or cosine; auto: a cosine that starts at a quarter of
            the distance between two levels of the data.
        loss: simple: squared error; vlb: the bound; hybrid: squared error, and the bound for the variance.
        prediction: What the networks predict: epsilon, x0 or v = a eps - s x0.
        choice: How training picks steps, always corrected: quarter (of the examples train the denoiser), beta (in
            proportion to beta, as the paper says), first (beta_1 T for the denoiser, 1 for every other step, as the
            released code has it), uniform, or by their losses.
        stages: Train the denoiser first and the generator after it, each for all steps; else both at once.
        width: Channels of the first level, or units of a dense layer; 0: 32 or 256.
        multipliers: Channels of each level in units of width; empty: 1, 2, 2, ... down to a side of 4 to 7.
        blocks: Residual blocks per level, or in all for vectors; 0: 1 or 4.
        attention: Levels whose shorter side is at most this attend over their pixels; 0: none.
        dropout: Probability, in the residual blocks.
        conditional: Both networks read the label or condition.
    """
    learnt = loss != "simple"
    condition = condition_width(data, conditional)
    chain = Chain(schedule(noise_schedule, timesteps, beta_1, data.levels))
    process = VariancePreserving(chain)

    def denoiser() -> Denoiser:
        net = denoising_network(
            data,
            1 + learnt,
            width=width,
            multipliers=multipliers,
            blocks=blocks,
            attention=attention,
            dropout=dropout,
            condition=condition,
        )
        return Denoiser(net, process, prediction, "learnt" if learnt else "posterior", condition)

    others, last = denoiser(), denoiser()
    border = float(chain.t[1])
    features = TwoFeatures(NetworkFeatures(others.net, condition), NetworkFeatures(last.net, condition), border)
    where, first, rest = "generative.whole", "generative.likelihood.denoiser", "generative.prior.denoiser"
    if stages:
        objectives = [
            Denoising(Between(1, 1), loss, "x0", chain=where, learns=(first,)),
            Denoising(Between(2, chain.steps), loss, prediction, chain=where, learns=(rest,)),
        ]
    else:
        objectives = [Denoising(chooser(choice, chain), loss, prediction, first="x0", chain=where)]
    return Model(
        data,
        DenoisedDiffusion(others, last, chain, data.shape, data.levels),
        Inference(latent=Noised(process, border), process=process, features=features),
        *objectives,
        domain=domain_for(data),
        training={"lr": 1e-3, "ema": 0.999},
    )


def chooser(choice: str, chain: Chain) -> Uniform:
    """How training picks steps of a chain whose first is the denoiser's."""
    beta, steps = chain.log_beta[1:].exp(), chain.steps
    first = {"quarter": (steps - 1) / 3, "first": float(beta[0]) * steps}
    if choice in first:
        return Weighted(torch.cat([torch.tensor([first[choice]]), torch.ones(steps - 1)]))
    if choice == "beta":
        return Weighted(beta)
    return LossAware(steps) if choice == "loss_aware" else Uniform(steps)
