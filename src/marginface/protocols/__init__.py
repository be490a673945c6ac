"""What a benchmark is: images to embed, and how embeddings become results. Floor 2; used by `evaluate`."""
