"""`python -m layerhold`: the command."""

from layerhold.cli.main import run

run()
