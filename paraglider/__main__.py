"""``python -m paraglider``: the command line, as the console script runs it."""

from paraglider.cli.main import entry

if __name__ == "__main__":
    entry()
