"""What the documents say is so: code in them runs, results are those of the result files, links lead somewhere."""

import re
import sys
import types
from pathlib import Path

import pytest
import torch

from genrep.contracts import DataSpec
from genrep.data.batches import InMemory
from genrep.interface.results import render
from genrep.training.loop import fit
from genrep.training.settings import Settings
from genrep.training.trainer import Mode

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def code(page, language="python"):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(encoding="utf8"), re.DOTALL)


def test_the_model_of_the_extending_page_works():
    source, test = code("docs/extending.md")
    module = types.ModuleType("mixture_vae")
    sys.modules["mixture_vae"] = module
    exec(compile(source, "docs/extending.md", "exec"), module.__dict__)
    module.__dict__.update(pytest=pytest)
    exec(test + "\ntest_prior_is_a_density()", module.__dict__)
    spec = DataSpec((1, 8, 8), levels=17)
    torch.manual_seed(0)
    model = module.mixture_vae(spec, latent=2, components=3)
    x = torch.randint(0, 17, (64, 1, 8, 8), dtype=torch.uint8)
    fit(model, InMemory(x, None, spec), Settings(steps=101, batch=16, device="cpu"), mode=Mode())
    assert model.log_likelihood(x).value.isfinite().all()
    assert model.sample(3, seed=0).shape == (3, 1, 8, 8)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_results_page_is_that_of_the_result_files():
    assert (ROOT / "docs" / "results.md").read_text(encoding="utf8") == render(ROOT)
