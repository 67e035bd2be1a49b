"""What the preparation of whole slides costs: stains beside their peers, memory of one huge slide."""
