"""Reports: tables, HTML pages, and the model card."""
