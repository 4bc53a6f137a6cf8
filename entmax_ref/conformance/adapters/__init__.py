"""Which implementations come with an adapter?  One file each, made when it is asked for."""
