"""`python -m instapipe`."""

from instapipe.cli import main

main()
