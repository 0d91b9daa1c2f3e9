"""Sockets and HTTP, in the parent. It knows dialects and routes; of models and processes it knows what Application hands it."""
