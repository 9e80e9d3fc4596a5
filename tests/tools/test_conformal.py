"""The thresholds of `tools.calibrate` keep their promise: checked by simulation, and by cases worked out by hand."""

import numpy as np
import pytest
from scipy.stats import binom

from tools.calibrate.conformal import groups_of, limit, limits, needed, products_of

ALPHAS = (0.05, 0.01)


def test_one_photo_a_product_is_split_conformal_prediction() -> None:
    scores = np.random.default_rng(0).permutation(np.arange(1, 301)) / 1000
    found = limit(scores, np.arange(300), 0.05)
    assert found is not None
    assert found.threshold == 0.286  # the ceil(301 * .95) = 286th smallest
    # 14 of 300 lie above it: so few would be there by chance, one time in twenty, if the share were this.
    assert binom.cdf(14, 300, found.upper) == pytest.approx(0.05)


@pytest.mark.parametrize(("alpha", "count"), [(0.05, 19), (0.01, 99), (0.02, 49), (0.001, 999)])
def test_an_alpha_needs_its_number_of_products(alpha: float, count: int) -> None:
    assert needed(alpha) == count
    scores = np.linspace(0, 1, count)
    enough = limit(scores, np.arange(count), alpha)
    assert enough is not None
    assert enough.threshold == 1
    assert limit(scores[1:], np.arange(count - 1), alpha) is None
    assert limits(scores[1:], np.arange(count - 1), (alpha, 0.5))[1] == {alpha: count}


def test_photos_with_an_equal_score_lie_on_the_same_side() -> None:
    scores = np.array([0.9] * 50 + [0.1] * 250)
    found = limit(scores, np.arange(300), 0.05)
    assert found is not None
    assert found.threshold == 0.9


def test_a_product_counts_once_however_many_photos_it_has() -> None:
    single = np.random.default_rng(1).random(200)
    products = np.arange(200)
    size = np.random.default_rng(2).integers(1, 9, 200)
    alone = limit(single, products, 0.05)
    repeated = limit(np.repeat(single, size), np.repeat(products, size), 0.05)
    assert alone is not None
    assert repeated is not None
    assert repeated.threshold == alone.threshold
    assert repeated.upper == pytest.approx(alone.upper)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("spread", [0, 2])
def test_what_is_promised_holds(alpha: float, spread: float) -> None:
    """Products differ, and their photos do; the promise is about a photo of a new product."""
    rng = np.random.default_rng(3)

    def shop(count: int) -> tuple[np.ndarray, np.ndarray]:
        size = rng.integers(1, 6, count)
        product = np.repeat(np.arange(count), size)
        return np.repeat(rng.normal(0, spread, count), size) + rng.normal(size=len(product)), product

    far = shop(100_000)
    weight = 1 / np.bincount(far[1])[far[1]] / 100_000
    order = np.argsort(far[0])
    scores, share = far[0][order], 1 - np.cumsum(weight[order])
    rates, uppers = [], []
    for _ in range(400):
        found = limit(*shop(300), alpha)
        assert found is not None
        rates.append(share[np.searchsorted(scores, found.threshold, side="right") - 1])
        uppers.append(found.upper)
    assert np.mean(rates) <= alpha + 3 * np.std(rates) / 20
    assert np.mean(rates) > alpha / 2, "a threshold that nothing exceeds would keep it, too"
    # One in twenty may lie above; 400 of them vary by 3 standard deviations of a binomial variable.
    assert np.mean(np.array(rates) > uppers) <= 0.05 + 3 * (0.05 * 0.95 / 400) ** 0.5


def test_folders_are_groups_and_folders_in_them_products() -> None:
    names = ["a.jpg", "shoes/1.jpg", "shoes/2.jpg", "shoes/boot/1.jpg", "shoes/boot/2.jpg", "hats/boot/1.jpg"]
    assert groups_of(names) == ["", "shoes", "shoes", "shoes", "shoes", "hats"]
    hashes = np.array([0, 2**10 - 1, 2**20 - 1, 2**30 - 1, 2**40 - 1, 2**50 - 1], np.uint64)
    found = products_of(names, hashes, 4)
    assert len(set(found)) == 5
    assert found[3] == found[4]


def test_a_folder_of_a_few_photos_is_a_product() -> None:
    names = [f"boots-17/{place}.jpg" for place in range(20)] + [f"shoes/{place}.jpg" for place in range(21)]
    assert groups_of(names) == [""] * 20 + ["shoes"] * 21
    hashes = np.random.default_rng(0).integers(0, 2**64, len(names), np.uint64)
    found = products_of(names, hashes, 4)
    assert len(set(found[:20])) == 1
    assert len(set(found)) == 22


def test_photos_that_look_alike_are_of_one_product() -> None:
    names = [f"{place}.jpg" for place in range(4)]
    hashes = np.array(
        [0b0000, 0b1111, 0b1111_1111, 2**64 - 1], np.uint64
    )  # the first and the third by way of the second
    assert products_of(names, hashes, 4).tolist() == [0, 0, 0, 1]
    assert products_of(names, hashes, 3).tolist() == [0, 1, 2, 3]
