"""The edge: one agent beside each Varnish. Watches the plan, renders, loads, switches, acknowledges, counts flip-flops."""
