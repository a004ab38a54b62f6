"""What is learnt from a cube."""
