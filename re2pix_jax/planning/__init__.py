"""What a training step or a prediction would take on devices that need not be here."""
