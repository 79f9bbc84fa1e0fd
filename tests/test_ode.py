"""Runge-Kutta methods and the change of density against closed forms."""

import math

import pytest
import torch

from genrep.distributions.ode import solve, solve_with_divergence, stages


@pytest.fixture(autouse=True)
def _double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2), ("rk4", 4)])
def test_methods_have_their_order(method, order):
    """dx/dt = t x - x^2 sin t has no closed form of low degree; a fine solution stands for the truth."""

    def field(x, t):
        field.calls += 1
        return t * x - x**2 * t.sin()

    x, errors = torch.tensor([[1.0]]), []
    truth = solve(with_count(field), x, torch.linspace(0, 1, 2001), "rk4")
    for n in (10, 20):
        found = solve(with_count(field), x, torch.linspace(0, 1, n + 1), method)
        assert field.calls == n * stages(method)
        errors.append((found - truth).abs().item())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25)


def with_count(field):
    field.calls = 0
    return field


def test_divergence_of_a_linear_field_is_its_trace():
    a = torch.randn(4, 4)
    x = torch.randn(3000, 4)
    grid = torch.linspace(0, 0.5, 21)
    end, change = solve_with_divergence(lambda x, t: x @ a.T, x, grid, trace="exact")
    torch.testing.assert_close(end, x @ torch.matrix_exp(0.5 * a).T, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(change, (0.5 * a.trace()).expand(3000))
    _, estimate = solve_with_divergence(lambda x, t: x @ a.T, x, grid)
    assert estimate.mean().item() == pytest.approx(0.5 * a.trace().item(), abs=5 * estimate.std().item() / 3000**0.5)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="Valid: euler"):
        stages("rk5")
    with pytest.raises(ValueError, match="Valid: hutchinson"):
        solve_with_divergence(lambda x, t: x, torch.ones(1, 1), torch.ones(2), trace="full")
