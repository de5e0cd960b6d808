"""A monotone map under which accuracies look normal: most crowd at the top, a few fall far below.

The map is that of Yeo and Johnson (Biometrika 87, 2000), whose power is fitted to what was seen, as
for the outputs in HEBO (arXiv 2012.03826). A Gaussian process of the warped values spends its
attention on differences near the top instead of on how bad the bad ones are.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

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
        standard = _standard(values, self.centre, self.scale)
        above, below = np.maximum(standard, 0.0), np.maximum(-standard, 0.0)
        return _shrunk(above, self.power) - _shrunk(below, 2 - self.power)

    def unwarped(self, values: Array) -> Array:
        """Return what `warped` made these of."""
        above = _grown(np.maximum(values, 0.0), self.power)
        below = _grown(np.maximum(-values, 0.0), 2 - self.power)
        return self.centre + self.scale * (above - below)

    def spread(self, mean: Array, deviation: Array) -> tuple[Array, Array]:
        """Return median and deviation of values whose warped ones are normal, each of shape [n].

        The deviation is half of what lies between the warped mean -+ one deviation. The values'
        own moments would be those of a few very unlikely ones.
        """
        low, middle, high = (self.unwarped(mean + step * deviation) for step in (-1, 0, 1))
        return middle, (high - low) / 2


def fit_warping(values: Array, *, least_noise: float = 0.0) -> Warping:
    """Fit to values [n], at least one: the power of the highest likelihood times its prior.

    What is within `least_noise` is but chance, and hardly warped: the scale is no smaller.
    """
    from scipy.optimize import minimize_scalar
    from scipy.stats import yeojohnson_llf

    centre, scale = float(np.median(values)), max(_spread(values), least_noise)
    if scale <= 1e-9 * max(abs(centre), 1.0):  # all the same, up to rounding
        return Warping(centre=centre, scale=1.0, power=1.0)
    standard = _standard(values, centre, scale)

    def minus(power: float) -> float:
        return float(0.5 * ((power - 1) / _PRIOR) ** 2 - yeojohnson_llf(power, standard))

    found = minimize_scalar(minus, bounds=(0.0, 2.0), method="bounded")
    return Warping(centre=centre, scale=scale, power=float(found.x))


def _spread(values: Array) -> float:
    """A standard deviation that a few values far away do not move, unless most are the same."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return float((high - low) / (2 * _QUARTILE)) or float(np.mean(np.abs(values - middle)))


def _standard(values: Array, centre: float, scale: float) -> Array:
    return np.clip((values - centre) / scale, -_FURTHEST, _FURTHEST)


def _shrunk(values: Array, power: float) -> Array:
    """((v + 1)^power - 1) / power, by its limit near 0."""
    logarithm = np.log1p(values)
    return logarithm if power < 1e-6 else np.expm1(power * logarithm) / power


def _grown(values: Array, power: float) -> Array:
    """The inverse of `_shrunk`."""
    return np.expm1(values if power < 1e-6 else np.log1p(power * values) / power)
