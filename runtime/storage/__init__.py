"""Files: bundles, arrays, hashes, and outputs that are written completely or not at all."""
