"""`python -m bcm_edge …`: the command line, where the program `bcm-edge` is not on the path."""

from .cli import main

if __name__ == "__main__":
    main()
