"""The kinds of experiments on joint models, denoisers and splits, with the smallest budgets."""

import json

import pytest

from genrep.interface.experiments import kind

TINY = {"width": 4, "multipliers": [1, 1], "timesteps": 8}
FAST = {"device": "cpu", "precision": "float32", "channels_last": "no", "batch": 16}
JOINT = {"model": "joint_diffusion"}
CASES = {
    "joint": (
        {
            "data": "digits",
            "models": [{"label": "plain", **JOINT, "diffusion": 0.0}, {"label": "joint", **JOINT}],
            "samples": [{"label": "led", "of": "joint", "guidance": "features", "scale": 150.0}],
        },
        {"samples": 100, "examples": 100, "evaluations": 4, "features": "pca:8"},
        [["plain", True], ["joint", True], ["led", False]],
    ),
    "semi_supervised": (
        {
            "data": "digits",
            "shares": [0.2],
            "models": [{"label": "plain", **JOINT, "diffusion": 0.0}, {"label": "joint", **JOINT}],
            "probe": "a number",
        },
        {"examples": 100},
        [["plain", True], ["joint", True], ["diffusion alone, linear probe", True]],
    ),
    "adaptation": (
        {
            "models": {"joint": {}, "classifier": {"diffusion": 0.0}},
            "pairs": [{"source": "digits", "target": "digits"}],
        },
        {"adapt_steps": 2, "shape": [1, 8, 8]},
        [["digits to digits", True]],
    ),
    "counterfactuals": (
        {
            "data": "digits",
            "model": {},
            "scales": {"features": [0.0], "classifier": [1.0]},
            "shown": {"examples": 4, "guidance": "features", "scale": 10.0},
        },
        {"examples": 10},
        [["features 0", True], ["classifier 1", True]],
    ),
    "transfer": (
        {
            "data": "digits",
            "targets": ["digits"],
            "models": [{"label": "ddpm", "model": "ddpm"}, {"label": "daed", "model": "daed"}],
        },
        {"examples": 20},
        [["digits", "ddpm"], ["digits", "daed"]],
    ),
    "splits": (
        {"data": "digits", "model": {"label": "ddpm", "model": "ddpm"}, "betas": [0.1]},
        {"samples": 100, "examples": 100, "features": "pca:8"},
        [["whole chain", 0], ["0.1", None]],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_kind_gives_its_table_and_goes_on_where_it_was(name, tmp_path):
    said, how, rows = CASES[name]
    how = {"steps": 3, "options": TINY, "settings": FAST, **how}
    module = kind(name)
    assert {*said} <= {"data", *module.KEYS}
    assert {*how} <= {*module.BUDGET}
    found = module.run(said, how, seed=0, folder=tmp_path, progress=False)
    json.dumps(found, allow_nan=False)
    assert [row[0] for row in found["rows"]] == [row[0] for row in rows]
    for got, expected in zip(found["rows"], rows, strict=True):
        assert len(got) == len(found["columns"])
        if isinstance(expected[1], bool):
            assert bool(got[1]) is expected[1]
        elif expected[1] is not None:
            assert got[1] == expected[1]
    for picture in found.get("pictures", {}).values():
        assert (tmp_path / picture).exists()
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.json")}
    assert module.run(said, how, seed=0, folder=tmp_path, progress=False)["rows"] == found["rows"]
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps, "a finished piece was made again"
