"""What all benchmarks share: timing, records, tables, figures, and what a device may do to them."""
