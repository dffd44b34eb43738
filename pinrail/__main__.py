"""``python -m pinrail``: the same as ``pinrail``, for programs that know an interpreter and not a PATH."""

from pinrail.cli import main

main()
