"""The experiments on autoencoders run, go on where they were cut, and say what they measured."""

import json

import pytest
import torch

from genrep.interface.experiments import kind
from genrep.interface.latent import plane
from genrep.interface.main import main

SMALL = {"latent": 4, "width": 16, "network": "dense"}


def rows(*names, **options):
    return [{"label": n.upper(), "model": n, **SMALL, **options} for n in names]


def go(name, said, how, folder):
    return kind(name).run(said, how, seed=0, folder=folder, progress=False)


def test_fidelity_has_a_row_of_real_data_ratios_and_the_latent_space(tmp_path):
    models = rows("vae", "e2e_sinkhorn_ae", conditional=True)
    said = {"data": "digits", "models": models, "ratio": [["E2E_SINKHORN_AE", "VAE"]], "latent": ["VAE"]}
    found = go("fidelity", said, {"steps": 4, "samples": 150}, tmp_path)
    assert [row[0] for row in found["rows"]] == ["real data, other half", "VAE", "E2E_SINKHORN_AE"]
    real, vae = (float(found["rows"][k][1].split()[0]) for k in (0, 1))
    assert abs(real) < 0.2 * vae
    assert "(E2E_SINKHORN_AE - real) / (VAE - real) = " in found["notes"][0]
    assert all((tmp_path / path).stat().st_size > 1000 for path in found["pictures"].values())
    assert set(found["pictures"]) == {"VAE", "E2E_SINKHORN_AE", "latent space by class"}
    (tmp_path / "E2E_SINKHORN_AE.json").unlink()
    assert go("fidelity", said, {"steps": 4, "samples": 150}, tmp_path) == found
    hidden = go("fidelity", {**said, "show": False, "latent": []}, {"steps": 4, "samples": 150}, tmp_path)
    assert hidden["pictures"] == {}


def test_holes_probes_and_dci(tmp_path):
    found = go("latent_holes", {"data": "digits", "models": rows("vae")}, {"steps": 4, "draws": 300}, tmp_path / "h")
    assert found["rows"][0][0] == "VAE"
    assert (tmp_path / "h" / found["pictures"]["VAE"]).exists()
    how = {"steps": 4, "train": 300, "test": 200}
    found = go("representations", {"data": "digits", "models": rows("vae"), "read": "probe"}, how, tmp_path / "p")
    assert 0.1 < float(found["rows"][0][1].split()[0]) <= 1
    with pytest.raises(ValueError, match="needs the data set shapes"):
        go("representations", {"data": "digits", "models": rows("vae"), "read": "dci"}, how, tmp_path / "d")


def test_calorimeter_compares_with_the_simulator_itself(tmp_path):
    said = {"data": "showers", "models": rows("vae", conditional=True)}
    found = go("calorimeter", said, {"steps": 3, "samples": 400}, tmp_path)
    simulator, vae = found["rows"]
    assert simulator[0] == "the simulator again"
    assert 1 < float(simulator[1].split()[0]) < float(vae[1].split()[0])  # other showers, of the same particles
    assert float(simulator[2].split()[0]) < float(vae[2].split()[0])
    with pytest.raises(ValueError, match="no set of showers"):
        go("calorimeter", {"data": "digits", "models": rows("vae")}, {"steps": 3}, tmp_path / "other")


def test_the_command(tmp_path, capsys):
    run = tmp_path / "run"
    width = ["--latent", "2", "--width", "16", "--network", "dense"]
    main(["train", "vae", "--data", "digits", "--out", str(run), "--steps", "3", *width])
    main(["holes", str(run), "--n", "300"])
    said = capsys.readouterr().out
    assert "hole_mass" in said
    assert (run / "holes.png").stat().st_size > 1000
    assert set(json.loads((run / "holes.json").read_text())) == {"hole_mass", "prior_below", "jensen_shannon"}
    assert main(["holes", str(run), "--out", "x.gif"]) != 0
    assert "end in .png" in capsys.readouterr().err


def test_plane_keeps_distances_of_the_plane():
    z = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    directions = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    flat = torch.from_numpy(plane(z @ torch.linalg.qr(directions).Q.T)[0])
    apart = lambda a: (a[:, None] - a[None]).square().sum(-1)  # noqa: E731
    torch.testing.assert_close(apart(flat), apart(z))
