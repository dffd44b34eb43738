"""The barrier service: drives rollouts through barriers, and the HTTP API that deploy jobs call."""
