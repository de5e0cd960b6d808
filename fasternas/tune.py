"""Ray Tune, both ways; importing this imports Ray.

from fasternas.tune import FasternasSearch, config_of
"""

from nas.tune import (
    FasternasSearch as FasternasSearch,
    Metrics as Metrics,
    TuneSearcher as TuneSearcher,
    config_of as config_of,
    param_space as param_space,
)
