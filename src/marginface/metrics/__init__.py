"""Numbers from scores: numpy in, numbers out, no files. Floor 1; `protocols` and `report` build on it."""
