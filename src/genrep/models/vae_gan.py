"""The variational autoencoder with a learned similarity."""

from __future__ import annotations

from genrep.contracts import DataSpec, Inference, Model
from genrep.distributions.domains import domain_for
from genrep.distributions.heads import GaussianHead, PointHead
from genrep.distributions.latent import LatentVariable, StandardNormal
from genrep.models import recipe
from genrep.nets.autoencoder import NetworkName, encoder_decoder
from genrep.nets.condition import condition_width
from genrep.nets.dcgan import generator_critic, lipschitz
from genrep.objectives.vae_gan import FeatureAutoencoding


@recipe(family="autoencoder", reference="Larsen, Sønderby, Larochelle & Winther (2016), arXiv:1512.09300")
def vae_gan(
    data: DataSpec,
    *,
    latent: int = 16,
    beta: float = 0.02,
    generator: float = 1.0,
    network: NetworkName = "auto",
    width: int = 0,
    depth: int = 0,
    conditional: bool = False,
) -> Model:
    """Variational autoencoder whose reconstruction error is measured in the features of a critic of images.

    Minimises |h(x) - h(x')|^2 / 2 + beta KL(q(z | x) || p(z)) + generator softplus(-D(x')), in turns with the critic D,
    whose last features are h. The features move with the critic, so the model offers no likelihood.

    Args:
        latent: Dimensions of z.
        beta: Weight of the rate; far below 1, since features of a critic whose slopes are bounded differ by little.
        generator: Weight of misleading the critic.
        network: conv for images, dense for anything; auto fits the data.
        width: Channels of the first convolution, or units of a dense layer; 0: 32 or 512.
        depth: Halvings of the image, or hidden layers; 0: fits the data.
        conditional: Encoder, decoder and critic read the label or condition.
    """
    if latent < 1:
        raise ValueError(f"Expected latent >= 1, got {latent}.")
    condition = condition_width(data, conditional)
    sizes = {"latent": latent, "width": width, "depth": depth, "condition": condition}
    encoder, _ = encoder_decoder(data, (2, latent), data.shape[0], network=network, **sizes)
    decoder, critic = generator_critic(data, network=network, **sizes)
    adam = {"lr": 5e-4, "betas": (0.5, 0.999)}
    return Model(
        data,
        LatentVariable(StandardNormal(latent), PointHead(decoder, condition)),
        Inference(latent=GaussianHead(encoder, condition)),
        FeatureAutoencoding(lipschitz(critic), condition, beta=beta, generator=generator),
        domain=domain_for(data),
        training={"players": {"model": adam, "critic": adam}},
    )
