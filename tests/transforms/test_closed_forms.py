"""The estimators of 0/1 rewards against their papers' formulas, written with binomials.

One reference for each, as printed: (n, c, parameters) -> (A+, A-) for 0 < c < n. They are compared
for every n <= 10, c and k, and the identities between them hold there too.
"""

import functools
import itertools
import math

import jax
import numpy as np
import pytest

from passk_jax import transforms
from passk_jax.transforms import binary

C = math.comb
SIZES = range(2, 11)


def f(n, c, k):
    """AS (13): f+ and f-, of a success and of a failure."""
    return C(n - c, k - 1) / C(n - 1, k - 1), C(n - c - 1, k - 1) / C(n - 1, k - 1)


def rloo(n, c):
    rho = c / n
    return n * (1 - rho) / (n - 1), -n * rho / (n - 1)


def grpo(n, c):
    rho = c / n
    return math.sqrt((1 - rho) / rho), -math.sqrt(rho / (1 - rho))


def times(factor, weights):
    factors = factor if isinstance(factor, tuple) else (factor, factor)
    return tuple(a * b for a, b in zip(factors, weights, strict=True))


def passk_analytical(n, c, k):
    """PKT (14), (15), with the paper's difference."""
    rho_k = 1 - C(n - c, k) / C(n, k)
    if rho_k == 1:
        return 0.0, 0.0
    sigma = math.sqrt(rho_k * (1 - rho_k))
    return (1 - rho_k) / sigma, (1 - rho_k - f(n, c, k)[1]) / sigma


def delta(n, m, k):
    """The slope of sum_{j <= k} pass@j / j, estimated from n - 1 others with m successes."""
    return sum(C(n - 1 - m, j - 1) / C(n - 1, j - 1) for j in range(1, k + 1))


def rs_grpo(n, c, beta):
    mean = (c * math.exp(beta) + n - c) / n
    return (math.exp(beta) / mean - 1) / beta, (1 / mean - 1) / beta


def mix(share, first, second):
    return tuple(share * a + (1 - share) * b for a, b in zip(first, second, strict=True))


def pkr(n, c, gamma, base):
    bases = {"rft": (1, 0), "reinforce": (1, -1), "grpo": grpo(n, c)}
    return times(gamma * (1 - c / n) ** (gamma - 1), bases[base])


WITH_K = {
    "reinforce_k": lambda n, c, k: (k * f(n, c, k)[0], 0),
    "rloo_k": lambda n, c, k: times(f(n, c, k), rloo(n, c)),
    "grpo_k": lambda n, c, k: times(f(n, c, k), grpo(n, c)),
    # PKPO (8) is for a sum; n times it
    "s_binary": lambda n, c, k: (k, k * (1 - C(n - 1 - c, k - 1) / C(n - 1, k - 1))),
    "biased_scaling": lambda n, c, k: times((1 - c / n) ** (k - 1), grpo(n, c)),
    "passk_analytical": passk_analytical,
    "combination": lambda n, c, k: mix(c / n, passk_analytical(n, c, k), grpo(n, c)),
    "combination_direct": lambda n, c, k: mix(c / n, times(f(n, c, k), grpo(n, c)), grpo(n, c)),
    "exceeding": lambda n, c, k: times(4 / (10 * math.log(c + 0.5)), passk_analytical(n, c, k)),
    "without_easy": lambda n, c, k: times(float(c <= n / 2), passk_analytical(n, c, k)),
    "maxrl": lambda n, c, k: (
        delta(n, c - 1, k) * (1 - (c - 1) / (n - 1)),
        -delta(n, c, k) * c / (n - 1),
    ),
    "log_pass_at_k": lambda n, c, k: (k * (1 - c / n) ** (k - 1) / (1 - (1 - c / n) ** k), 0),
}
WITHOUT_K = {
    "reinforce": lambda n, c: (1, 0),
    "rloo": rloo,
    "grpo": grpo,
    "skew_r": lambda n, c: times(1 - c / n, grpo(n, c)),
}
WITH_NUMBER = {
    "pkr-rft": lambda n, c, x: pkr(n, c, x, "rft"),
    "pkr-reinforce": lambda n, c, x: pkr(n, c, x, "reinforce"),
    "pkr-grpo": lambda n, c, x: pkr(n, c, x, "grpo"),
    "biased_scaling-rloo": lambda n, c, x: times((1 - c / n) ** (x - 1), rloo(n, c)),
    "rs_grpo": rs_grpo,
    "w_reinforce": lambda n, c, x: (x, -1),
    "entropy_regularised": lambda n, c, x: times(
        1 + x * math.sqrt(c / n * (1 - c / n)) * math.log((n - c) / c), grpo(n, c)
    ),
}
# what a group of equal rewards has: (all fail, all succeed), where it is not nothing
UNBASELINED = {
    "reinforce": lambda n, k: (0, 1),
    "reinforce_k": lambda n, k: (0, float(k == 1)),
    "s_binary": lambda n, k: (0, k),
    "log_pass_at_k": lambda n, k: (0, float(k == 1)),
    "pkr-rft": lambda n, x: (0, float(x == 1)),
    "w_reinforce": lambda n, x: (-1, x),
    "pkr-reinforce": lambda n, x: (-x, float(x == 1)),
}


@functools.cache
def computed(name, n):
    """(K, C, n): weights of the groups with c = 0..n successes, for each value of the parameter."""
    function, _, base = name.partition("-")
    function = getattr(transforms, function)
    if base:
        function = functools.partial(function, base=base)
    rewards = np.tri(n + 1, n, k=-1)
    with jax.enable_x64(True):
        if name in WITHOUT_K:
            return np.asarray(jax.vmap(function)(rewards))[None]
        values = parameters(name, n)
        both = jax.vmap(jax.vmap(function, in_axes=(0, None)), in_axes=(None, 0))
        return np.asarray(jax.jit(both)(rewards, values))


def parameters(name, n):
    if name in WITHOUT_K:
        return np.zeros(1)
    return np.arange(1, n + 1) if name in WITH_K else np.array([1.0, 1.7, 4.0, 40.0])


@pytest.mark.parametrize("name", [*WITH_K, *WITHOUT_K, *WITH_NUMBER])
def test_as_printed_for_every_n_c_and_k(name):
    reference = {**WITH_NUMBER, **WITHOUT_K, **WITH_K}[name]
    of_equal = UNBASELINED.get(name, lambda n, value: (0, 0))

    def printed(n, value, c):
        given = () if name in WITHOUT_K else (value,)
        plus, minus = reference(n, c, *given) if 0 < c < n else [of_equal(n, value)[c > 0]] * 2
        return [plus] * c + [minus] * (n - c)

    for n in SIZES:
        values = parameters(name, n).tolist()
        expected = [[printed(n, value, c) for c in range(n + 1)] for value in values]
        np.testing.assert_allclose(
            computed(name, n), expected, rtol=1e-11, atol=1e-13, err_msg=f"n = {n}"
        )


def test_worked_by_hand():
    # n = 4, c = 1, k = 2. Of the 3 others of the success all fail: f+ = 3/3 = 1; of a failure's 3
    # others 2: f- = 2/3. rho = 1/4: RLOO 1, -1/3; GRPO sqrt(3), -1/sqrt(3). Counting the sample
    # itself among the others would give f+ = 3/4.
    rewards, third = np.array([0, 1, 0, 0]), 1 / 3
    np.testing.assert_allclose(transforms.reinforce_k(rewards, 2), [0, 2, 0, 0], rtol=1e-6)
    expected = np.array([-2 / 3 * third, 1, -2 / 3 * third, -2 / 3 * third])
    np.testing.assert_allclose(transforms.rloo_k(rewards, 2), expected, rtol=1e-6)
    np.testing.assert_allclose(transforms.grpo_k(rewards, 2), np.sqrt(3) * expected, rtol=1e-6)
    # PKT: rho_2 = 1 - C(3,2)/C(4,2) = 1/2, sigma = 1/2: A+ = 1, A- = (1/2 - 2/3)/(1/2) = -1/3. The
    # sample standard deviation, for the population's, would give A+ = 0.91.
    expected = [-third, 1, -third, -third]
    np.testing.assert_allclose(transforms.passk_analytical(rewards, 2), expected, rtol=1e-6)
    # PKR, gamma = 3, RFT: 3 (3/4)^2
    expected = [0, 27 / 16, 0, 0]
    np.testing.assert_allclose(transforms.pkr(rewards, 3, "rft"), expected, rtol=1e-6)


def test_the_erratum_of_f_plus():
    # AS C.2 prints f+ at K = 2 wrongly; (13): C(8,1)/C(15,1) = 8/15 and C(7,1)/C(15,1) = 7/15
    shares = binary.others_all_fail(np.repeat(np.float32([1, 0]), 8), 2)
    np.testing.assert_allclose(shares, np.repeat([8 / 15, 7 / 15], 8), rtol=1e-6)
    # AS C.3: the biased scaling is 1/2 there, equal to neither
    ratio = transforms.biased_scaling(np.repeat([1, 0], 8), 2) / transforms.grpo(
        np.repeat([1, 0], 8)
    )
    np.testing.assert_allclose(ratio, 0.5 * np.ones(16), rtol=1e-6)


@pytest.mark.parametrize("n", SIZES)
def test_pkpo_33_is_reinforce_k_and_pkpo_19_is_its_binary_form(n):
    with jax.enable_x64(True):
        for k, c in itertools.product(range(1, n + 1), range(n + 1)):
            rewards = np.array([1.0] * c + [0.0] * (n - c))
            if k > 1:
                np.testing.assert_allclose(
                    transforms.sloo_minus_one(rewards, k),
                    computed("reinforce_k", n)[k - 1, c],
                    atol=1e-12,
                )
            np.testing.assert_allclose(
                transforms.s(rewards, k), computed("s_binary", n)[k - 1, c], atol=1e-12
            )


@pytest.mark.parametrize("n", SIZES)
def test_at_k_of_1_each_is_its_plain_form(n):
    for name in ("grpo_k", "passk_analytical", "combination", "combination_direct", "pkr-grpo"):
        np.testing.assert_allclose(computed(name, n)[0], computed("grpo", n)[0], atol=1e-12)
    np.testing.assert_allclose(computed("rloo_k", n)[0], computed("rloo", n)[0], atol=1e-12)
    np.testing.assert_allclose(computed("reinforce_k", n)[0], computed("reinforce", n)[0])
    np.testing.assert_allclose(computed("pkr-rft", n)[0], computed("reinforce", n)[0])


@pytest.mark.parametrize("n", SIZES)
def test_f_is_a_shifted_entry_of_the_weights(n):
    # f+ = (n/k) w_(failures + 1), f- = (n/k) w_(failures), counted from 1
    for k, c in itertools.product(range(1, n + 1), range(1, n)):
        w = np.asarray(transforms.weights(n, k))
        np.testing.assert_allclose(f(n, c, k), n / k * w[[n - c, n - c - 1]], rtol=1e-5)


def test_exceeding_of_pass_at_1_is_17_times_grpo():
    # PKT 4.2.1 puts the peak of the sum of absolute weights at one success of 32
    rewards = np.tri(33, 32, k=-1)[1:-1]
    weights = np.asarray(jax.vmap(lambda r: transforms.exceeding(r, 1))(rewards))
    factor = 0.4 / np.log(np.arange(1, 32) + 0.5)
    expected = factor[:, None] * np.asarray(jax.vmap(transforms.grpo)(rewards))
    np.testing.assert_allclose(weights, expected, rtol=1e-5)
    for k in (1, 4, 8):
        shaped = jax.vmap(lambda r, k=k: transforms.exceeding(r, k))(rewards)
        assert np.abs(shaped).sum(axis=1).argmax() == 0


@pytest.mark.parametrize(("k", "peak"), [(1, 0.5), (4, 0.25), (8, 0.125)])
def test_where_pkt_s_eta_is_largest(k, peak):
    # PKT (16). PKT 4.1.1 says 25% for Pass@8: that is k = 4
    eta = [
        c * plus - (32 - c) * minus
        for c in range(1, 32)
        for plus, minus in [passk_analytical(32, c, k)]
    ]
    ours = jax.vmap(lambda r: transforms.passk_analytical(r, k))(np.tri(33, 32, k=-1)[1:-1])
    np.testing.assert_allclose(np.abs(ours).sum(axis=1), eta, rtol=1e-4, atol=1e-5)
    assert (1 + np.argmax(eta)) / 32 == peak


@pytest.mark.parametrize("traced", [False, True])
def test_easy_is_a_matter_of_counts(traced):
    # 9 successes of 20 at 0.45, 13 of 20 at 0.65: no more than that share, however it is rounded
    call = lambda r, most: transforms.without_easy(r, 1, most)  # noqa: E731
    run = jax.jit(jax.vmap(call)) if traced else jax.vmap(call)
    for n in (10, 20, 500):
        counts = np.arange(1, n)
        rewards = np.arange(n) < counts[:, None]
        assert (np.asarray(run(rewards, counts / n)) != 0).all(), n
        assert (np.asarray(run(rewards, (counts - 1) / n)) == 0).all(), n
        np.testing.assert_array_equal(call(rewards[-1], (n - 1) / n) != 0, np.ones(n, bool))


def test_the_errata_of_the_entropy_of_the_rate():
    # signs turn where 1 + coefficient sqrt(p (1-p)) log((1-p)/p) is below 0
    rate = np.arange(1, 4000) / 4000
    turning = np.sqrt(rate * (1 - rate)) * np.log(rate / (1 - rate))
    assert 1 / turning.max() == pytest.approx(1.509, abs=5e-4)
    assert rate[turning.argmax()] == pytest.approx(0.92, abs=5e-3)
    entropy = -rate * np.log(rate) - (1 - rate) * np.log1p(-rate)
    climbed = lambda x: 2 * np.arcsin(np.sqrt(rate)) + x * entropy  # noqa: E731
    assert climbed(1.852).max() < math.pi < climbed(1.853).max()
    assert rate[climbed(1.853).argmax()] == pytest.approx(0.79, abs=5e-3)
    rewards = np.repeat([1, 0], [92, 8])
    for coefficient, sign in ((1.5, 1), (1.52, -1)):
        weights = transforms.entropy_regularised(rewards, coefficient)
        assert np.sign(weights[0]) == sign == -np.sign(weights[-1])


def all_sets_z_scores(rewards, k):
    """PKT before the algebra: the mean z-score of the sets that a sample is in, over all sets."""
    n = len(rewards)
    sets = [list(chosen) for chosen in itertools.combinations(range(n), k)]
    bests = np.array([rewards[chosen].max() for chosen in sets])
    if bests.std() < 1e-12:
        return np.zeros(n)
    z = (bests - bests.mean()) / bests.std()
    return np.array([np.mean([z[i] for i in range(len(sets)) if j in sets[i]]) for j in range(n)])


@pytest.mark.parametrize("n", [2, 5, 8])
def test_the_analytical_form_is_the_mean_over_all_sets(n):
    for k, c in itertools.product(range(1, n + 1), range(n + 1)):
        expected = all_sets_z_scores(np.array([1.0] * c + [0.0] * (n - c)), k)
        np.testing.assert_allclose(computed("passk_analytical", n)[k - 1, c], expected, atol=1e-12)


@pytest.mark.parametrize(("c", "k"), [(1, 3), (2, 2), (4, 4)])
def test_the_analytical_form_is_the_mean_of_bootstrap(c, k):
    # 2,000 times 400 sets, so that the z-scores' own bias (1/400) is below the standard error
    n, num_sets = 8, 400
    rewards = np.array([1.0] * c + [0.0] * (n - c), np.float32)
    keys = jax.random.split(jax.random.key(0), 2000)
    draw = jax.jit(jax.vmap(lambda key: transforms.bootstrap(rewards, k, key, num_sets)))
    draws = np.asarray(draw(keys)) * n / (num_sets * k)
    mean, error = draws.mean(axis=0), draws.std(axis=0) / np.sqrt(len(keys))
    expected = transforms.passk_analytical(rewards, k)
    assert (np.abs(mean - expected) < 4.5 * error + 1e-3).all(), (mean, expected, error)
    assert error.max() < 5e-3  # a wrong form would be seen


def test_skew_r_is_grpo_2_as_n_grows():
    errors = []
    for n in (10, 100, 1000):
        rewards = np.repeat([1.0, 0.0], [n * 3 // 10, n * 7 // 10]).astype(np.float32)
        skew, direct = transforms.skew_r(rewards), transforms.grpo_k(rewards, 2)
        errors.append(np.abs(skew - direct).max())
    np.testing.assert_allclose(np.divide(errors[1:], errors[:-1]), 0.1, rtol=0.15)


def test_rft_reweighting_at_gamma_k_is_reinforce_k_as_n_grows():
    rewards = np.repeat([1.0, 0.0], [300, 700]).astype(np.float32)
    direct, reweighted = transforms.reinforce_k(rewards, 4), transforms.pkr(rewards, 4.0, "rft")
    np.testing.assert_allclose(reweighted, direct, rtol=5e-3)


def test_equal_rewards_give_paper_and_centred_weights():
    # (29) of equal rewards c is -k c/(n (n-1)); the centred one is 0
    for n, k in ((size, k) for size in SIZES for k in range(1, size)):
        rewards = np.full(n, 0.5, np.float32)
        expected = np.full(n, -k * 0.5 / (n - 1))
        np.testing.assert_allclose(transforms.sloo(rewards, k), expected, rtol=1e-5)
        np.testing.assert_array_equal(transforms.sloo_centered(rewards, k), np.zeros(n))


# Equal rewards are not all that they look at, or they have no baseline.
OTHERS = ("pkr", "best_of_n", "sloo_posterior", "pass_at_any_k", "distinct_correct_at_k", "edas")


@pytest.mark.parametrize("n", [16, 1000])
@pytest.mark.parametrize("name", [n for n, row in transforms.ESTIMATORS.items() if row.binary])
def test_groups_of_equal_rewards_are_never_nan_in_float32(name, n):
    row = transforms.ESTIMATORS[name]
    given = {"gamma": 2.5, "coefficient": 1.0}
    given = {parameter: given[parameter] for parameter in row.parameters if parameter in given}
    if name == "adaptive":
        given = {"high_entropy": True}
    if "answers" in row.parameters:
        given["answers"] = np.arange(n) % 3
    for k in (1, 3, n) if row.takes_k else (None,):
        run = jax.jit(lambda r, k=k: row.function(r, **given, **({} if k is None else {"k": k})))
        for rewards in (np.zeros(n), np.ones(n), np.eye(n)[0], 1 - np.eye(n)[0]):
            weights = np.asarray(run(rewards))
            assert np.isfinite(weights).all()
            if len(set(rewards)) == 1 and name not in {*UNBASELINED, *OTHERS}:
                assert (weights == 0).all()


def test_float32_keeps_its_digits_where_few_succeed_or_fail():
    # 1 - rho_k and its difference to f- cancel in the printed form; ours keeps six digits
    n = 4096
    for c, k in itertools.product((1, 2, n // 2, n - 2, n - 1), (1, 2, 7)):
        rewards = np.repeat([1, 0], [c, n - c])
        for name in ("passk_analytical", "rloo_k", "grpo_k", "log_pass_at_k"):
            weights = np.asarray(getattr(transforms, name)(rewards, k))[[0, -1]]
            np.testing.assert_allclose(
                weights, WITH_K[name](n, c, k), rtol=3e-5, err_msg=f"{name, c, k}"
            )


def test_grpo_of_tiny_huge_and_real_rewards():
    rewards = np.array([0.1, 0.5, 0.2, 0.9], np.float32)
    expected = (rewards - rewards.mean()) / rewards.std()
    for scale in (1, 1e-30, 1e30):
        np.testing.assert_allclose(
            transforms.grpo(scale * rewards), expected, rtol=1e-5, err_msg=str(scale)
        )
    np.testing.assert_array_equal(transforms.grpo(np.full(7, 0.1, np.float32)), np.zeros(7))


def test_biased_scaling_and_reweighting_go_beyond_n():
    rewards = np.array([0, 1, 0, 0])
    np.testing.assert_allclose(
        transforms.biased_scaling(rewards, 40), 0.75**39 * transforms.grpo(rewards), rtol=1e-5
    )
    assert np.isfinite(transforms.pkr(rewards, 1000.0)).all()
