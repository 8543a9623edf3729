"""What a command asks of its process before the process runs its first JAX program."""

from memoroids._util.allocator import keep_freed_memory
from memoroids._util.compile_cache import keep_compiled_programs


def prepare_process(*, overlap: bool = False) -> None:
    """Keeps freed memory, and compiled programs from one process to the next; `overlap`: see `keep_freed_memory`."""
    keep_freed_memory(overlap=overlap)
    keep_compiled_programs()
