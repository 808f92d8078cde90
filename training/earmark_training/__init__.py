"""Training of Earmark's models: data, augmentation, network, calibration, evaluation and export."""
