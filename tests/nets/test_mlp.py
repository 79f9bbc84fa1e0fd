"""Dense networks: how their weights start."""

import math

import pytest
import torch

from genrep.contracts import DataSpec
from genrep.nets.autoencoder import encoder_decoder


def first(labels, conditions=0):
    torch.manual_seed(0)
    data = DataSpec((1, 20, 20), classes=labels, condition=conditions)
    coders = encoder_decoder(data, (2, 8), 1, latent=8, network="dense", width=400, condition=labels or conditions)
    return [net.layers[0].weight.detach() for net in coders]


def test_labels_start_as_embeddings_do_and_the_rest_as_he_et_al():
    for weight in first(5):
        assert weight[:, :-5].std() == pytest.approx(math.sqrt(2 / weight.shape[1]), rel=0.05)
        assert weight[:, -5:].std() == pytest.approx(1, rel=0.05)


def test_labels_start_as_embeddings_do_in_convolutional_decoders_too():
    torch.manual_seed(0)
    decoder = encoder_decoder(DataSpec((1, 16, 16), classes=5), (2, 8), 1, latent=8, network="conv", condition=5)[1]
    weight = decoder.stem.weight.detach()
    assert weight[:, -5:].std() == pytest.approx(1, rel=0.05)
    assert weight[:, :-5].abs().max() <= 1 / math.sqrt(weight.shape[1])


def test_columns_of_a_vector_start_as_other_inputs_do():
    for weight in first(0, 5):
        assert weight[:, -5:].std() == pytest.approx(math.sqrt(2 / weight.shape[1]), rel=0.08)
