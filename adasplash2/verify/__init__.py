"""Are the kernels right on this machine?  Every stage and the whole, held to the float64 oracle, case by case."""
