"""The zoo's networks in torch, to compare with. Every file here imports torch; nothing else may at the top of a file."""
