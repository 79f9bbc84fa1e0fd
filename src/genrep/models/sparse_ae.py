"""The sparse autoencoder."""

from __future__ import annotations

import torch

from genrep.contracts import DataSpec, Inference, Model
from genrep.distributions.autoencoder import coder_pair
from genrep.distributions.heads import LikelihoodName, likelihood_domain
from genrep.distributions.latent import Decoded
from genrep.models import recipe
from genrep.nets.autoencoder import NetworkName
from genrep.objectives.autoencoding import Autoencoding
from genrep.objectives.sparsity import Sparsity


@recipe(family="autoencoder", reference="Lee, Ekanadham & Ng (2008), NeurIPS; Ng (2011), lecture notes")
def sparse_ae(
    data: DataSpec,
    *,
    latent: int = 256,
    rho: float = 0.05,
    sparsity: float = 1.0,
    likelihood: LikelihoodName = "auto",
    network: NetworkName = "auto",
    width: int = 0,
    depth: int = 0,
) -> Model:
    """Sparse autoencoder: z = sigmoid(encoder(x)) in (0, 1), each unit active on a fraction rho of the data.

    Minimises -log p(x | z) + sparsity sum_j KL(rho || mean of z_j). More units than values are legitimate.

    Args:
        latent: Units of z.
        rho: Mean activation wanted of every unit.
        sparsity: Weight of the penalty, in nats per nat.
        likelihood: p(x | z): logistic (cells of a logistic distribution over the levels), bernoulli, gaussian, or
            squared_error, which is not a likelihood; auto fits the data.
        network: conv for images, dense for anything; auto fits the data.
        width: Channels of the first convolution, or units of a dense layer; 0: 32 or 512.
        depth: Halvings of the image, or hidden layers; 0: fits the data.
    """
    posterior, decoder = coder_pair(
        data,
        latent=latent,
        likelihood=likelihood,
        network=network,
        width=width,
        depth=depth,
        point=True,
        onto=torch.sigmoid,
    )
    return Model(
        data,
        Decoded(decoder),
        Inference(latent=posterior),
        Autoencoding(Sparsity(rho, sparsity)),
        domain=likelihood_domain(data, likelihood),
        training={"lr": 1e-3},
    )
