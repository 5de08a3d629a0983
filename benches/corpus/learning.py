"""scikit-learn."""

from __future__ import annotations

import warnings

import numpy
from sklearn.cluster import KMeans
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.tree import DecisionTreeRegressor

from benches.corpus import material
from benches.corpus.workload import workload

_random = numpy.random.default_rng(6)
FEATURES = _random.random((6000, 20), dtype=numpy.float32)
ANSWERS = FEATURES @ _random.random(20) + _random.random(6000)


def forests() -> list[int]:
    """24 seeds of trees."""
    return list(range(24))


@workload(
    forests,
    "cpu-bound-releasing",
    because="scikit-learn grows a tree in Cython `with nogil`, which is why its forests use threads",
)
def grow_tree(seed: int) -> float:
    """How well a tree explains a part of the data."""
    chosen = numpy.random.default_rng(seed).integers(0, 6000, 6000)
    tree = DecisionTreeRegressor(random_state=seed).fit(FEATURES[chosen], ANSWERS[chosen])
    return float(tree.tree_.node_count)


def clusterings() -> list[int]:
    """200 seeds of clusterings."""
    return list(range(200))


@workload(
    clusterings,
    "cpu-bound-releasing",
    because="k-means' loop is Cython with OpenMP and `nogil`: a thread for every core",
    kinds=("native-threaded",),
)
def find_clusters(seed: int) -> float:
    """How tight 24 clusters are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = KMeans(24, n_init=1, init="random", max_iter=60, tol=0, random_state=seed).fit(
            FEATURES
        )
    return float(found.inertia_)


def libraries() -> list[int]:
    """40 seeds of collections of documents."""
    return list(range(40))


TEXTS = [material.text(seed, 4000) for seed in range(60)]


@workload(
    libraries,
    "cpu-bound",
    because="CountVectorizer splits and counts words in plain Python, re too",
)
def count_terms(seed: int) -> int:
    """How many different terms and pairs of terms 40 documents have."""
    vectorizer = CountVectorizer(ngram_range=(1, 2))
    return int(vectorizer.fit_transform(TEXTS[seed % 20 : seed % 20 + 40]).shape[1])
