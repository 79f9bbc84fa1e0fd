"""A plain classifier."""

from __future__ import annotations

from torch import Tensor, nn
from torch.distributions import Distribution

from genrep.contracts import Conditional, DataSpec, Inference, Model, Unsupported
from genrep.distributions.domains import domain_for
from genrep.distributions.label import Label
from genrep.models import recipe
from genrep.nets.autoencoder import NetworkName, encoder_decoder
from genrep.objectives.classification import CrossEntropy


class Nothing(Conditional):
    """The generative part of a model that describes no x."""

    can_sample = False

    def forward(self, *inputs: Tensor, y: Tensor | None = None) -> Distribution:
        raise Unsupported("A classifier describes labels, not examples: there is nothing to draw.")


class Embedded(nn.Module):
    """Features (B, embedding) below the last layer, by name, as `Model.features` reads them."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor, t: Tensor) -> dict[str, Tensor]:
        return {"embedding": self.body(x)}


@recipe(family="classifier", reference="He et al. (2016), arXiv:1603.05027, for the residual blocks")
def classifier(
    data: DataSpec, *, embedding: int = 128, network: NetworkName = "auto", width: int = 0, depth: int = 0
) -> Model:
    """p(y | x) = softmax(W relu(e(x)) + b), trained with cross-entropy; it generates nothing.

    Args:
        embedding: Width of the representation below the last layer.
        network: conv for images, dense for anything; auto fits the data.
        width: Channels of the first convolution, or units of a dense layer; 0: 32 or 512.
        depth: Halvings of the image, or hidden layers; 0: fits the data.
    """
    if data.classes < 2:
        raise ValueError(
            f"A classifier needs images or vectors with labels of at least 2 classes, these data have {data.classes}."
        )
    encoder, _ = encoder_decoder(data, (embedding,), 1, latent=1, network=network, width=width, depth=depth)
    body = nn.Sequential(encoder, nn.ReLU())
    label = Label(nn.Sequential(body, nn.Linear(embedding, data.classes)))
    return Model(
        data,
        Nothing(),
        Inference(label=label, features=Embedded(body)),
        CrossEntropy(),
        domain=domain_for(data),
        training={"lr": 1e-3},
    )
