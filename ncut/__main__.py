"""`python -m ncut` is the command `ncut`."""

from ncut.cli import main

if __name__ == "__main__":
    main()
