"""KID against its definition as a double sum, a closed form, and torch-fidelity."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dermaflux import phantom
from dermaflux.audit import trunks
from dermaflux.audit.fidelity import mmd


def test_estimate_is_the_double_sum_of_the_definition() -> None:
    generator = np.random.default_rng(0)
    ours, real = generator.normal(0.3, 1, (7, 5)), generator.normal(0, 1, (6, 5))

    def k(x, y):
        return (sum(a * b for a, b in zip(x, y, strict=True)) / 5 + 1) ** 3

    def within(rows):
        size = len(rows)
        pairs = [(i, j) for i in range(size) for j in range(size) if i != j]
        return sum(k(rows[i], rows[j]) for i, j in pairs) / (size * (size - 1))

    between = sum(k(x, y) for x in ours for y in real) / 42
    expected = within(ours) + within(real) - 2 * between
    estimate = mmd.unbiased_mmd2(
        mmd.kernel(ours, ours),
        mmd.kernel(real, real),
        mmd.kernel(ours, real),
    )
    assert estimate == pytest.approx(expected)


def test_equal_distributions_average_to_zero_and_a_shift_to_its_closed_form() -> None:
    # In one dimension E k(x, y) = E (xy + 1)^3 = m3 m3' + 3 m2 m2' + 3 m1 m1' + 1 in raw moments.
    def mean_kernel(a: float, b: float) -> float:
        x, y = ([m**3 + 3 * m, m**2 + 1, m] for m in (a, b))
        return x[0] * y[0] + 3 * x[1] * y[1] + 3 * x[2] * y[2] + 1

    shift = 0.5
    expected = mean_kernel(shift, shift) + mean_kernel(0, 0) - 2 * mean_kernel(shift, 0)
    generator = np.random.default_rng(1)
    equal, shifted = [], []
    for _ in range(300):
        real, other = generator.normal(0, 1, (2, 80, 1))
        for estimates, rows in ((equal, other), (shifted, other + shift)):
            kernels = (mmd.kernel(a, b) for a, b in ((rows, rows), (real, real), (rows, real)))
            estimates.append(mmd.unbiased_mmd2(*kernels))
    assert abs(np.mean(equal)) < 3 * np.std(equal) / np.sqrt(300)
    assert abs(np.mean(shifted) - expected) < 3 * np.std(shifted) / np.sqrt(300)


def test_the_floor_of_a_perfect_generator_is_its_kid() -> None:
    generator = np.random.default_rng(2)
    real, same = generator.normal(0, 1, (2, 400, 16))
    far = generator.normal(1, 1, (400, 16))
    kid, floor = mmd.kid(same, real, seed=0)
    assert abs(kid.mean - floor.mean) < 0.05
    distance, below = mmd.kid(far, real, seed=0)
    assert distance.mean > 10 * max(kid.std, floor.std)
    assert abs(below.mean) < 0.05  # the floor knows nothing of the generator
    assert kid.subset_size == 200
    assert mmd.kid(same, real, seed=0) == (kid, floor)


def test_torch_fidelity_agrees_on_whole_sets_of_images() -> None:
    """Its KID of all images in one subset, with our `pixels` features as its extractor."""
    torch_fidelity = pytest.importorskip("torch_fidelity")

    class Pixels(torch_fidelity.FeatureExtractorBase):
        def __init__(self, name, features_list, **settings):
            super().__init__(name, features_list)

        @staticmethod
        def get_provided_features_list():
            return ("pixels",)

        @staticmethod
        def get_default_feature_layer_for_metric(metric):
            return "pixels"

        @staticmethod
        def can_be_compiled():
            return False

        def forward(self, images):
            batch = images.permute(0, 2, 3, 1).cpu().numpy()
            return (torch.from_numpy(trunks.pixels().function(batch)[0]),)

    torch_fidelity.register_feature_extractor("dermaflux-pixels", Pixels)
    lesions = {
        stream: np.stack(
            [phantom.render(phantom.draw(index, stream, None), 32, 32) for index in range(40)]
        )
        for stream in ("kid-synthetic", "kid-real")
    }
    lesions["kid-synthetic"] //= 2  # far enough from the real ones for many digits

    class Images(torch.utils.data.Dataset):
        def __init__(self, pixels):
            self.images = torch.from_numpy(pixels).permute(0, 3, 1, 2)

        def __len__(self):
            return len(self.images)

        def __getitem__(self, index):
            return self.images[index]

    reference = torch_fidelity.calculate_metrics(
        input1=Images(lesions["kid-synthetic"]),
        input2=Images(lesions["kid-real"]),
        kid=True,
        feature_extractor="dermaflux-pixels",
        kid_subsets=1,
        kid_subset_size=40,
        cuda=False,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
    )
    synthetic, real = (trunks.pixels().function(pixels)[0] for pixels in lesions.values())
    estimate = mmd.unbiased_mmd2(
        mmd.kernel(synthetic, synthetic),
        mmd.kernel(real, real),
        mmd.kernel(synthetic, real),
    )
    assert estimate > 0.1
    assert estimate == pytest.approx(reference["kernel_inception_distance_mean"], rel=1e-5)


def test_the_interval_is_a_jackknife_and_holds_the_true_distance() -> None:
    """Against leaving out each image in turn, and a closed form."""
    generator = np.random.default_rng(3)

    def kernels(x, y):
        return (
            mmd.kernel(x, x),
            mmd.kernel(y, y),
            mmd.kernel(x, y),
        )

    ours, real = generator.normal(0.3, 1, (7, 5)), generator.normal(0, 1, (6, 5))
    variance = 0.0
    for size, left_out in (
        (7, [(np.delete(ours, i, 0), real) for i in range(7)]),
        (6, [(ours, np.delete(real, i, 0)) for i in range(6)]),
    ):
        values = [mmd.unbiased_mmd2(*kernels(*pair)) for pair in left_out]
        variance += (size - 1) / size * np.sum((values - np.mean(values)) ** 2)
    error = mmd.standard_error(*kernels(ours, real))
    assert error == pytest.approx(np.sqrt(variance))

    # For features of -1 and 1, k(x, y) = (xy + 1)^3 = 4xy + 4, and the distance is 4 (m - m')^2.
    held = 0
    for _ in range(400):
        x = np.where(generator.random((150, 1)) < 0.85, 1.0, -1.0)
        y = np.where(generator.random((200, 1)) < 0.5, 1.0, -1.0)
        value = mmd.unbiased_mmd2(*kernels(x, y))
        held += abs(value - 4 * 0.7**2) < 1.96 * mmd.standard_error(*kernels(x, y))
    assert 0.92 <= held / 400 <= 0.98


def test_the_mean_over_subsets_is_that_of_each_subset() -> None:
    generator = np.random.default_rng(4)
    kernels = generator.normal(size=(9, 7))
    chosen = [generator.permutation(9)[:4] for _ in range(3)]
    others = [generator.permutation(7)[:5] for _ in range(3)]
    left = np.array([np.isin(np.arange(9), rows) for rows in chosen], float)
    right = np.array([np.isin(np.arange(7), rows) for rows in others], float)
    square = kernels @ kernels.T
    for row, (rows, columns) in enumerate(zip(chosen, others, strict=True)):
        part = square[np.ix_(rows, rows)]
        assert mmd._within(square, left)[row] == pytest.approx(part[~np.eye(4, dtype=bool)].mean())
        mean = kernels[np.ix_(rows, columns)].mean()
        assert mmd._between(kernels, left, right)[row] == pytest.approx(mean)


def test_inception_score_of_known_classes() -> None:
    """Images of C classes, each certain, score C; images alike score 1."""
    certain = 50.0 * np.eye(5)[np.arange(200) % 5]
    # The shuffle leaves the classes of a split of 20 a little uneven.
    assert mmd.inception_score(certain).value == pytest.approx(5, rel=0.15)
    assert mmd.inception_score(np.ones((40, 5))) == pytest.approx((1, 1, 1))
    generator = np.random.default_rng(5)
    found = [mmd.inception_score(generator.normal(0, 2, (100, 6))) for _ in range(300)]
    mean = np.mean([each.value for each in found])
    assert np.mean([each.low <= mean <= each.high for each in found]) >= 0.9
