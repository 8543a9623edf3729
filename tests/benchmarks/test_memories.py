"""`memoroids bench memories`: each memory is compared with its forward pass, its products and a copy of its states."""

from compared import assert_compared

from memoroids.benchmarks import memories


def test_a_memory_is_compared_with_its_forward_pass_its_products_and_a_copy_of_its_states():
    limits = {"its matrix products", "a copy of its states, inputs and outputs"}
    assert_compared(memories.figures(1, 60, 8, ("min_gru",)), {"forward alone"}, limits)
