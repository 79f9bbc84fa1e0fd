"""Updates of a small DDPM at 28 x 28, batch 128, against diffusers' UNet2DModel in the loop of its training example.

Both U-Nets have channels 32, 64, 64, one residual block a level, scale-shift conditioning and attention at 7 x 7;
parameters and FLOPs are printed and must agree within 5 %. Both updates draw a batch from the same images, T = 1000,
squared error of epsilon, clip the gradient at 1, take a step of AdamW and average the weights. genrep runs in the
arithmetic that `genrep train` would measure and take; the rival as in its example (float32), and with bfloat16 autocast
and channels-last beside that.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.common import alternate, comparison, flops, precision, versions
from genrep import data as data_sets
from genrep.models import build
from genrep.training.measure import fastest
from genrep.training.settings import Settings, pick_device
from genrep.training.trainer import Trainer

BATCH, UPDATES = 128, 4
CHANNELS = (32, 64, 64)


def rival_network() -> nn.Module:
    from diffusers import UNet2DModel

    return UNet2DModel(
        sample_size=28,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=CHANNELS,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        resnet_time_scale_shift="scale_shift",
    )


def rival(net: Any, images: Tensor, device: str, *, best: bool) -> Callable[[], None]:
    """The loop of diffusers' unconditional training example: its scheduler, its EMA, a shuffling loader."""
    from diffusers import DDPMScheduler
    from diffusers.training_utils import EMAModel

    net = net.to(device, memory_format=torch.channels_last) if best else net.to(device)
    scheduler, optimiser = DDPMScheduler(num_train_timesteps=1000), torch.optim.AdamW(net.parameters(), lr=1e-4)
    average = EMAModel(net.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
    loader = DataLoader(TensorDataset(images), batch_size=BATCH, shuffle=True, drop_last=True)
    batches = (batch for _ in itertools.count() for (batch,) in loader)

    def update() -> None:
        clean = next(batches).to(device)
        if best:
            clean = clean.contiguous(memory_format=torch.channels_last)
        noise, t = torch.randn_like(clean), torch.randint(0, 1000, (BATCH,), device=device)
        with torch.autocast(
            torch.device(device).type, torch.bfloat16, enabled=best and precision(device) == "bfloat16"
        ):
            predicted = net(scheduler.add_noise(clean, noise, t), t).sample
        nn.functional.mse_loss(predicted.float(), noise).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        average.step(net.parameters())

    return update


def repeated(update: Callable[[], object]) -> Callable[[], None]:
    def several() -> None:
        for _ in range(UPDATES):
            update()

    return several


def run() -> Iterator[dict[str, Any]]:
    splits, device = data_sets.load("mnist"), pick_device("auto")
    torch.manual_seed(0)
    how = {"timesteps": 1000, "noise_schedule": "linear", "loss": "simple", "prediction": "epsilon"}
    model = build("ddpm", splits.spec, width=CHANNELS[0], multipliers=(1, 2, 2), attention=7, **how).to(device)
    settings = Settings(device=device, batch=BATCH).resolved(model, len(splits.train))
    mode = fastest(model, splits.train, settings, budget=12.0).mode
    trainer = Trainer(model, splits.train, settings, mode)
    images = splits.train[torch.arange(len(splits.train))].x.float() / 127.5 - 1
    x, t = torch.zeros(1, 1, 28, 28, device=device), torch.zeros(1, device=device)
    for label, best in (("float32", False), (f"{precision(device)} and channels-last", True)):
        net: Any = rival_network()
        update = rival(net, images, device, best=best)
        with torch.no_grad():
            count = flops(lambda: net(x, t)) / flops(lambda: denoise(model, x, t))  # noqa: B023
        size = sum(p.numel() for p in net.parameters()) / sum(p.numel() for p in model.parameters())
        fast, slow = alternate(repeated(trainer.update), repeated(update), repeats=5)
        yield comparison(
            f"ddpm training at 28 x 28, batch {BATCH}, against diffusers in {label}",
            UPDATES * BATCH / fast,
            UPDATES * BATCH / slow,
            target=(1.5 if torch.cuda.is_available() else 2.5) if not best else 1.0,
            unit="images/s",
            larger_is_better=True,
            mode=mode._asdict(),
            rival_parameters_over_ours=round(size, 4),
            rival_flops_over_ours=round(count, 4),
            versions=versions("diffusers"),
        )


def denoise(model: Any, x: Tensor, t: Tensor) -> object:
    return model.generative.denoiser(x, t)
