"""What a trained network makes: text, coloured files. One file per task."""
