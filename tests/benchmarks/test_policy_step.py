"""`memoroids bench acting`: a step is compared with reading its weights and its matrix products."""

from compared import assert_compared

from memoroids.benchmarks import policy_step


def test_a_step_is_compared_with_reading_its_weights_and_its_matrix_products():
    assert_compared(policy_step.figures(1, (1, 2)), set(), {"its weights read once", "its matrix products"})
