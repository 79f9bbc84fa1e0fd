import pytest
import torch

from genrep.applications.completion import complete, masked
from genrep.contracts import DataSpec, Unsupported
from genrep.interface.main import main
from genrep.models import build


def test_known_values_are_kept_and_the_rest_follows_the_model():
    torch.manual_seed(0)
    spec = DataSpec((2,), levels=3)
    model = build("made", spec, width=16).eval()
    every = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    mass = model.log_likelihood(every).value.exp().view(3, 3)
    x = torch.tensor([[0, 0], [2, 0]])
    drawn = complete(model, x, 1, draws=20_000, seed=0)
    assert (drawn[:, :, 0] == x[:, :1]).all()
    for row, first in zip(drawn, (0, 2), strict=True):
        share = torch.bincount(row[:, 1], minlength=3) / row.shape[0]
        truth = (mass[first] / mass[first].sum()).detach()
        assert ((share - truth).abs() < 4 * (truth * (1 - truth) / row.shape[0]).sqrt()).all()


def test_masked_is_in_the_order_of_the_model():
    x = torch.arange(12).view(1, 2, 2, 3)  # channels, rows, columns
    assert masked(x, 4, -1).tolist() == [[[[0, 1, -1], [-1, -1, -1]], [[6, 7, -1], [-1, -1, -1]]]]


def test_bad_requests():
    model = build("made", DataSpec((3,), levels=3))
    with pytest.raises(ValueError, match="0 < known < 3"):
        complete(model, torch.zeros(1, 3, dtype=torch.long), 3)
    vae = build("vae", DataSpec((1, 8, 8), levels=17))
    with pytest.raises(Unsupported, match="Autoregressive models can"):
        complete(vae, torch.zeros(1, 1, 8, 8, dtype=torch.long), 3)


def test_command_completes_pictures_and_text(tmp_path, capsys):
    run = tmp_path / "digits"
    assert main(["train", "pixel_cnn", "--data", "digits", "--out", str(run), "--steps", "2", "--width", "8"]) == 0
    assert main(["complete", str(run), "--n", "2", "--draws", "2"]) == 0
    assert (run / "samples" / "completions.png").exists()
    assert main(["complete", str(run), "--prompt", "To be"]) == 2
    assert "models of text" in capsys.readouterr().err
    play = tmp_path / "play.txt"
    play.write_text("Speak, I charge thee, speak!\n" * 60, encoding="utf8")
    run = tmp_path / "text"
    said = ["--data", str(play), "--shape", "16", "--steps", "2", "--width", "8", "--heads", "2"]
    assert main(["train", "pixel_transformer", "--out", str(run), *said]) == 0
    assert len((run / "samples" / "samples.txt").read_text(encoding="utf8").split("\n---\n")) == 64
    assert main(["complete", str(run), "--prompt", "Speak", "--draws", "3"]) == 0
    assert all(part.startswith("Speak") for part in (run / "samples" / "completions.txt").read_text().split("\n---\n"))
    assert main(["sample", str(run), "--n", "2"]) == 0
    assert main(["sample", str(run), "--n", "2", "--out", str(tmp_path / "s.png")]) == 2
