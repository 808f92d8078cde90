"""`earmark review`: say of each clip whether its detection is right."""
