"""Evaluation: recall, false alarms and classification accuracy of a model file; and its thresholds."""
