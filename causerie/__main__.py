"""`python -m causerie` is the same as the `causerie` command."""

from causerie.cli import main

if __name__ == "__main__":
    main()
