"""`python -m rh_prefect.cli` is `rh-prefect`."""

from rh_prefect.cli import main

main()
