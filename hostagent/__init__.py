"""The host agent (deployd): fetches, verifies, unpacks, runs two versions on two ports, registers them."""
