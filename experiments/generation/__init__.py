"""Output of a trained network: text, coloured files, images. One module per task."""
