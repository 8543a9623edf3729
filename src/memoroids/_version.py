"""The version, where the build and provenance read it without importing anything else."""

__version__ = "0.4.0"
