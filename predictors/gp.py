"""Gaussian-process regression for a few hundred points: Matern 5/2 with a length for each input.

Rasmussen and Williams, "Gaussian Processes for Machine Learning" (2006), chapters 2 and 5. The
hyperparameters maximise the marginal likelihood (eq. 5.8) times log-normal priors, without which
twenty lengths cannot be learned from fifty points.

Accuracies crowd at the top and a few fall far below: a monotone map of Yeo and Johnson (Biometrika
87, 2000), whose power is fitted, as for the outputs in HEBO (arXiv 2012.03826), makes them look
normal, so that the process attends to differences near the top.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Priors of the logarithms (mean, deviation): of a length, in units of sqrt(d) for d inputs (long
# in many dimensions), of the variances of the signal, of linear terms' slopes and of the noise, for
# standardised targets.
_LENGTH, _SIGNAL, _SLOPE, _NOISE = (0.5, 0.5), (0.0, 1.0), (-2.0, 2.0), (-5.0, 2.0)
LogNormal = tuple[float, float]  # mean and deviation of a logarithm
_BOUNDS = ((-3.0, 5.0), (-6.0, 4.0), (-12.0, 6.0), (-12.0, 1.0))
_JITTER = 1e-8
_ROWS = 8192  # inputs at once, so that a million need little memory
ENOUGH, _ENOUGH_AGAIN = 200, 100  # points that tell hyperparameters, from nothing and a start


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What is known of targets before any: their unit, and priors of variances in that.

    `slopes` has one for each linear term.
    """

    unit: float
    signal: LogNormal
    slopes: tuple[LogNormal, ...]
    noise: LogNormal


@dataclass(frozen=True)
class GaussianProcess:
    """A fitted process of targets [n]: mean + scale * (Matern of the inputs + linear terms).

    Each linear term is a number of columns whose slopes have one variance; it is what lets the
    process go on beyond its points.
    """

    inputs: Array  # [n, d]
    linear: tuple[Array, ...]  # each [n, columns]
    hyperparameters: Array  # logarithms: d lengths, signal variance, one a term, noise variance
    factor: Array  # Cholesky factor of K + noise
    weights: Array  # (K + noise)^-1 (y - mean), standardised
    mean: float
    scale: float

    def predict(self, inputs: Array, linear: Sequence[Array] = ()) -> tuple[Array, Array]:
        """Return mean and standard deviation (without noise) at inputs of shape [m, d]."""
        if not len(inputs):
            return np.zeros(0), np.zeros(0)
        parts = [np.split(part, range(_ROWS, len(part), _ROWS)) for part in (inputs, *linear)]
        mean, std = zip(*(self._predict(*part) for part in zip(*parts, strict=True)), strict=True)
        return np.concatenate(mean), np.concatenate(std)

    def _predict(self, inputs: Array, *linear: Array) -> tuple[Array, Array]:
        from scipy.linalg import solve_triangular

        theta = _split(self.hyperparameters, len(self.linear))
        cross = theta.signal * _matern(
            _distances(inputs / theta.lengths, self.inputs / theta.lengths)
        )
        prior = np.full(len(inputs), theta.signal)
        for variance, there, here in zip(theta.slopes, linear, self.linear, strict=True):
            cross += variance * (there @ here.T)
            prior += variance * np.sum(there * there, axis=1)
        v = solve_triangular(self.factor, cross.T, lower=True)  # algorithm 2.1, line 5
        variance = np.maximum(prior - np.sum(v * v, axis=0), 1e-12)
        return self.mean + self.scale * (cross @ self.weights), self.scale * np.sqrt(variance)

    @property
    def noise(self) -> float:
        """Standard deviation of the targets' noise."""
        return float(self.scale * np.sqrt(np.exp(self.hyperparameters[-1])))

    @property
    def evidence(self) -> float:
        """Logarithm of the targets' likelihood with these hyperparameters (eq. 5.8)."""
        y = self.factor @ (self.factor.T @ self.weights)
        halves = 0.5 * y @ self.weights + 0.5 * len(y) * np.log(2 * np.pi * self.scale**2)
        return float(-halves - np.sum(np.log(np.diag(self.factor))))

    def left_out(self) -> tuple[Array, Array]:
        """Return errors and deviations of each target, predicted from all others (eq. 5.12)."""
        from scipy.linalg import cho_solve

        precision = np.diag(cho_solve((self.factor, True), np.eye(len(self.factor))))
        return self.scale * self.weights / precision, self.scale / np.sqrt(precision)


def fit_gaussian_process(  # noqa: PLR0913 - one algorithm, its options keyword-only
    inputs: Array,
    targets: Array,
    *,
    linear: Sequence[Array] = (),
    noise_scale: Array | None = None,
    errors: Array | None = None,
    start: Array | None = None,
    steps: int = 60,
    least_noise: float = 0.0,
    expected: Scale | None = None,
) -> GaussianProcess:
    """Fit to inputs [n, d], targets [n] and, if there are any, linear terms [n, columns] each.

    `noise_scale` [n] says how much more noise some targets have than others, `errors` [n] the
    standard errors that they are known to have besides. `start` gives the hyperparameters of an
    earlier fit, from which few steps suffice; with `steps=0` they are kept. The noise's standard
    deviation is at least `least_noise`, in the targets' unit. What is `expected` of the targets
    takes the place of their own spread, which a handful do not tell.
    """
    if len(inputs) == 0 or len(inputs) != len(targets):
        raise ValueError(
            f"`inputs` must have a row for each target, at least one, but got {len(inputs)} and "
            f"{len(targets)}."
        )
    expected = expected or plain_scale(targets, terms=len(linear))
    mean, scale = float(np.mean(targets)), expected.unit
    points = _Points(
        x=inputs,
        y=(targets - mean) / scale,
        linear=tuple(linear),
        noise=np.ones(len(inputs)) if noise_scale is None else noise_scale * noise_scale,
        known=np.zeros(len(inputs)) if errors is None else (errors / scale) ** 2,
        expected=expected,
    )
    theta = _prior_means(points) if start is None else start
    least = float(2 * np.log(max(least_noise / scale, np.exp(_BOUNDS[-1][0] / 2))))
    if steps:
        enough = ENOUGH if start is None else _ENOUGH_AGAIN
        theta = _maximise(theta, _some(points, enough), steps, least)
    else:
        theta = np.append(theta[:-1], max(theta[-1], least))
    factor, weights = _solve(_kernel(theta, points), points.y)
    return GaussianProcess(inputs, points.linear, theta, factor, weights, mean, scale)


def plain_scale(targets: Array, *, terms: int) -> Scale:
    """Return what is expected where nothing is known before: targets of their own spread."""
    spread = float(np.std(targets)) or 1.0
    return Scale(unit=spread, signal=_SIGNAL, slopes=(_SLOPE,) * terms, noise=_NOISE)


def expected_covariance(
    inputs: Array, linear: Sequence[Array], expected: Scale
) -> tuple[Array, float]:
    """Return what is expected before any target is known, in units of `expected.unit`.

    It is the covariance [n, n] of the targets without noise, and the variance of the noise.
    """
    count = len(inputs)
    none = np.zeros(count)
    points = _Points(inputs, none, tuple(linear), none, none, expected)
    theta = _prior_means(points)
    return _kernel(theta, points), float(np.exp(theta[-1]))


@dataclass(frozen=True)
class _Points:
    """What a process is fitted to, standardised."""

    x: Array  # [n, d]
    y: Array  # [n]
    linear: tuple[Array, ...]  # each [n, columns]
    noise: Array  # [n], variances beside each other
    known: Array  # [n], variances of the noise that is known
    expected: Scale


class _Theta(NamedTuple):
    lengths: Array
    signal: float
    slopes: Array  # variances, one a linear term
    noise: float


def _split(theta: Array, terms: int) -> _Theta:
    values = np.exp(theta)
    d = len(theta) - terms - 2
    return _Theta(values[:d], float(values[d]), values[d + 1 : -1], float(values[-1]))


def _some(points: _Points, enough: int) -> _Points:
    """At most so many of the points, spread over all."""
    n = len(points.y)
    if n <= enough:
        return points
    at = np.random.default_rng(n).permutation(n)[:enough]
    return _Points(
        x=points.x[at],
        y=points.y[at],
        linear=tuple(part[at] for part in points.linear),
        noise=points.noise[at],
        known=points.known[at],
        expected=points.expected,
    )


def _maximise(theta: Array, points: _Points, steps: int, least: float) -> Array:
    """Climb from `theta`; `least` bounds the logarithm of the noise's variance from below."""
    from scipy.optimize import minimize

    d, terms = points.x.shape[1], len(points.linear)
    centre = _prior_means(points)[0]
    bounds = [(centre + _BOUNDS[0][0], centre + _BOUNDS[0][1])] * d
    bounds += [_BOUNDS[1], *[_BOUNDS[2]] * terms, (least, max(_BOUNDS[3][1], least))]
    start = np.clip(theta, *np.transpose(bounds))
    grams = [part @ part.T for part in points.linear]
    options = {"maxiter": steps}
    result = minimize(
        _negative_posterior,
        start,
        (points, grams),
        "L-BFGS-B",
        jac=True,
        bounds=bounds,
        options=options,
    )
    return np.asarray(result.x)


def _negative_posterior(
    theta: Array, points: _Points, grams: Sequence[Array]
) -> tuple[float, Array]:
    """Minus the log posterior of the hyperparameters and its gradient (eq. 5.8 and 5.9).

    `grams` are the products of the linear terms' columns, [n, n] each.
    """
    from scipy.linalg import lapack

    lengths, signal, slopes, noise = _split(theta, len(grams))
    scaled = points.x / lengths
    s = np.sqrt(5.0) * _distances(scaled, scaled)
    decay = signal * np.exp(-s)
    matern = (1.0 + s + s * s / 3.0) * decay
    kernel = matern + np.diag(noise * points.noise + points.known + _JITTER)
    for variance, gram in zip(slopes, grams, strict=True):
        kernel += variance * gram
    factor, alpha = _solve(kernel, points.y)
    inverse = lapack.dpotri(factor, lower=1)[0]  # its lower half
    inverse = inverse + np.tril(inverse, -1).T
    w = inverse - np.outer(alpha, alpha)  # twice the gradient is tr(w dK)
    value = 0.5 * points.y @ alpha + np.sum(np.log(np.diag(factor)))
    ws = w * ((5.0 / 3.0) * (1.0 + s) * decay)
    # sum_ij ws_ij (x_i - x_j)^2, expanded so that no [n, n, d] array is needed
    by_length = 2 * (ws.sum(1) @ scaled**2 - np.sum(scaled * (ws @ scaled), axis=0))
    by_slope = [v * np.sum(w * gram) for v, gram in zip(slopes, grams, strict=True)]
    others = [np.sum(w * matern), *by_slope, noise * (np.diag(w) @ points.noise)]
    gradient = 0.5 * np.concatenate([by_length, others])
    z = (theta - _prior_means(points)) / _prior_deviations(points)
    return float(value + 0.5 * z @ z), gradient + z / _prior_deviations(points)


def _kernel(theta: Array, points: _Points) -> Array:
    """K + noise."""
    lengths, signal, slopes, noise = _split(theta, len(points.linear))
    scaled = points.x / lengths
    kernel = signal * _matern(_distances(scaled, scaled))
    for variance, part in zip(slopes, points.linear, strict=True):
        kernel += variance * (part @ part.T)
    kernel[np.diag_indices_from(kernel)] += noise * points.noise + points.known + _JITTER
    return kernel


def _solve(kernel: Array, y: Array) -> tuple[Array, Array]:
    """Algorithm 2.1, lines 2 and 3."""
    from scipy.linalg import cho_solve, cholesky

    factor = cholesky(kernel, lower=True)
    return factor, cho_solve((factor, True), y)


def _matern(r: Array) -> Array:
    s = np.sqrt(5.0) * r
    return np.asarray((1.0 + s + s * s / 3.0) * np.exp(-s))  # eq. 4.17


def _distances(a: Array, b: Array) -> Array:
    squared = (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * a @ b.T
    return np.asarray(np.sqrt(np.maximum(squared, 0.0)))


def _prior_means(points: _Points) -> Array:
    d = points.x.shape[1]
    lengths = [_LENGTH[0] + 0.5 * np.log(d)] * d
    return np.array([*lengths, *(mean for mean, _ in _variances(points.expected))])


def _prior_deviations(points: _Points) -> Array:
    others = (deviation for _, deviation in _variances(points.expected))
    return np.array([*[_LENGTH[1]] * points.x.shape[1], *others])


def _variances(expected: Scale) -> tuple[LogNormal, ...]:
    """Their priors, in the order of the hyperparameters."""
    return (expected.signal, *expected.slopes, expected.noise)


_LEAST = 1e-3  # what `from_power` returns at least


def to_power(values: Array, power: float) -> Array:
    """(t^power - 1) / power, by its limit at 0 (Box and Cox, J. R. Stat. Soc. B 26, 1964)."""
    return np.log(values) if not power else (values**power - 1) / power


def from_power(values: Array, power: float) -> Array:
    """The inverse of `to_power`, above 0 everywhere."""
    if not power:
        return np.asarray(np.exp(values))
    return np.asarray(np.maximum(1 + power * values, _LEAST**power) ** (1 / power))


_PRIOR = 0.7  # deviation of the power from 1, which changes nothing: few values hardly tell it
_FURTHEST = 1e6  # scales from the centre; what is further is taken to be there
_QUARTILE = 0.6745  # of a normal distribution, in its deviations


@dataclass(frozen=True, kw_only=True)
class Warping:
    """z = the Yeo-Johnson transform of (y - centre) / scale; its slope at the centre is 1 / scale.

    Powers from 0 to 2 have an inverse everywhere.
    """

    centre: float
    scale: float
    power: float

    def warped(self, values: Array) -> Array:
        """Return values [n] on the warped scale."""
        return _transformed(_standard(values, self.centre, self.scale), self.power)

    def unwarped(self, values: Array) -> Array:
        """Return what `warped` made these of."""
        above = _grown(np.maximum(values, 0.0), self.power)
        below = _grown(np.maximum(-values, 0.0), 2 - self.power)
        return self.centre + self.scale * (above - below)

    def spread(self, mean: Array, std: Array) -> tuple[Array, Array]:
        """Return median and deviation of values whose warped ones are normal, each of shape [n].

        The deviation is half of what lies between the warped mean -+ one deviation. The values'
        own moments would be those of a few very unlikely ones.
        """
        low, middle, high = (self.unwarped(mean + step * std) for step in (-1, 0, 1))
        return middle, (high - low) / 2


def fit_warping(values: Array, *, least_noise: float = 0.0) -> Warping:
    """Fit to values [n], at least one: the power of the highest likelihood times its prior.

    What is within `least_noise` is but chance, and hardly warped: the scale is no smaller.
    """
    from scipy.optimize import minimize_scalar

    low, middle, high = map(float, np.quantile(values, [0.25, 0.5, 0.75]))
    # Values far away do not count, unless most are the same.
    spread = (high - low) / (2 * _QUARTILE) or float(np.mean(np.abs(values - middle)))
    centre, scale = float(np.median(values)), max(spread, least_noise)
    if scale <= 1e-9 * max(abs(centre), 1.0):  # all the same, up to rounding
        return Warping(centre=centre, scale=1.0, power=1.0)
    standard = _standard(values, centre, scale)
    logs = float(np.sum(np.sign(standard) * np.log1p(np.abs(standard))))

    def minus(power: float) -> float:
        """Minus the profile log likelihood (Yeo and Johnson, section 3) and the log prior."""
        spread = np.log(np.var(_transformed(standard, power)))
        likelihood = (power - 1) * logs - 0.5 * len(standard) * spread
        return float(0.5 * ((power - 1) / _PRIOR) ** 2 - likelihood)

    found = minimize_scalar(minus, bounds=(0.0, 2.0), method="bounded")
    return Warping(centre=centre, scale=scale, power=float(found.x))


def _standard(values: Array, centre: float, scale: float) -> Array:
    return np.clip((values - centre) / scale, -_FURTHEST, _FURTHEST)


def _transformed(standard: Array, power: float) -> Array:
    """The transform of Yeo and Johnson."""
    above, below = np.maximum(standard, 0.0), np.maximum(-standard, 0.0)
    return _shrunk(above, power) - _shrunk(below, 2 - power)


def _shrunk(values: Array, power: float) -> Array:
    """((v + 1)^power - 1) / power, by its limit near 0."""
    logarithm = np.log1p(values)
    return logarithm if power < 1e-6 else np.expm1(power * logarithm) / power


def _grown(values: Array, power: float) -> Array:
    """The inverse of `_shrunk`."""
    return np.expm1(values if power < 1e-6 else np.log1p(power * values) / power)


_PSEUDO = 4.0  # results without any slope that the line is fitted to beside the real ones


@dataclass(frozen=True, kw_only=True)
class TrendedProcess:
    """Warped target = a line through k scores + a Gaussian process of the inputs for the rest."""

    warping: Warping
    slopes: Array  # [k]
    process: GaussianProcess

    def predict(
        self, inputs: Array, scores: Array | None, *, noisy: bool = False
    ) -> tuple[Array, Array]:
        """Return medians and standard deviations of targets at [m, d] inputs, [m, k] scores.

        `noisy`: deviations of what would be found, which chance moves too.
        """
        median, std = self.warping.spread(*self.predict_warped(inputs, scores))
        noise = self.warping.scale * self.process.noise if noisy else 0.0
        return median, np.hypot(std, noise)

    def predict_warped(self, inputs: Array, scores: Array | None) -> tuple[Array, Array]:
        """Return mean and standard deviation on the scale on which targets are normal."""
        columns = _columns(scores, len(inputs))
        if columns.shape[1] != len(self.slopes):
            raise ValueError(
                f"`scores` must have as many columns as when fitting, {len(self.slopes)}, but got "
                f"{columns.shape[1]}."
            )
        mean, std = self.process.predict(inputs)
        return mean + columns @ self.slopes, std


def fit_trended(
    inputs: Array,
    targets: Array,
    scores: Array | None,
    *,
    start: TrendedProcess | None = None,
    steps: int = 60,
    least_noise: float = 0.0,
) -> TrendedProcess:
    """Fit to inputs [n, d], targets [n] and, if there are any, scores [n] or [n, k].

    The other arguments are those of `fit_gaussian_process`.
    """
    warping = fit_warping(targets, least_noise=least_noise)
    warped, columns = warping.warped(targets), _columns(scores, len(inputs))
    slopes = _slopes(columns, warped)
    known = None if start is None else start.process.hyperparameters
    process = fit_gaussian_process(
        inputs,
        warped - columns @ slopes,
        start=known,
        steps=steps,
        least_noise=least_noise / warping.scale,
    )
    return TrendedProcess(warping=warping, slopes=slopes, process=process)


def _columns(scores: Array | None, count: int) -> Array:
    return np.empty((count, 0)) if scores is None else scores.reshape(count, -1)


def _slopes(columns: Array, targets: Array) -> Array:
    """By ridge regression: drawn to 0 while there are few results."""
    centred = columns - columns.mean(axis=0)
    spread = centred.std(axis=0)
    z = centred / np.where(spread > 0, spread, 1.0)
    slopes = np.linalg.solve(z.T @ z + _PSEUDO * np.eye(z.shape[1]), z.T @ targets)
    return np.where(spread > 0, slopes / np.where(spread > 0, spread, 1.0), 0.0)
