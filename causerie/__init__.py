"""Causerie: own your ChatGPT. From web pages to an assistant that learns from what people say about its answers."""

__version__ = "0.1.0"
