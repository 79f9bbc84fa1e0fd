"""A short training loop for models of one or several players."""

import pytest
import torch


@pytest.fixture
def play():
    """play(model, draw, steps): players in turn, each with its own Adam, the others frozen before the forward."""

    def freeze(model, player):
        mine = model.learnable(0, player)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in mine)

    def run(model, draw, steps, *, lr=1e-3, critic_lr=None, betas=(0.9, 0.999), average=0.0, players=None):
        objective = model.objectives[0]
        turns = [p for p in objective.turns if players is None or p in players]
        rates = {"model": lr, "critic": critic_lr or lr}
        optimisers = {p: torch.optim.Adam(model.learnable(0, p).values(), rates[p], betas) for p in set(turns)}
        smooth = [p.detach().clone() for p in model.parameters()]
        model.train()
        for k in range(steps):
            player = turns[k % len(turns)]
            freeze(model, player)
            optimisers[player].zero_grad()
            objective.total(model(draw(), 0, player)).backward()
            optimisers[player].step()
            torch._foreach_lerp_(smooth, [p.detach() for p in model.parameters()], 1 - average)
        with torch.no_grad():
            for parameter, value in zip(model.parameters(), smooth, strict=True):
                parameter.requires_grad_().copy_(value)
        return model.eval()

    run.freeze = freeze
    return run
