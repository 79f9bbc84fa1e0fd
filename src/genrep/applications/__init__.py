"""What trained models are put to: one file per use."""
