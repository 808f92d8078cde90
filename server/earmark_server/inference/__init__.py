"""Inference: the engine that batches streams, their sessions, and the models."""
