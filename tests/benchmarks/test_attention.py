"""`memoroids bench attention`: a layer is compared with the scan of its monoid and its matrix products."""

from compared import assert_compared

from memoroids.benchmarks import attention


def test_a_layer_is_compared_with_the_scan_of_its_monoid_and_its_matrix_products():
    assert_compared(attention.figures(1, ((40, 4, 8),)), {"plain scan of the monoid"}, {"its matrix products"})
