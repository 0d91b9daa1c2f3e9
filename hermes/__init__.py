"""Hermes: a sidecar gateway for Ollama. Applications talk HTTP to it; it decides who runs next."""

__version__ = "0.1.0"
