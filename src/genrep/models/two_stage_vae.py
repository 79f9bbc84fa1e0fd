"""The two-stage variational autoencoder."""

from __future__ import annotations

from genrep.contracts import DataSpec, Domain, Inference, Model
from genrep.distributions.autoencoder import coder_pair
from genrep.distributions.heads import LikelihoodName, likelihood_domain
from genrep.distributions.nested import ElboOnly, Nested
from genrep.models import recipe
from genrep.models.vae import vae
from genrep.nets.autoencoder import NetworkName
from genrep.nets.condition import condition_width
from genrep.objectives.autoencoding import Autoencoding, StandardRate
from genrep.objectives.latents import read_latents
from genrep.objectives.within import Within


@recipe(family="autoencoder", reference="Dai & Wipf (2019), arXiv:1903.05789")
def two_stage_vae(
    data: DataSpec,
    *,
    latent: int = 16,
    beta: float = 1.0,
    likelihood: LikelihoodName = "auto",
    network: NetworkName = "auto",
    width: int = 0,
    depth: int = 0,
    prior_width: int = 512,
    prior_depth: int = 3,
    conditional: bool = False,
) -> Model:
    """Two-stage VAE: a VAE of x, then a second VAE of its codes z, which follow N(0, I) only roughly.

    Stage 1 minimises -log p(x | z) + beta KL(q(z | x) || N(0, I)). Stage 2 trains u ~ N(0, I), z ~ p(z | u) with a
    latent u of the size of z and a learnt variance, on draws of q(z | x). Samples go u -> z -> x, and
    log p(x) >= E_q[log p(x | z) + bound of log p(z) - log q(z | x)].

    Args:
        latent: Dimensions of z, and of u.
        beta: Weight of the rate in stage 1.
        likelihood: p(x | z): logistic (cells of a logistic distribution over the levels), bernoulli, gaussian, or
            squared_error, which is not a likelihood; auto fits the data.
        network: conv for images, dense for anything; auto fits the data.
        width: Channels of the first convolution, or units of a dense layer; 0: 32 or 512.
        depth: Halvings of the image, or hidden layers; 0: fits the data.
        prior_width: Units of a hidden layer of the second VAE.
        prior_depth: Its hidden layers.
        conditional: All networks read the label or condition.
    """
    if min(prior_width, prior_depth) < 1:
        raise ValueError(f"Expected prior_width, prior_depth >= 1, got {prior_width}, {prior_depth}.")
    posterior, decoder = coder_pair(
        data,
        latent=latent,
        likelihood=likelihood,
        network=network,
        width=width,
        depth=depth,
        condition=condition_width(data, conditional),
    )
    codes = DataSpec((latent,), classes=data.classes, condition=data.condition)
    second = vae(
        codes, latent=latent, likelihood="gaussian", width=prior_width, depth=prior_depth, conditional=conditional
    )
    return Model(
        data,
        ElboOnly(Nested(second, Domain()), decoder),
        Inference(latent=posterior),
        Autoencoding(StandardRate(beta), learns=("generative.likelihood", "inference")),
        Within(second, read_latents),
        domain=likelihood_domain(data, likelihood),
        training={"lr": 1e-3},
    )
