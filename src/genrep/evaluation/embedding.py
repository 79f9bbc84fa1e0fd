"""A representation as points in the plane, to look at; distances in it are not to be measured."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any, NamedTuple

import numpy as np
from sklearn.decomposition import PCA

from genrep.evaluation.arrays import Array, features

_LEAST = 20  # rows, below which neighbourhoods mean nothing


class Planar(NamedTuple):
    points: np.ndarray  # (N, 2)
    how: str  # in words, for a caption


def planar(codes: Array, *, seed: int = 0) -> Planar:
    """t-SNE of codes (N, d) where openTSNE is installed (pip install genrep[tsne]), else two principal components.

    t-SNE keeps neighbours and neither sizes nor distances of clusters (van der Maaten & Hinton, 2008); perplexity 30,
    or N / 4 for few rows. Codes of one or two dimensions are shown as they are.
    """
    x = features(codes, "codes").double().cpu().numpy()
    if x.shape[1] <= 2:
        return Planar(np.pad(x, ((0, 0), (0, 2 - x.shape[1]))), f"the {x.shape[1]}-dimensional code itself")
    if importlib.util.find_spec("openTSNE") is None or len(x) < _LEAST:
        missing = "" if len(x) < _LEAST else "; t-SNE needs pip install genrep[tsne]"
        found = PCA(2, random_state=seed).fit(x)
        share = float(found.explained_variance_ratio_.sum())
        return Planar(found.transform(x), f"two principal components, {share:.0%} of the variance{missing}")
    open_tsne: Any = importlib.import_module("openTSNE")
    scale = x.std(0)
    tsne = open_tsne.TSNE(perplexity=min(30.0, len(x) / 4), random_state=seed, n_jobs=1, initialization="pca")
    points = np.asarray(tsne.fit((x - x.mean(0)) / np.where(scale > 0, scale, 1.0)))
    return Planar(points, "t-SNE (openTSNE)")
