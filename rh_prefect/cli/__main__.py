"""Entry point for `python -m rh_prefect.cli`, which is `rh-prefect`."""

from rh_prefect.cli import main

main()
