"""Gaussian-process regression for a few hundred points: Matern 5/2 with a length for each input.

Rasmussen and Williams, "Gaussian Processes for Machine Learning" (2006), chapters 2 and 5. The
hyperparameters maximise the marginal likelihood (eq. 5.8) times log-normal priors, without which
twenty lengths cannot be learned from fifty points.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Priors of the logarithms (mean, deviation): of a length, in units of sqrt(d) for d inputs (long
# in many dimensions), of the signal's variance and of the noise's, for standardised targets.
_LENGTH, _SIGNAL, _NOISE = (0.5, 0.5), (0.0, 1.0), (-5.0, 2.0)
_BOUNDS = ((-3.0, 5.0), (-4.0, 4.0), (-12.0, 1.0))
_ROWS = 8192  # inputs at once, so that a million need little memory


@dataclass(frozen=True)
class GaussianProcess:
    """A fitted process; targets of shape [n] or several columns of them share the inputs."""

    inputs: Array  # [n, d]
    hyperparameters: Array  # logarithms: d lengths, signal variance, noise variance
    factor: Array  # Cholesky factor of K + noise
    weights: Array  # (K + noise)^-1 (y - mean), standardised
    mean: float
    scale: float

    def predict(self, inputs: Array) -> tuple[Array, Array]:
        """Return mean and standard deviation (without noise) at inputs of shape [m, d]."""
        parts = np.split(inputs, range(_ROWS, len(inputs), _ROWS))
        mean, deviation = zip(*map(self._predict, parts), strict=True)
        return np.concatenate(mean), np.concatenate(deviation)

    def _predict(self, inputs: Array) -> tuple[Array, Array]:
        from scipy.linalg import solve_triangular

        lengths, signal, _ = _split(self.hyperparameters)
        cross = signal * _matern(_distances(inputs / lengths, self.inputs / lengths))
        v = solve_triangular(self.factor, cross.T, lower=True)  # algorithm 2.1, line 5
        variance = np.maximum(signal - np.sum(v * v, axis=0), 1e-12)
        return self.mean + self.scale * (cross @ self.weights), self.scale * np.sqrt(variance)

    @property
    def noise(self) -> float:
        """Standard deviation of the targets' noise."""
        return float(self.scale * np.sqrt(_split(self.hyperparameters)[2]))


def fit_gaussian_process(
    inputs: Array, targets: Array, *, start: Array | None = None, steps: int = 60,
    least_noise: float = 0.0,
) -> GaussianProcess:  # fmt: skip
    """Fit to inputs [n, d] and targets [n].

    `start` gives the hyperparameters of an earlier fit, from which few steps suffice; with
    `steps=0` they are kept. The noise's standard deviation is at least `least_noise`, in the
    targets' unit.

    Raises:
        ValueError: if there are no points or the shapes disagree.
    """
    if len(inputs) == 0 or len(inputs) != len(targets):
        raise ValueError(f"`inputs` must have a row for each target, at least one, but got "
                         f"{len(inputs)} and {len(targets)}.")  # fmt: skip
    mean, scale = float(np.mean(targets)), float(np.std(targets)) or 1.0
    y = (targets - mean) / scale
    theta = _prior_means(inputs.shape[1]) if start is None else start
    least = float(2 * np.log(max(least_noise / scale, np.exp(_BOUNDS[2][0] / 2))))
    theta = (_maximise(theta, inputs, y, steps, least) if steps
             else np.append(theta[:-1], max(theta[-1], least)))  # fmt: skip
    factor, weights = _solve(theta, inputs, y)
    return GaussianProcess(inputs, theta, factor, weights, mean, scale)


def _maximise(theta: Array, x: Array, y: Array, steps: int, least: float) -> Array:
    """Climb from `theta`; `least` bounds the logarithm of the noise's variance from below."""
    from scipy.optimize import minimize

    d = x.shape[1]
    centre = _prior_means(d)[0]
    bounds = [(centre + _BOUNDS[0][0], centre + _BOUNDS[0][1])] * d
    bounds += [_BOUNDS[1], (least, max(_BOUNDS[2][1], least))]
    start = np.clip(theta, *np.transpose(bounds))
    result = minimize(_negative_posterior, start, args=(x, y), jac=True, method="L-BFGS-B",
                      bounds=bounds, options={"maxiter": steps})  # fmt: skip
    return np.asarray(result.x)


def _negative_posterior(theta: Array, x: Array, y: Array) -> tuple[float, Array]:
    """Minus the log posterior of the hyperparameters and its gradient (eq. 5.8 and 5.9)."""
    lengths, signal, noise = _split(theta)
    scaled = x / lengths
    r = _distances(scaled, scaled)
    factor, alpha = _solve(theta, x, y)
    inverse = _inverse(factor)
    w = inverse - np.outer(alpha, alpha)  # twice the gradient is tr(w dK)
    value = 0.5 * y @ alpha + np.sum(np.log(np.diag(factor)))
    slope = signal * (5.0 / 3.0) * (1.0 + np.sqrt(5.0) * r) * np.exp(-np.sqrt(5.0) * r)
    ws = w * slope
    # sum_ij ws_ij (x_i - x_j)^2, expanded so that no [n, n, d] array is needed
    by_length = 2 * (ws.sum(1) @ scaled**2 - np.einsum("id,ij,jd->d", scaled, ws, scaled))
    gradient = 0.5 * np.concatenate(
        [by_length, [np.sum(w * signal * _matern(r)), noise * np.trace(w)]]
    )
    means, deviations = _prior_means(x.shape[1]), _prior_deviations(x.shape[1])
    z = (theta - means) / deviations
    return float(value + 0.5 * z @ z), gradient + z / deviations


def _solve(theta: Array, x: Array, y: Array) -> tuple[Array, Array]:
    """Algorithm 2.1, lines 2 and 3."""
    from scipy.linalg import cho_solve, cholesky

    lengths, signal, noise = _split(theta)
    scaled = x / lengths
    kernel = signal * _matern(_distances(scaled, scaled))
    kernel[np.diag_indices_from(kernel)] += noise + 1e-8
    factor = cholesky(kernel, lower=True)
    return factor, cho_solve((factor, True), y)


def _inverse(factor: Array) -> Array:
    from scipy.linalg import cho_solve

    inverse: Array = cho_solve((factor, True), np.eye(len(factor)))
    return inverse


def _matern(r: Array) -> Array:
    s = np.sqrt(5.0) * r
    k: Array = (1.0 + s + s * s / 3.0) * np.exp(-s)  # eq. 4.17
    return k


def _distances(a: Array, b: Array) -> Array:
    squared = (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * a @ b.T
    r: Array = np.sqrt(np.maximum(squared, 0.0))
    return r


def _split(theta: Array) -> tuple[Array, float, float]:
    return np.exp(theta[:-2]), float(np.exp(theta[-2])), float(np.exp(theta[-1]))


def _prior_means(d: int) -> Array:
    return np.array([_LENGTH[0] + 0.5 * np.log(d)] * d + [_SIGNAL[0], _NOISE[0]])


def _prior_deviations(d: int) -> Array:
    return np.array([_LENGTH[1]] * d + [_SIGNAL[1], _NOISE[1]])
