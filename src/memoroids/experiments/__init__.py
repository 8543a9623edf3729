"""The paper's figures and tables, made from runs."""
