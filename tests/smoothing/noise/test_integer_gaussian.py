"""Rounded Gaussian noise: exact draws, a certificate that holds on the grid, and why it is needed."""

from fractions import Fraction

import mpmath as mp
import numpy as np
import pytest
import torch
from scipy.special import ndtr
from scipy.stats import chisquare
from tests.smoothing.noise.worst_case import product, separated
from torch import Tensor

from certus.core import ArgumentError
from certus.core.random import generator
from certus.smoothing import Gaussian, Smoothed
from certus.smoothing.noise import IntegerGaussian
from certus.smoothing.noise.integer_gaussian import _cells, exact_cell
from certus.smoothing.noise.normal import normal_bracket


def law(deviation: float, reach: int, shift: int = 0) -> np.ndarray:
    """Probabilities of the whole numbers -reach..reach."""
    edges = (np.arange(-reach, reach + 2) - 0.5 - shift) / deviation
    return np.where(edges[:-1] > 0, -np.diff(ndtr(-edges)), np.diff(ndtr(edges)))


@pytest.mark.parametrize("x", ["0", "1/3", "-7/2", "81/10", "-9", "-20", "1000", "-1/1000000"])
@pytest.mark.parametrize("bits", [2, 62, 124, 300])
def test_distribution_function_in_whole_numbers(x, bits):
    low, high = normal_bracket(Fraction(x), bits)
    with mp.workdps(200):
        point = mp.mpf(Fraction(x).numerator) / Fraction(x).denominator
        exact = mp.erfc(-point / mp.sqrt(2)) / 2 * mp.mpf(2) ** bits
        assert low <= exact <= high
    assert high - low <= 2


@pytest.mark.parametrize("noise", [IntegerGaussian(0.25), IntegerGaussian(0.3, 4)], ids=repr)
def test_draws_have_the_exact_law(noise):
    draws = noise.sample((100, 2001), generator(5)).flatten()
    assert torch.equal(draws, draws.round())
    reach = int(6 * noise.deviation) + 1
    found = torch.bincount((draws + reach).long().clamp(0, 2 * reach), minlength=2 * reach + 1)
    expected = law(float(noise.deviation), reach) * len(draws)
    rare = expected < 50
    seen = np.append(found.numpy()[~rare], found.numpy()[rare].sum())
    told = np.append(expected[~rare], len(draws) - expected[~rare].sum())
    assert chisquare(seen, told).pvalue > 1e-3


@pytest.mark.parametrize("noise", [IntegerGaussian(0.25), IntegerGaussian(0.001, 7)], ids=repr)
def test_the_table_says_only_what_all_further_coins_agree_on(noise):
    cells = _cells(noise.deviation)
    table = cells.table.numpy()
    assert np.isnan(table).mean() < 0.02
    assert np.isnan(table[[0, -1]]).all()
    for word in [1, 2, 3, 17, *range(100, 65536, 997), 65533, 65534]:
        if np.isnan(table[word]):
            continue
        j = int(table[word])
        low = normal_bracket(Fraction(2 * j - 1, 2) / noise.deviation, 80)[1]
        high = normal_bracket(Fraction(2 * j + 1, 2) / noise.deviation, 80)[0]
        assert low <= word << 64
        assert (word + 1) << 64 <= high


def test_further_coins_find_the_cell_of_the_exact_function():
    deviation = Fraction(5, 4)
    cells = _cells(deviation)
    rng = np.random.default_rng(2)
    words = rng.integers(0, 2**62, size=200)
    edge = [normal_bracket(Fraction(2 * j + 1, 2) / deviation, 62)[0] for j in range(-5, 6)]
    near = np.array([e + o for e in edge for o in (-2, -1, 0, 1, 2, 10**6)] + [0, 2**62 - 1])
    for word in np.concatenate([words, near]):
        found = int(cells.locate(np.array([word]), generator(1))[0])
        assert found == exact_cell(deviation, int(word), 62, generator(1))
        low = normal_bracket(Fraction(2 * found - 1, 2) / deviation, 62)[0]
        high = normal_bracket(Fraction(2 * found + 1, 2) / deviation, 62)[1]
        assert low <= int(word) < high


def test_coins_that_settle_nothing_are_followed_by_more():
    """From one coin on: every draw needs the slow way, and the law is the same."""
    coins = torch.Generator().manual_seed(3)
    deviation = Fraction(3, 4)
    found = [exact_cell(deviation, i % 2, 1, coins) for i in range(3000)]
    expected = law(0.75, 3)
    seen = np.array([found.count(j) for j in range(-3, 4)])
    keep = expected * 3000 > 5
    assert (
        chisquare(seen[keep], expected[keep] / expected[keep].sum() * seen[keep].sum()).pvalue
        > 1e-3
    )
    assert exact_cell(Fraction(1, 1000), 0, 1, torch.Generator().manual_seed(1)) == 0
    assert abs(exact_cell(Fraction(64), 0, 62, coins)) > 64 * 8


@pytest.mark.parametrize(
    ("lower", "upper"), [(0.9, 0.1), (0.99, 0.01), (0.7, 0.2), (0.4, 0.1), (0.999, 1e-3)]
)
def test_on_the_line_no_event_breaks_the_certificate(lower, upper):
    noise = IntegerGaussian(0.3, 5)  # deviation 1.5 steps
    certified = float(noise.radius(lower, upper)) * 5
    here = law(1.5, 30)
    for shift in range(1, int(certified) + 1):
        assert separated(here, law(1.5, 30, shift), lower, upper) > 0
    # Not vacuous: one step beyond the next, the worst event wins.
    assert separated(here, law(1.5, 30, int(certified) + 2), lower, upper) < 0


def test_a_half_line_attains_it():
    """Class A on j <= 2 has the probability of a real half-space, and loses it at the third step."""
    noise = IntegerGaussian(0.3, 5)
    p = float(ndtr(2.5 / 1.5))
    assert float(noise.radius(p)) * 5 == pytest.approx(2.5, rel=1e-12)
    assert float(noise.radius(p)) * 5 <= 2.5
    assert law(1.5, 30, 2)[: 30 + 3].sum() > 0.5
    assert law(1.5, 30, 3)[: 30 + 3].sum() < 0.5


@pytest.mark.parametrize(("lower", "upper"), [(0.9, 0.1), (0.97, 0.01), (0.6, 0.01)])
def test_in_the_plane_no_event_breaks_the_certificate(lower, upper):
    noise = IntegerGaussian(0.3, 5)
    certified = float(noise.radius(lower, upper)) * 5
    here = product(law(1.5, 15), law(1.5, 15))
    tried = 0
    for a in range(6):
        for b in range(a + 1):
            if 0 < a * a + b * b < certified**2:
                tried += 1
                there = product(law(1.5, 15, a), law(1.5, 15, b))
                assert separated(here, there, lower, upper) > 0
    assert tried >= 2


def test_noisy_values_depend_on_whole_numbers_alone():
    """So that no rounding can tell where the input was: all ways to the same grid value are equal."""
    noise = IntegerGaussian(0.25)
    pixels = torch.arange(256)
    near = pixels.double() / 255 + 3e-4 / 255
    for x in (pixels / 255, pixels.float() * (1 / 255), pixels.double() / 255, near):
        noise.check(x[:, None])
        for value in (3, 400):
            draws = (value - pixels).to(x.dtype)
            rows = noise.apply(x, draws, torch.empty_like(draws))
            assert torch.equal(rows, torch.full_like(rows, value) / 255)


@pytest.mark.parametrize("x", [0.5, 0.2 + 1e-4, -1 / 255, 256 / 255])
def test_inputs_off_the_grid_are_refused(x):
    with pytest.raises(ArgumentError, match="k/255"):
        IntegerGaussian(0.25).check(torch.full((1, 2), x))


def reveals(place: Tensor):
    """Class 1 where float32 shows that z is no noise added to `place`: some value cannot be so reached."""

    def module(z: Tensor) -> Tensor:
        reached = (place + (z - place)) == z
        return torch.nn.functional.one_hot((~reached).any(1).long(), 2).float()

    return module


def test_float_noise_certifies_wrongly_and_whole_numbers_do_not():
    """Two images of 8 bits: a certified radius around one, another answer at the other one inside.

    In the manner of Voracek and Hein 2023, section 3: rounding in x + noise tells what x was.
    """
    x, other = torch.zeros(1, 32), torch.full((1, 32), 51 / 255)
    distance = float((x - other).norm())
    module = reveals(other[0])
    plain = Smoothed(module, Gaussian(0.5), 2)
    found = plain.certify(x, n=20_000)
    assert int(found.prediction[0]) == 1
    assert float(found.radius[0]) > 1.4 * distance
    counts = plain.counts(other, 20_000)
    assert counts.tolist() == [[20_000, 0]], "the certificate is false, without a doubt"
    assert int(plain.predict(other)[0]) == 0

    sound = Smoothed(module, IntegerGaussian(0.5), 2)
    found = sound.certify(x, n=20_000)
    answer = int(sound.predict(other, 20_000)[0])
    assert float(found.radius[0]) < distance or answer == int(found.prediction[0])


@pytest.mark.parametrize("levels", [0, -1, 2.5, True])
def test_bad_levels(levels):
    with pytest.raises(ArgumentError, match="levels"):
        IntegerGaussian(0.25, levels)


def test_draws_must_be_exact_in_float32():
    with pytest.raises(ArgumentError, match="sigma"):
        IntegerGaussian(10.0, 65535)
    assert IntegerGaussian(1.0, 65535).sample((2, 3), generator(0)).abs().max() > 100
