"""`python -m lrpjax` is `lrpjax`."""

from .cli import main

main()
