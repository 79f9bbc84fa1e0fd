"""Score-based diffusion."""

from __future__ import annotations

from genrep.contracts import DataSpec, Inference, Model
from genrep.distributions.diffusion import Diffusion, NetworkFeatures
from genrep.distributions.domains import domain_for
from genrep.distributions.karras import Preconditioned
from genrep.distributions.linear_sde import SDEName, given, named, schedule
from genrep.distributions.processes import VariancePreserving
from genrep.distributions.schedules import Chain
from genrep.distributions.score import NoiseEstimate, StateDiffusion, StateFeatures, StateProcess, told
from genrep.models import recipe
from genrep.nets.condition import condition_width
from genrep.nets.denoiser import denoising_network
from genrep.objectives.denoising import Denoising
from genrep.objectives.score import ScoreMatching
from genrep.objectives.timesteps import Uniform


@recipe(
    family="diffusion",
    reference="Song et al. (2021), arXiv:2011.13456; Dockhorn, Vahdat & Kreis (2022), arXiv:2112.07068; Singhal, "
    "Goldstein & Ranganath (2023), arXiv:2302.07261",
)
def score_sde(
    data: DataSpec,
    *,
    sde: SDEName = "vp",
    drift: tuple[float, ...] = (),
    diffusion: tuple[float, ...] = (),
    beta_min: float = 0.1,
    beta_max: float = 20.0,
    sigma_min: float = 0.01,
    sigma_max: float = 50.0,
    timesteps: int = 1000,
    width: int = 0,
    multipliers: tuple[int, ...] = (),
    blocks: int = 0,
    attention: int = 8,
    heads: int = 0,
    dropout: float = 0.0,
    conditional: bool = False,
) -> Model:
    """Score-based diffusion by a linear stochastic differential equation; a U-Net for images, else a residual network.

    dz = beta(t) A z dt + sqrt(beta(t)) L dW, where z is x, or x with auxiliary parts of its shape. With one part it is
    a chain after scaling, and every sampler of ddpm applies, with its bound; with more: euler_maruyama, heun and ode.

    Args:
        sde: vp (variance-preserving), ve (exploding), sub_vp; langevin: with a velocity, critically damped;
            third_order: with velocity and acceleration.
        drift: A of an equation of your own, m * m numbers row by row, instead of sde; its first part is the data.
        diffusion: L of that equation.
        beta_min: beta at t = 0, for vp, sub_vp and drift.
        beta_max: beta at t = 1.
        sigma_min: Noise at t = 0, for ve.
        sigma_max: Noise at t = 1.
        timesteps: Points of the chain, where there is one part; training costs the same for any.
        width: Channels of the first level, or units of a dense layer; 0: 32 or 256.
        multipliers: Channels of each level in units of width; empty: 1, 2, 2, ... down to a side of 4 to 7.
        blocks: Residual blocks per level, or in all for vectors; 0: 1 or 4.
        attention: Levels whose shorter side is at most this attend over their pixels; 0: none.
        heads: Of the attention; 0: one for every 32 channels.
        dropout: Probability, in the residual blocks.
        conditional: The network reads the label or condition.
    """
    beta, sigma_data = (beta_min, beta_max), 1.0 if data.levels is None else 0.5
    own = bool(drift or diffusion)
    equation = given(drift, diffusion, beta) if own else named(sde, beta, (sigma_min, sigma_max))
    condition, parts = condition_width(data, conditional), equation.size
    net = denoising_network(
        data._replace(shape=(parts * data.shape[0], *data.shape[1:])),
        1,
        width=width,
        multipliers=multipliers,
        blocks=blocks,
        attention=attention,
        heads=heads,
        dropout=dropout,
        condition=condition,
        channels_out=len(told(equation)) * data.shape[0],
    )
    how = {"domain": domain_for(data), "training": {"lr": 1e-3, "ema": 0.999}}
    if parts > 1:
        state = StateProcess(equation, sigma_data)
        noise = NoiseEstimate(net, state, condition)
        inference = Inference(process=state, features=StateFeatures(noise))
        return Model(data, StateDiffusion(noise, data.shape), inference, ScoreMatching(), **how)
    chain = Chain(schedule(equation, timesteps))
    process = VariancePreserving(chain)
    return Model(
        data,
        Diffusion(Preconditioned(net, process, sigma_data, condition), chain, data.shape, data.levels),
        Inference(process=process, features=NetworkFeatures(net, condition)),
        Denoising(Uniform(chain.steps), "simple", "epsilon"),
        **how,
    )
