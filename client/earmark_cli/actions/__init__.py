"""What happens at a detection besides printing it: commands, clips and recordings."""
