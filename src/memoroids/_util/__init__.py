"""Helpers that know nothing of learning: files, messages, provenance, the allocator."""
