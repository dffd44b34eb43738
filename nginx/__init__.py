"""The nginx templates, shipped as package data."""
