"""Bridges to other people's code: memories as modules of other libraries, their cells as memories, and their losses."""
