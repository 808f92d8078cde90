"""Evaluation: recall, false alarms and accuracy of a model file."""
