"""Helpers that have nothing to do with learning: files, error messages, imports, provenance, the allocator."""
