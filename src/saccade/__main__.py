"""`python -m saccade` and the command `saccade`."""

import sys


def main() -> int:
    """Run the command line; its exit code."""
    try:
        from saccade.cli import run
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        sys.stderr.write("error: the command line needs: pip install 'saccade[cli]'\n")
        return 2
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
