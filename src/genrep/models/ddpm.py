"""Denoising diffusion."""

from __future__ import annotations

from typing import Literal

from genrep.contracts import DataSpec, Inference, Model
from genrep.distributions.diffusion import Denoiser, Diffusion, NetworkFeatures, Prediction
from genrep.distributions.domains import domain_for
from genrep.distributions.processes import VariancePreserving
from genrep.distributions.schedules import Chain, ScheduleName, from_betas, named
from genrep.models import recipe
from genrep.nets.condition import condition_width
from genrep.nets.denoiser import denoising_network
from genrep.objectives.denoising import Denoising, LossName
from genrep.objectives.timesteps import LossAware, Uniform, Weighted


@recipe(
    family="diffusion",
    reference="Ho, Jain & Abbeel (2020), arXiv:2006.11239; Nichol & Dhariwal (2021), arXiv:2102.09672",
)
def ddpm(
    data: DataSpec,
    *,
    timesteps: int = 250,
    noise_schedule: ScheduleName = "auto",
    noise_betas: tuple[float, ...] = (),
    loss: LossName = "hybrid",
    prediction: Prediction = "v",
    weighting: Literal["auto", "epsilon", "x0", "v", "min_snr"] = "auto",
    variance: Literal["auto", "learnt", "beta", "posterior"] = "auto",
    choice: Literal["uniform", "loss_aware", "beta"] = "uniform",
    width: int = 0,
    multipliers: tuple[int, ...] = (),
    blocks: int = 0,
    attention: int = 8,
    heads: int = 0,
    dropout: float = 0.0,
    conditional: bool = False,
    unconditional: float = 0.0,
) -> Model:
    """Denoising diffusion: x_T ~ N(0, I), each step back to x_0 a Gaussian around what a network denoises.

    Trains the network to tell x_0 from x_t = a_t x_0 + s_t eps. Its bound on log p(x) sums T terms, each of which is
    one network evaluation. A U-Net for images, a residual network for vectors.

    Args:
        timesteps: T; training costs the same for any.
        noise_schedule: How fast the signal falls: linear in beta, or cosine; auto: a cosine that starts at a quarter of
            the distance between two levels of the data.
        noise_betas: A schedule of your own, beta_1, ..., beta_T, instead of timesteps and noise_schedule.
        loss: simple: squared error; vlb: the bound; hybrid: squared error, and the bound for the variance.
        prediction: What the network predicts: epsilon, x0 or v = a eps - s x0, which is safe at both ends of the chain.
        weighting: Whose squared error the simple loss is; min_snr: of x0, times min(a^2 / s^2, 5); auto: of what is
            predicted.
        variance: Of the reverse steps: learnt (between the other two), beta, or posterior; auto: learnt unless
            loss=simple, where it is posterior.
        choice: How training picks steps, always corrected: uniform, by their losses, or in proportion to beta.
        width: Channels of the first level, or units of a dense layer; 0: 32 or 256.
        multipliers: Channels of each level in units of width; empty: 1, 2, 2, ... down to a side of 4 to 7.
        blocks: Residual blocks per level, or in all for vectors; 0: 1 or 4.
        attention: Levels whose shorter side is at most this attend over their pixels; 0: none.
        heads: Of the attention; 0: one for every 32 channels.
        dropout: Probability, in the residual blocks.
        conditional: The network reads the label or condition.
        unconditional: Share of the examples whose condition training hides, so that sampling can be guided; e.g. 0.1.
    """
    if variance == "auto":
        variance = "posterior" if loss == "simple" else "learnt"
    if (loss == "simple") is (variance == "learnt") and loss != "vlb":
        raise ValueError(f"loss={loss} does not fit variance={variance}: simple trains no variance, hybrid needs one.")
    if not 0 <= unconditional < 1 or (unconditional and not conditional):
        raise ValueError(
            f"Expected 0 <= unconditional < 1, and conditional=True where it is not 0, got {unconditional}."
        )
    condition = condition_width(data, conditional)
    net = denoising_network(
        data,
        2 if variance == "learnt" else 1,
        width=width,
        multipliers=multipliers,
        blocks=blocks,
        attention=attention,
        heads=heads,
        dropout=dropout,
        condition=condition,
    )
    chain = Chain(from_betas(noise_betas) if noise_betas else named(noise_schedule, timesteps, data.levels))
    process = VariancePreserving(chain)
    denoiser = Denoiser(net, process, prediction, variance, condition, unconditional)
    return Model(
        data,
        Diffusion(denoiser, chain, data.shape, data.levels, guidable=unconditional > 0),
        Inference(process=process, features=NetworkFeatures(net, condition)),
        Denoising(chooser(choice, chain), loss, prediction if weighting == "auto" else weighting),
        domain=domain_for(data),
        training={"lr": 1e-3, "ema": 0.999},
    )


def chooser(choice: str, chain: Chain) -> Uniform:
    """How training picks steps."""
    if choice == "beta":
        return Weighted(chain.log_beta[1:].exp())
    return LossAware(chain.steps) if choice == "loss_aware" else Uniform(chain.steps)
