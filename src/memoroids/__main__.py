"""`python -m memoroids`, the same as the command `memoroids`."""

from memoroids.cli.main import main

if __name__ == "__main__":
    main()
