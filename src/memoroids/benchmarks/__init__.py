"""What `memoroids bench` runs, one file for each question: figures beside references from the same process."""
