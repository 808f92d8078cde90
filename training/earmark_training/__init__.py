"""Training of keyword-spotting models: data, network, evaluation, reports, and new keywords."""
