"""The denoising autoencoder."""

from __future__ import annotations

from genrep.contracts import DataSpec, Inference, Model
from genrep.distributions.autoencoder import coder_pair
from genrep.distributions.corruption import Corruption, CorruptionName
from genrep.distributions.heads import Corrupted, LikelihoodName, likelihood_domain
from genrep.distributions.latent import Decoded
from genrep.models import recipe
from genrep.nets.autoencoder import NetworkName
from genrep.objectives.autoencoding import Autoencoding


@recipe(family="autoencoder", reference="Vincent et al. (2008), ICML; Vincent et al. (2010), JMLR 11")
def denoising_ae(
    data: DataSpec,
    *,
    latent: int = 64,
    corruption: CorruptionName = "gaussian",
    strength: float = 0.3,
    likelihood: LikelihoodName = "auto",
    network: NetworkName = "auto",
    width: int = 0,
    depth: int = 0,
) -> Model:
    """Denoising autoencoder: z = encoder(corrupt(x)), trained on -log p(x | z) of the clean x.

    Corruption happens in training only: `encode` reads x as it is. Without a prior it cannot sample.

    Args:
        latent: Dimensions of z.
        corruption: gaussian (noise is added) or masking (values become zero); in the model's units, levels in [-1, 1].
        strength: Standard deviation of the noise, or probability of masking.
        likelihood: p(x | z): logistic (cells of a logistic distribution over the levels), bernoulli, gaussian, or
            squared_error, which is not a likelihood; auto fits the data.
        network: conv for images, dense for anything; auto fits the data.
        width: Channels of the first convolution, or units of a dense layer; 0: 32 or 512.
        depth: Halvings of the image, or hidden layers; 0: fits the data.
    """
    posterior, decoder = coder_pair(
        data, latent=latent, likelihood=likelihood, network=network, width=width, depth=depth, point=True
    )
    return Model(
        data,
        Decoded(decoder),
        Inference(latent=Corrupted(posterior, Corruption(corruption, strength))),
        Autoencoding(),
        domain=likelihood_domain(data, likelihood),
        training={"lr": 1e-3},
    )
