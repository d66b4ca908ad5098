"""`python -m peelcli` is `peel`."""

from peelcli.cli.main import main

if __name__ == "__main__":
    main()
