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
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(24)


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
        return _transformed((values - self.centre) / self.scale, self.power)

    def unwarped(self, values: Array) -> Array:
        """Return what `warped` made these of."""
        above = _grown(np.maximum(values, 0.0), self.power)
        below = _grown(np.maximum(-values, 0.0), 2 - self.power)
        return self.centre + self.scale * (above - below)

    def moments(self, mean: Array, deviation: Array) -> tuple[Array, Array]:
        """Return mean and deviation of the values whose warped ones are normal, each of shape [n].

        By Gauss-Hermite quadrature.
        """
        shares = _WEIGHTS / _WEIGHTS.sum()
        values = self.unwarped(mean[:, None] + deviation[:, None] * _NODES)
        centre = values @ shares
        return centre, np.sqrt((values - centre[:, None]) ** 2 @ shares)


def fit_warping(values: Array) -> Warping:
    """Fit to values [n], at least one: the power of the highest likelihood times its prior."""
    from scipy.optimize import minimize_scalar
    from scipy.stats import yeojohnson_llf

    centre, scale = float(np.median(values)), float(np.std(values)) or 1.0
    standard = (values - centre) / scale
    if len(values) < 2 or not standard.any():
        return Warping(centre=centre, scale=scale, power=1.0)

    def minus(power: float) -> float:
        return float(0.5 * ((power - 1) / _PRIOR) ** 2 - yeojohnson_llf(power, standard))

    found = minimize_scalar(minus, bounds=(0.0, 2.0), method="bounded")
    return Warping(centre=centre, scale=scale, power=float(found.x))


def _transformed(values: Array, power: float) -> Array:
    above, below = np.maximum(values, 0.0), np.maximum(-values, 0.0)
    return _shrunk(above, power) - _shrunk(below, 2 - power)


def _shrunk(values: Array, power: float) -> Array:
    """((v + 1)^power - 1) / power, by its limit near 0."""
    logarithm = np.log1p(values)
    return logarithm if power < 1e-6 else np.expm1(power * logarithm) / power


def _grown(values: Array, power: float) -> Array:
    """The inverse of `_shrunk`."""
    return np.expm1(values if power < 1e-6 else np.log1p(power * values) / power)
