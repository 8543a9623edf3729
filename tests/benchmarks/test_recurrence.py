"""`memoroids bench recurrence`: its references and limits, and that the references compute the same."""

from compared import COPIES

from memoroids.algebra.recurrence_backends import available_backends
from memoroids.benchmarks import recurrence


def test_recurrences_stand_beside_every_backend_and_a_copy():
    figures = list(recurrence.figures(1, length=32, batch=2))
    assert len(figures) == 8 and "B=2, T=128" in figures[-1].what
    for figure in figures:
        others = {f"ours, backend {name}" for name in available_backends()}
        assert len(others & set(figure.references)) == len(others) - 1
        assert set(figure.limits) == COPIES
        assert set(figure.compile) == {"ours", *figure.references}
    assert {"lax.associative_scan", "lax.scan"} <= set(figures[0].references)


def test_the_references_of_a_recurrence_compute_the_same(rng):
    import jax
    import jax.numpy as jnp
    import numpy as np

    from memoroids import linear_recurrence

    x, decay, reset = rng.standard_normal((40, 3)), np.array([0.5, 0.9, 0.99]), rng.random(40) < 0.2
    arguments = jnp.asarray(decay, jnp.float32), jnp.asarray(x, jnp.float32), jnp.asarray(reset)
    expected = linear_recurrence(arguments[0], arguments[1], reset=arguments[2])
    for way in (recurrence.associative, recurrence.plain_scan, *recurrence.memax_scan().values()):
        np.testing.assert_allclose(jax.jit(way)(*arguments), expected, rtol=1e-5, atol=1e-5)
