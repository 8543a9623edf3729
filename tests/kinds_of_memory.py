"""One memory for every kind of state, with small sizes: those that agents, collectors and buffers are tested with.

They see no more of a memory than its state and its two calls, which tests/memory checks for the whole registry.
"""

from typing import Any

SMALL: dict[str, dict[str, Any]] = {
    # Nested tuples of complex vectors, a complex matrix, a pair, a window beside a counter, a vector, and nothing.
    "lru": {"state_size": 4},
    "ffm": {"trace_size": 4, "context_size": 2},
    "linear_transformer": {"key_size": 4, "value_size": 4},
    "gtrxl": {"window": 4, "heads": 2, "head_size": 4, "hidden_size": 8},
    "gru": {},
    "mlp": {},
}
