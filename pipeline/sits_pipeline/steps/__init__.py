"""The pure steps of a build: NumPy arrays in, NumPy arrays out; no step knows another."""
