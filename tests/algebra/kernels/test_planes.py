"""Complex numbers as planes: apart, multiplied and together again."""

import jax.numpy as jnp
import numpy as np
import pytest

from memoroids.algebra.kernels.planes import joined, planes_of, product


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_the_product_of_planes_is_that_of_the_numbers(rng, dtype):
    a, b = (rng.standard_normal((2, 5)) + 1j * rng.standard_normal((2, 5)) for _ in range(2))
    a, b = (each.real.astype(dtype) if dtype == "float32" else each.astype(dtype) for each in (a, b))
    planes = planes_of(np.dtype(dtype), jnp.asarray(a), jnp.asarray(b))
    assert [len(each) for each in planes] == [1 + (dtype == "complex64")] * 2
    found = joined(product(*planes))
    assert found.dtype == dtype
    np.testing.assert_allclose(found, a * b, rtol=1e-5, atol=1e-6)


def test_a_real_array_beside_a_complex_state_has_an_imaginary_part_of_zeros():
    ((real, imaginary),) = planes_of(np.complex64, jnp.arange(3.0))
    assert real.tolist() == [0.0, 1.0, 2.0] and imaginary.tolist() == [0.0] * 3
