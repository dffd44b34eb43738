"""The parts in containers: what each is told by its environment, the secrets they share, what each runs."""
