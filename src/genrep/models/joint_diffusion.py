"""The joint diffusion model: one network that generates and classifies."""

from __future__ import annotations

from typing import Literal, cast

import torch

from genrep.contracts import DataSpec, Inference, Model
from genrep.distributions.diffusion import Denoiser, Diffusion, Prediction
from genrep.distributions.joint import JointDiffusion, JointLabel
from genrep.distributions.schedules import ScheduleName
from genrep.models import recipe
from genrep.models.ddpm import ddpm
from genrep.nets.head import classifier_head
from genrep.nets.unet import UNet
from genrep.objectives.augmentation import augmented
from genrep.objectives.denoising import Denoising, LossName
from genrep.objectives.joint import Joint, Labelled


@recipe(family="diffusion", reference="Deja, Trzcinski & Tomczak (2023), ECML, arXiv:2301.13622")
def joint_diffusion(
    data: DataSpec,
    *,
    weight: float = 0.001,
    noisy: bool = True,
    gather: int = 128,
    diffusion: float = 1.0,
    augment: Literal["none", "standard"] = "none",
    head_width: int = 0,
    head_dropout: float = 0.0,
    head_norm: bool = False,
    timesteps: int = 250,
    noise_schedule: ScheduleName = "auto",
    loss: LossName = "simple",
    prediction: Prediction = "v",
    width: int = 0,
    multipliers: tuple[int, ...] = (),
    blocks: int = 0,
    attention: int = 8,
    dropout: float = 0.0,
) -> Model:
    """A denoising diffusion model whose U-Net encoder also feeds a classifier: log p(x, y) = log p(y | x) + log p(x).

    The mean over the pixels of every feature map of the encoder and of the middle block goes into a head of two layers.
    Labels of -1 are unknown: such examples teach the diffusion only, labelled ones are gathered until there are enough
    for a step of the classifier. Samples can be steered towards a class by that classifier.

    Args:
        weight: Of the classifier's loss, beside the diffusion's of weight 1: 0.001 in the released code, 1 in the
            paper; 0: the classifier stays as it is.
        noisy: The classifier also learns from noised images, which guidance needs; that comes in addition.
        gather: Labelled examples of partly labelled batches that make a step of the classifier.
        diffusion: Weight of the diffusion's loss; 0: a plain classifier on the same encoder, whose samples are noise.
        augment: standard: the classifier's clean images are turned (10 degrees), moved (8 % of the side), scaled and
            changed in contrast (10 and 20 %) at random; the released code does more, which the paper does not mention.
        head_width: Hidden units of the classifier's head; 0: as many as there are features, at most 512.
        head_dropout: Probability, in the head; 0.7 in the released code.
        head_norm: Batch normalisation in the head, as in the released code.
        timesteps: T; training costs the same for any.
        noise_schedule: How fast the signal falls: linear in beta, or cosine; auto: a cosine that starts at a quarter of
            the distance between two levels of the data.
        loss: simple: squared error; vlb: the bound; hybrid: squared error, and the bound for the variance.
        prediction: What the network predicts: epsilon, x0 or v = a eps - s x0.
        width: Channels of the first level; 0: 32.
        multipliers: Channels of each level in units of width; empty: 1, 2, 2, ... down to a side of 4 to 7.
        blocks: Residual blocks per level; 0: 1.
        attention: Levels whose shorter side is at most this attend over their pixels; 0: none.
        dropout: Probability, in the residual blocks.
    """
    if len(data.shape) != 3 or data.classes < 2:
        raise ValueError(
            f"joint_diffusion needs images (C, H, W) with labels of at least 2 classes; these data have shape "
            f"{data.shape} and {data.classes} classes."
        )
    base = ddpm(
        data,
        timesteps=timesteps,
        noise_schedule=noise_schedule,
        loss=loss,
        prediction=prediction,
        width=width,
        multipliers=multipliers,
        blocks=blocks,
        attention=attention,
        dropout=dropout,
    )
    chain = cast(Diffusion, base.generative)
    net = cast(UNet, cast(Denoiser, chain.denoiser).net)
    width = sum(layer.shape[1] for layer in net.features(torch.zeros(1, *data.shape), torch.zeros(1)).values())
    head = classifier_head(width, data.classes, width=head_width, dropout=head_dropout, normalise=head_norm)
    label = JointLabel(net, head)
    objective = Joint(
        cast(Denoising, base.objectives[0]),
        weight=weight,
        noisy=noisy,
        gather=Labelled(gather, data.shape),
        diffusion=diffusion,
        augment=augmented if augment == "standard" else None,
    )
    generative = JointDiffusion(chain, label)
    parts = Inference(process=base.inference.process, features=base.inference.features, label=label)
    return Model(data, generative, parts, objective, domain=base.domain, training={"lr": 1e-3, "ema": 0.999})
