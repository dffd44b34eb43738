"""The VCL templates, shipped as package data, and what they are rendered with."""
