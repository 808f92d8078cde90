"""Reports: tables, pages, and the model card."""
