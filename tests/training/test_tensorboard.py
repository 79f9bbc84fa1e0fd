"""TensorBoard shows the numbers of the log, also after a run was resumed."""

import dataclasses
import sys

import pytest
import torch

from genrep.contracts import DataSpec, Inference, Model
from genrep.training.log import read_log, scalars
from genrep.training.loop import fit
from tests.training.test_fit import FLOAT32, QUICK, Likelihood, Normal, normal_data

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
SETTINGS = dataclasses.replace(QUICK, tensorboard=True, validate_every=6)


def model():
    torch.manual_seed(0)
    return Model(DataSpec((2,)), Normal(), Inference(), Likelihood())


def run(folder, **how):
    settings = dataclasses.replace(SETTINGS, steps=how.pop("steps", 12))
    fit(model(), normal_data(), settings, validation=normal_data(), folder=folder, mode=FLOAT32, **how)


def test_events_are_the_log(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install genrep[tensorboard]")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path, steps=7)
    run(tmp_path, resume=True)
    log = read_log(tmp_path)
    expected = {}
    for record in log:
        for name, value in scalars(record).items():
            expected.setdefault(name, {})[record["step"]] = value
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    shown = {name: {e.step: e.value for e in board.Scalars(name)} for name in board.Tags()["scalars"]}
    assert {"terms/nll", "lr/model", "validation", "images_per_second"} <= shown.keys() == expected.keys()
    for name, values in expected.items():
        assert shown[name].keys() == values.keys(), "the line of the unfinished window was taken back"
        for step, value in values.items():
            assert shown[name][step] == pytest.approx(value, rel=1e-6)


def test_without_the_package_or_a_folder_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ValueError, match=r"pip install 'genrep\[tensorboard\]'"):
        run(tmp_path)
    with pytest.raises(ValueError, match="folder of the run"):
        run(None)
