"""The metrics are scikit-learn's where it has them, and closed forms where it has not."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import binom
from sklearn.calibration import calibration_curve

from monai_label_app.classifier.metrics import (
    RATES,
    confusion_matrix,
    interval,
    rates,
    reliability,
    resample,
    summary,
    temperature,
)


@st.composite
def predictions(draw):
    """True and predicted classes, some of which may have no example or be never predicted, and how many there are."""
    classes = draw(st.integers(2, 9))
    pairs = st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1))
    labels, predicted = np.array(draw(st.lists(pairs, min_size=1, max_size=60))).T
    return labels, predicted, classes


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:A single label was found")
@given(predictions())
@settings(deadline=None, max_examples=60)
def test_rates_and_their_means_are_those_of_scikit_learn(drawn):
    labels, predicted, classes = drawn
    confusion = confusion_matrix(labels, predicted, classes)
    names = np.arange(classes)
    np.testing.assert_array_equal(confusion, sklearn.metrics.confusion_matrix(labels, predicted, labels=names))
    expected = dict(
        zip(
            ("precision", "recall", "f1"),
            sklearn.metrics.precision_recall_fscore_support(labels, predicted, labels=names, zero_division=0),
            strict=False,
        )
    )
    one_against_rest = [(labels == name, predicted == name) for name in names]
    expected["specificity"] = [
        sklearn.metrics.recall_score(~true, ~said, zero_division=0) for true, said in one_against_rest
    ]
    expected["accuracy"] = [sklearn.metrics.accuracy_score(true, said) for true, said in one_against_rest]
    expected["mcc"] = [sklearn.metrics.matthews_corrcoef(true, said) for true, said in one_against_rest]
    found = rates(confusion)
    assert set(found) == set(expected) == set(RATES)
    means = summary(confusion)
    present = np.unique(labels)
    for name in RATES:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-12, err_msg=name)
        assert means[f"macro_{name}"] == pytest.approx(np.asarray(expected[name])[present].mean(), abs=1e-12)
    assert means["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(labels, predicted))


def test_of_balanced_classes_the_mean_accuracy_follows_from_the_plain_one():
    # An error is one of the class that it is of, and one of the class that it is taken for.
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(8), 500)
    predicted = np.where(random.random(4000) < 0.7, labels, random.integers(0, 8, 4000))
    found = summary(confusion_matrix(labels, predicted, 8))
    assert found["macro_accuracy"] == pytest.approx(1 - (1 - found["accuracy"]) * 2 / 8)
    assert found["macro_recall"] == pytest.approx(found["accuracy"])
    assert found["macro_specificity"] == pytest.approx(1 - (1 - found["accuracy"]) / 7)


def test_a_stack_of_matrices_is_measured_as_each_alone():
    stack = np.random.default_rng(0).integers(0, 5, (4, 3, 3))
    together = {**rates(stack), **summary(stack)}
    for number, one in enumerate(stack):
        for name, values in {**rates(one), **summary(one)}.items():
            np.testing.assert_allclose(together[name][number], values)


# Intervals


def test_the_interval_of_a_recall_is_that_of_the_binomial_distribution():
    confusion = np.array([[170, 30], [5, 95]])
    low, high = interval(rates(resample(confusion, 4000))["recall"])
    for row, (right, size) in enumerate(((170, 200), (95, 100))):
        exact = binom.ppf((0.025, 0.975), size, right / size) / size
        np.testing.assert_allclose((low[row], high[row]), exact, atol=1.01 / size)


@pytest.mark.slow
def test_an_interval_is_as_wide_as_that_of_images_that_are_drawn_one_by_one():
    random = np.random.default_rng(3)
    labels = random.integers(0, 4, 300)
    predicted = np.where(random.random(300) < 0.7, labels, random.integers(0, 4, 300))
    confusion = confusion_matrix(labels, predicted, 4)
    drawn = []
    members = [np.flatnonzero(labels == label) for label in range(4)]
    for _ in range(400):
        chosen = np.concatenate([random.choice(images, len(images)) for images in members])
        drawn.append(sklearn.metrics.f1_score(labels[chosen], predicted[chosen], average="macro"))
    expected = np.percentile(drawn, (2.5, 97.5))
    np.testing.assert_allclose(interval(summary(resample(confusion))["macro_f1"]), expected, atol=0.02)


def test_resamples_keep_the_size_of_every_class_and_the_seed_tells_them():
    confusion = np.array([[3, 2, 0], [0, 0, 0], [1, 0, 9]])
    drawn = resample(confusion, 50, seed=4)
    assert drawn.shape == (50, 3, 3)
    assert (drawn.sum(axis=2) == [5, 0, 10]).all()
    assert not drawn[:, confusion == 0].any()
    np.testing.assert_array_equal(drawn, resample(confusion, 50, seed=4))
    assert (drawn != resample(confusion, 50, seed=5)).any()


# Calibration


def answers(seed: int, size: int, sharpness: float = 1.0):
    """Scores of a network, and labels that follow its probabilities."""
    random = np.random.default_rng(seed)
    scores = random.normal(0, 2, (size, 5))
    chances = softmax(scores, axis=1)
    labels = (random.random((size, 1)) > chances.cumsum(axis=1)[:, :-1]).sum(axis=1)
    return labels, scores * sharpness


@given(st.integers(0, 1000), st.integers(1, 300))
@settings(deadline=None)
def test_the_reliability_diagram_is_that_of_scikit_learn(seed, size):
    labels, scores = answers(seed, size, 2)
    probabilities = softmax(scores, axis=1)
    found = reliability(labels, probabilities)
    right = probabilities.argmax(axis=1) == labels
    accuracy, confidence = calibration_curve(right, probabilities.max(axis=1), n_bins=15)
    filled = found.count > 0
    np.testing.assert_allclose(found.accuracy[filled], accuracy)
    np.testing.assert_allclose(found.confidence[filled], confidence)
    assert found.count.sum() == size
    assert found.error == pytest.approx((found.count[filled] / size * abs(accuracy - confidence)).sum())


def test_a_network_that_is_sure_and_right_has_no_calibration_error():
    assert reliability(np.array([0, 1]), np.eye(2)).error == 0
    assert reliability(np.array([1, 0]), np.eye(2)).error == 1


@pytest.mark.parametrize("sharpness", [0.4, 1, 3])
def test_the_temperature_is_what_made_the_scores_too_sharp(sharpness):
    labels, scores = answers(1, 20_000, sharpness)
    found = temperature(labels, scores)
    assert found == pytest.approx(sharpness, rel=0.03)
    calibrated = softmax(scores / found, axis=1)
    assert reliability(labels, calibrated).error < 0.02
    # At the minimum the score of the label is, on average, what the probabilities expect.
    expected = (calibrated * scores).sum(axis=1).mean()
    assert scores[np.arange(len(labels)), labels].mean() == pytest.approx(expected, abs=1e-3)


def test_where_nothing_is_wrong_no_temperature_makes_it_certain():
    labels, scores = np.array([0, 1, 1]), np.array([[0.2, 0.1], [0, 0.1], [0, 0.3]])
    assert temperature(labels, scores) == 1
    assert temperature(1 - labels[:1], scores[:1]) > 1


@given(st.integers(0, 1000), st.integers(1, 60))
@settings(deadline=None)
def test_a_temperature_never_makes_the_labels_less_likely(seed, size):
    labels, scores = answers(seed, size)
    found = temperature(labels, scores)
    assert 0.05 <= found <= 20
    before, after = (
        sklearn.metrics.log_loss(labels, softmax(scores / by, axis=1), labels=np.arange(5)) for by in (1, found)
    )
    assert after <= before + 1e-4
