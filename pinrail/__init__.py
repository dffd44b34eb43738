"""The one command, ``pinrail``, and the local fleet it can start. Wires the parts; holds no logic of theirs."""
