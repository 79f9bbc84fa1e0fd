"""The variational autoencoder with a normalising flow as prior."""

from __future__ import annotations

from typing import Literal

from genrep.contracts import DataSpec, Inference, Model
from genrep.distributions.autoencoder import coder_pair
from genrep.distributions.flows.architecture import check_sizes, coupling_step, mixed
from genrep.distributions.flows.bijection import Chain
from genrep.distributions.flows.elementwise import Affine
from genrep.distributions.flows.flow import Flow
from genrep.distributions.flows.spline import Spline
from genrep.distributions.heads import LikelihoodName, likelihood_domain
from genrep.distributions.latent import LatentVariable, StandardNormal
from genrep.models import recipe
from genrep.nets.autoencoder import NetworkName
from genrep.nets.condition import condition_width
from genrep.objectives.autoencoding import Autoencoding, Rate


@recipe(
    family="autoencoder",
    reference="Chen et al. (2017), arXiv:1611.02731, for a flow as prior; Durkan et al. (2019) for the couplings",
)
def flow_prior_vae(
    data: DataSpec,
    *,
    latent: int = 16,
    couplings: int = 6,
    coupling: Literal["spline", "affine"] = "affine",
    flow_width: int = 64,
    flow_depth: int = 1,
    beta: float = 1.0,
    likelihood: LikelihoodName = "auto",
    network: NetworkName = "auto",
    width: int = 0,
    depth: int = 0,
    conditional: bool = False,
) -> Model:
    """Variational autoencoder with p(z) = N(f(z); 0, I) |det df/dz|, f a flow that is learnt with the rest.

    Maximises E_q log p(x | z) - beta (log q(z | x) - log p(z)), the rate estimated by the draw that is decoded. The
    flow starts at a rotation, so that p(z) = N(0, I) before training: the first step is that of a `vae`.

    Args:
        latent: Dimensions of z.
        couplings: Of the flow, each after an invertible matrix; an even number maps every half as often.
        coupling: affine: a scale and a shift; spline: monotone rational-quadratic splines of 8 bins on [-5, 5].
        flow_width: Units of the networks in the couplings.
        flow_depth: Residual blocks in each of these networks.
        beta: Weight of the rate; above 1 it trades reconstruction for a simpler latent space.
        likelihood: p(x | z): logistic (cells of a logistic distribution over the levels), bernoulli, gaussian, or
            squared_error, which is not a likelihood; auto fits the data.
        network: conv for images, dense for anything; auto fits the data.
        width: Channels of the first convolution, or units of a dense layer; 0: 32 or 512.
        depth: Halvings of the image, or hidden layers; 0: fits the data.
        conditional: Encoder, decoder and prior read the label or condition.
    """
    condition = condition_width(data, conditional)
    posterior, decoder = coder_pair(
        data, latent=latent, likelihood=likelihood, network=network, width=width, depth=depth, condition=condition
    )
    check_sizes(couplings=couplings, flow_width=flow_width, depth=flow_depth)
    element = {"affine": Affine, "spline": Spline}[coupling]
    step = mixed(coupling_step(element, squeezed=False, width=flow_width, depth=flow_depth, condition=condition))
    layers = [layer for k in range(couplings) for layer in step((latent,), k)[1:]]  # without statistics of a batch
    return Model(
        data,
        LatentVariable(Flow(StandardNormal(latent), Chain(*layers), (latent,), condition), decoder),
        Inference(latent=posterior),
        Autoencoding(Rate(beta)),
        domain=likelihood_domain(data, likelihood),
        training={"lr": 1e-3},
    )
