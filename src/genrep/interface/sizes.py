"""Models against the size of their data, which recipes do not know."""

from __future__ import annotations

import warnings

from genrep.contracts import Conditional, Model


def check_sizes(model: Model, examples: int) -> None:
    """A ValueError for parts that need more training examples than there are; a warning for an overcomplete code."""
    for name, part in model.named_modules():
        if isinstance(part, Conditional) and part.fewest > examples:
            raise ValueError(
                f"{name} ({type(part).__name__}) needs at least {part.fewest} training examples for its entries, and "
                f"there are {examples}: take fewer of them."
            )
    if model.recipe is None or "latent" not in model.inference or model.inference.latent.measure == "mass":
        return
    size = model.recipe.options.get("latent", 0)
    if isinstance(size, int) and size > model.data.size:
        warnings.warn(
            f"latent={size} is more than the {model.data.size} values of an example. Sparse codes may be so large; "
            "others leave dimensions unused, and samples from there are poor.",
            stacklevel=3,
        )
