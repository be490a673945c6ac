"""marginface: train, evaluate and ship face embeddings learned with margin-based softmax losses."""
