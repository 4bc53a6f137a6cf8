"""What do all commands say of a run?  Where it takes place, how far it is, and what goes to JSON and back."""
