"""The edge: one agent beside each Varnish. Renders, loads, switches, acknowledges, counts flip-flops."""
