"""Random arrays for tests, and the wider dtypes that references are computed in."""

import numpy as np

WIDE = {np.float32: np.float64, np.complex64: np.complex128}


def normal(rng, shape, dtype=np.float32):
    values = rng.standard_normal(shape)
    if np.issubdtype(dtype, np.complexfloating):
        values = values + 1j * rng.standard_normal(shape)
    return np.asarray(values).astype(dtype)
